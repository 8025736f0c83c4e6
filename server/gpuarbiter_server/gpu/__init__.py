"""What the arbiter sees of the machine: GPUs, their readings, and the processes on them.

`backend.GpuBackend` is the one way to look at GPUs; `nvml`, `static` and `simulated` are its three
kinds. `sampler.Sampler` looks at regular intervals, in threads of its own, and hands events on.
"""
