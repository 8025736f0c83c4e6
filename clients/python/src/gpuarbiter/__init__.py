"""Client of GpuArbiter."""
