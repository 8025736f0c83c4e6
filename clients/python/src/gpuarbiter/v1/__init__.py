"""Generated stubs of the contract gpuarbiter.v1 (see proto/); do not edit."""
