"""The server of GpuArbiter: grants leases on the GPUs of one node."""

__version__ = "0.1.0"
