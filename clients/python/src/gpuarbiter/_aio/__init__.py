"""The asynchronous client, on grpc.aio. `gpuarbiter._sync` is generated from it."""
