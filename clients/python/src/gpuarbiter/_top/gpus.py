"""The GPUs of a frame: their memory ledger as bars, their readings, and what goes on on them."""

from collections.abc import Sequence
from typing import NamedTuple

from gpuarbiter._convert import enum_name, optional_timedelta
from gpuarbiter._top.text import BOLD, CYAN, DIM, GREEN, RED, YELLOW, Line, Part
from gpuarbiter._units import format_bytes, format_duration
from gpuarbiter.v1 import snapshot_pb2

Gpu = snapshot_pb2.GpuSnapshot
NONE = "-"
_MINUTE = 60.0
# What stands before a bar, and after it.
_MARGIN = 12 + 23


class Rates(NamedTuple):
    """What a GPU's counters rose by, per second; None where that is not known."""

    grants: float | None = None
    declines: float | None = None
    timeouts: float | None = None


def full(gpu: Gpu, rates: Rates, width: int) -> list[Line]:
    """Five lines."""
    memory, sample = gpu.memory, gpu.sample
    room = max(0, width - _MARGIN)
    used = sample.memory_used_bytes if sample.HasField("memory_used_bytes") else None
    driver = _bar([("=", CYAN, used or 0)], memory.total_bytes, room)
    waits = " ".join(
        f"{name} {_duration(gpu.stats, field)}"
        for name, field in (("p50", "queue_wait_p50"), ("p95", "queue_wait_p95"))
    )
    happens = "  ".join(
        f"{name} {per_time(rate)}"
        for name, rate in (("grants", rates.grants), ("declines", rates.declines), ("timeouts", rates.timeouts))
    )
    return [
        _head(gpu),
        _ledger_line(gpu, width),
        [Part("          "), *_legend(gpu)],
        [Part("  driver  "), *driver, Part(f" used       {_bytes(used)}")],
        [Part(f"  waits {waits}  {happens}", DIM)],
    ]


def short(gpu: Gpu, _rates: Rates, width: int) -> list[Line]:
    """Two lines."""
    return [_head(gpu), _ledger_line(gpu, width)]


def tiny(gpu: Gpu, _rates: Rates, _width: int) -> list[Line]:
    """One line."""
    return [[*_head(gpu), Part(f"  admissible {_known(gpu, gpu.memory.admissible_bytes)}")]]


def per_time(rate: float | None) -> str:
    """Per second, or per minute where that is too seldom to be seen."""
    if rate is None:
        return NONE
    return f"{rate:.1f}/s" if rate >= 1 else f"{rate * _MINUTE:.0f}/min"


def _head(gpu: Gpu) -> Line:
    sample = gpu.sample
    busy = f"{sample.utilization_ratio:.0%}" if sample.HasField("utilization_ratio") else NONE
    watts = f"{sample.power_watts:.0f}" if sample.HasField("power_watts") else NONE
    limit = f"/{sample.power_limit_watts:.0f}" if sample.HasField("power_limit_watts") else ""
    heat = f"{sample.temperature_celsius:.0f}" if sample.HasField("temperature_celsius") else NONE
    name = (f" {gpu.name}" if gpu.name else "") + f" {_known(gpu, gpu.memory.total_bytes)}"
    return [Part(gpu.key, BOLD), Part(f"{name}  "), *_state(gpu), Part(f"  util {busy}  {watts}{limit} W  {heat} °C")]


def _state(gpu: Gpu) -> Line:
    healthy = gpu.health in {snapshot_pb2.GPU_HEALTH_OK, snapshot_pb2.GPU_HEALTH_UNMONITORED}
    marks = [Part(enum_name(snapshot_pb2.GpuHealth, gpu.health) or NONE, GREEN if healthy else RED)]
    if gpu.cordoned:
        marks.append(Part(" drained", YELLOW))
    if gpu.pressure == snapshot_pb2.PRESSURE_HIGH:
        marks.append(Part(" pressure", YELLOW))
    cooldown = optional_timedelta(gpu, "cooldown_remaining")
    if cooldown is not None:
        marks.append(Part(f" cooldown {format_duration(cooldown)}", YELLOW))
    return marks


def _ledger_line(gpu: Gpu, width: int) -> Line:
    memory = gpu.memory
    parts = (
        ("#", GREEN, memory.committed_bytes),
        ("+", YELLOW, memory.unleased_bytes),
        ("-", DIM, memory.headroom_bytes),
    )
    bar = _bar(parts, memory.total_bytes, max(0, width - _MARGIN))
    return [Part("  ledger  "), *bar, Part(f" admissible {_known(gpu, memory.admissible_bytes)}")]


def _legend(gpu: Gpu) -> Line:
    memory = gpu.memory
    return [
        Part(f"# committed {_known(gpu, memory.committed_bytes)}", GREEN),
        Part(f"  + unleased {_known(gpu, memory.unleased_bytes)}", YELLOW),
        Part(f"  - headroom {_known(gpu, memory.headroom_bytes)}", DIM),
    ]


def _bar(parts: Sequence[tuple[str, str, int]], total: int, room: int) -> Line:
    """Each part (character, style, bytes) in proportion to the total, one after another, never more than all."""
    made, filled, sum_bytes = [Part("[")], 0, 0
    for character, style, size in parts:
        sum_bytes += size
        upto = min(room, round(room * sum_bytes / total)) if total else 0
        # What is there is seen, however little it is.
        upto = max(upto, min(room, filled + 1)) if size and total else max(upto, filled)
        made.append(Part(character * (upto - filled), style))
        filled = upto
    return [*made, Part(" " * (room - filled)), Part("]")]


def _known(gpu: Gpu, figure: int) -> str:
    return format_bytes(figure) if gpu.HasField("memory") else NONE


def _bytes(figure: int | None) -> str:
    return NONE if figure is None else format_bytes(figure)


def _duration(stats: snapshot_pb2.GpuStats, field: str) -> str:
    duration = optional_timedelta(stats, field)
    return NONE if duration is None else format_duration(duration)
