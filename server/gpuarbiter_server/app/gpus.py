"""Where the GPUs come from: the driver, a simulation or the configuration."""

import contextlib

from gpuarbiter_server.app.problems import StartError
from gpuarbiter_server.config import Config, ConfiguredGpus, SimulatedGpus
from gpuarbiter_server.core.model import GpuSpec
from gpuarbiter_server.gpu.backend import GpuBackend, NoDriverError
from gpuarbiter_server.gpu.nvml import NvmlBackend
from gpuarbiter_server.gpu.simulated import SimulatedBackend, default_simulation_root
from gpuarbiter_server.gpu.static import StaticBackend
from gpuarbiter_server.runtime.threads import within

# A driver that does not answer its first call by then counts as none.
_DRIVER_PATIENCE = 15.0
_LAST_PATIENCE = 1.0


async def find(config: Config) -> tuple[GpuBackend, list[GpuSpec]]:
    """The source of GPUs that is configured, and the GPUs that it shows."""
    backend: GpuBackend
    match config.gpus:
        case SimulatedGpus(count, memory_bytes):
            seed = f"{config.node_name()}/{config.listen.grpc}/{config.listen.socket}"
            backend = SimulatedBackend(count, memory_bytes, default_simulation_root(), seed)
        case ConfiguredGpus(listed):
            backend = StaticBackend(listed)
        case _:
            backend = NvmlBackend()
    try:
        found = await within(_DRIVER_PATIENCE, backend.open)
    except NoDriverError as error:
        raise StartError(
            f"{error}; without an NVIDIA driver set gpus to a list of GPUs, or to sim:1x24GiB for simulated ones"
        ) from error
    except TimeoutError as error:
        raise StartError(f"the NVIDIA driver did not answer within {_DRIVER_PATIENCE:g} s") from error
    return backend, list(found)


async def close(backend: GpuBackend) -> None:
    """A driver that hangs does not keep the arbiter from ending."""
    with contextlib.suppress(TimeoutError):
        await within(_LAST_PATIENCE, backend.close)
