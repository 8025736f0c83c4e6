"""What is asked of NVML, and how its answers become specs and readings.

Law: `used = total - free - reserved`; what the driver keeps for itself is nobody's use. NVML's units (milliwatts,
megahertz, per cent) end here.
"""

import logging
from dataclasses import dataclass
from typing import Any, NamedTuple

from gpuarbiter_server.core.model import GpuProcess, GpuReading, GpuSpec, ProcessId
from gpuarbiter_server.gpu.backend import DriverGoneError, GpuLostError
from gpuarbiter_server.gpu.nvml_calls import NOT_SUPPORTED, NvmlCalls

log = logging.getLogger(__name__)

# A process of the CUDA Multi-Process Service shows up in the last list only; one that computes and draws, in two.
PROCESS_QUERIES = (
    "nvmlDeviceGetComputeRunningProcesses_v3",
    "nvmlDeviceGetGraphicsRunningProcesses_v3",
    "nvmlDeviceGetMPSComputeRunningProcesses_v3",
)


@dataclass(frozen=True, slots=True)
class FoundGpu:
    """A GPU, NVML's handle of it, and whether the system's memory stands in for its own."""

    spec: GpuSpec
    handle: Any
    unified: bool


class Memory(NamedTuple):
    """Bytes."""

    total: int
    free: int
    reserved: int


def find_gpus(calls: NvmlCalls) -> list[FoundGpu]:
    """All GPUs and MIG instances, by key.

    Raises:
        DriverGoneError: the driver stopped answering.
    """
    version = calls.ask("nvmlSystemGetDriverVersion") or ""
    found: list[FoundGpu] = []
    for number, handle in enumerate(_by_bus(calls)):
        try:
            if handle is None:
                log.warning("gpu:%d cannot be opened and is left out until the next start", number)
            elif _mig_is_on(calls, handle):
                found += _find_instances(calls, handle, number, version)
            else:
                found.append(_describe(calls, handle, key=f"gpu:{number}", index=number, version=version))
        except DriverGoneError:
            raise
        except GpuLostError as error:
            log.warning("gpu:%d is left out until the next start: %s", number, error)
    return found


def _by_bus(calls: NvmlCalls) -> list[Any]:
    """The handles in PCI bus order; None for a GPU that NVML counts but cannot open."""
    handles = [_handle(calls, index) for index in range(calls.ask("nvmlDeviceGetCount") or 0)]
    buses = [_bus(calls, handle) for handle in handles]
    known = [bus for bus in buses if bus is not None]
    if len(known) < len(handles):
        return handles
    return [handle for _, handle in sorted(zip(known, handles, strict=True), key=lambda pair: pair[0])]


def _handle(calls: NvmlCalls, index: int) -> Any:
    try:
        return calls.ask("nvmlDeviceGetHandleByIndex", index)
    except DriverGoneError:
        raise
    except GpuLostError:
        return None


def _bus(calls: NvmlCalls, handle: Any) -> tuple[int, int, int] | None:
    if handle is None:
        return None
    try:
        pci = calls.ask("nvmlDeviceGetPciInfo_v3", handle)
    except DriverGoneError:
        raise
    except GpuLostError:
        return None
    return None if pci is None else (pci.domain, pci.bus, pci.device)


def _mig_is_on(calls: NvmlCalls, handle: Any) -> bool:
    modes = calls.ask("nvmlDeviceGetMigMode", handle)
    return modes is not None and modes[0] == calls.constant("NVML_DEVICE_MIG_ENABLE")


def _find_instances(calls: NvmlCalls, parent: Any, number: int, version: str) -> list[FoundGpu]:
    """The MIG instances of a GPU, numbered as nvidia-smi does; there may be gaps."""
    parent_uuid = calls.ask("nvmlDeviceGetUUID", parent) or ""
    found = []
    for instance in range(calls.ask("nvmlDeviceGetMaxMigDeviceCount", parent) or 0):
        handle = calls.ask("nvmlDeviceGetMigDeviceHandleByIndex", parent, instance)
        if handle is not None:
            key = f"gpu:{number}/{instance}"
            found.append(
                _describe(calls, handle, key=key, index=number, version=version, parent_uuid=parent_uuid),
            )
    return found


def _describe(
    calls: NvmlCalls,
    handle: Any,
    *,
    key: str,
    index: int,
    version: str,
    parent_uuid: str = "",
) -> FoundGpu:
    memory, supported = _device_memory(calls, handle)
    unified = memory is None and not supported
    if unified:
        memory = system_memory()
    spec = GpuSpec(
        key=key,
        index=index,
        total_bytes=memory.total if memory is not None else 0,
        uuid=calls.ask("nvmlDeviceGetUUID", handle) or "",
        name=calls.ask("nvmlDeviceGetName", handle) or "",
        reserved_bytes=memory.reserved if memory is not None else 0,
        parent_uuid=parent_uuid,
        driver_version=version,
    )
    return FoundGpu(spec, handle, unified)


def read_gpu(calls: NvmlCalls, handle: Any, *, unified: bool) -> GpuReading:
    """One look at one GPU. Memory comes first: admission goes by it, and the reading carries the time before it.

    Raises:
        GpuLostError: the GPU does not answer; DriverGoneError: the driver does not.
    """
    memory = system_memory() if unified else _device_memory(calls, handle)[0]
    used = None if memory is None else max(0, memory.total - memory.free - memory.reserved)
    load = calls.ask("nvmlDeviceGetUtilizationRates", handle)
    clock = calls.ask("nvmlDeviceGetClockInfo", handle, calls.constant("NVML_CLOCK_SM"))
    temperature = calls.ask("nvmlDeviceGetTemperature", handle, calls.constant("NVML_TEMPERATURE_GPU"))
    reading = GpuReading(
        time=0.0,
        memory_used_bytes=used,
        memory_free_bytes=None if memory is None else memory.free,
        utilization_ratio=None if load is None else load.gpu / 100,
        memory_bandwidth_ratio=None if load is None else load.memory / 100,
        power_watts=_thousandth(calls.ask("nvmlDeviceGetPowerUsage", handle)),
        power_limit_watts=_thousandth(calls.ask("nvmlDeviceGetEnforcedPowerLimit", handle)),
        temperature_celsius=None if temperature is None else float(temperature),
        sm_clock_hertz=None if clock is None else clock * 1_000_000,
        processes=_processes(calls, handle),
    )
    if reading == GpuReading(time=0.0):
        # Seen when a container's access to the device is taken away under it: every call says "Unknown Error".
        raise GpuLostError("the driver does not answer one question about this GPU")
    return reading


def _processes(calls: NvmlCalls, handle: Any) -> tuple[GpuProcess, ...] | None:
    """Who is on the GPU, each pid once; None when no list can be had."""
    lists = [listed for query in PROCESS_QUERIES if (listed := calls.ask(query, handle)) is not None]
    if not lists:
        return None
    used: dict[int, int | None] = {}
    for entry in (entry for listed in lists for entry in listed):
        # Every list tells the whole process, so that two figures are not to be added.
        known, said = used.get(entry.pid), entry.usedGpuMemory
        used[entry.pid] = known if said is None else max(said, known or 0)
    return tuple(GpuProcess(ProcessId(pid, 0), bytes_) for pid, bytes_ in sorted(used.items()))


def _device_memory(calls: NvmlCalls, handle: Any) -> tuple[Memory | None, bool]:
    """The device's memory, and whether it has such a figure at all."""
    info, _ = calls.try_to("nvmlDeviceGetMemoryInfo", handle, calls.constant("nvmlMemory_v2"))
    if info is not None and info.total:
        return Memory(info.total, info.free, info.reserved), True
    # Drivers before 510 do not know the second version, and count what they reserve as used.
    info, code = calls.try_to("nvmlDeviceGetMemoryInfo", handle)
    if info is not None and info.total:
        return Memory(info.total, info.free, 0), True
    return None, info is None and code not in NOT_SUPPORTED


def system_memory() -> Memory | None:
    """The machine's own memory, of which a GPU without memory of its own takes its share; None without /proc."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123 - Path.open costs twice the time
            lines = dict(line.split(":", 1) for line in file)
        total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    except (OSError, KeyError, ValueError, IndexError):
        return None
    return Memory(total, free, 0)


def _thousandth(value: int | None) -> float | None:
    return None if value is None else value / 1000
