"""The synchronous client: generated from `gpuarbiter._aio`, but for backend.py."""
