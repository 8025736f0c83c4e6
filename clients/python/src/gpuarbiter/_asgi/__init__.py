"""The parts of `gpuarbiter.asgi`."""
