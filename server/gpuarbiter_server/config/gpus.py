"""Which GPUs there are: found, simulated or listed.

Law: what comes out names each GPU once, by a key that is neither an index nor another's UUID, since
requests may name a GPU by any of the three.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from gpuarbiter_server.config.kinds import Kind
from gpuarbiter_server.config.problems import UNKNOWN_KEY, Fault, Rejection, unknown_key
from gpuarbiter_server.config.units import SIZE_PATTERN, format_size, parse_size
from gpuarbiter_server.core.model import GpuSpec

# 16 GPUs of 7 MIG instances each are 112.
MAX_GPUS = 128
_KEY_PATTERN = r"[A-Za-z][A-Za-z0-9_.:/-]{0,63}"
_TEXT_PATTERN = r"[!-~][ -~]{0,95}"
_SIMULATED = re.compile(r"sim:([0-9]{1,4})x(.+)")
_ENTRY_KEYS = ("key", "memory", "uuid", "name")
_FORM = "auto, simulated GPUs such as sim:2x24GiB, or a list of {key, memory, uuid, name}"


@dataclass(frozen=True, slots=True)
class AutoGpus:
    """Whatever NVML finds; what stands in where it finds nothing is the caller's choice."""


@dataclass(frozen=True, slots=True)
class SimulatedGpus:
    """So many GPUs that do not exist, each with so much memory."""

    count: int
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class ConfiguredGpus:
    """GPUs as they are listed; `monitored` is False until NVML is found to know one by its UUID."""

    specs: tuple[GpuSpec, ...] = field(default=())


GpuSource = AutoGpus | SimulatedGpus | ConfiguredGpus


def parse_gpus(value: object) -> GpuSource:
    """The GPUs of "auto", "sim:2x24GiB" or a list of mappings.

    Raises:
        ValueError: with what is allowed; for a list, a Rejection that names each fault.
    """
    if value == "auto":
        return AutoGpus()
    if isinstance(value, list):
        return _listed(value)
    match = _SIMULATED.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise ValueError(_FORM)
    count, memory_bytes = int(match[1]), parse_size(match[2])
    if not 1 <= count <= MAX_GPUS or not memory_bytes:
        raise ValueError(f"1 to {MAX_GPUS} simulated GPUs with memory, such as sim:2x24GiB")
    return SimulatedGpus(count, memory_bytes)


def format_gpus(gpus: GpuSource) -> str | list[dict[str, str]]:
    """The file form, which parses back to the same."""
    match gpus:
        case SimulatedGpus(count, memory_bytes):
            return f"sim:{count}x{format_size(memory_bytes)}"
        case ConfiguredGpus(specs):
            return [_entry(spec) for spec in specs]
    return "auto"


def _entry(spec: GpuSpec) -> dict[str, str]:
    said = {"key": spec.key, "memory": format_size(spec.total_bytes), "uuid": spec.uuid, "name": spec.name}
    return {name: text for name, text in said.items() if text}


def _listed(entries: list[Any]) -> ConfiguredGpus:
    if not 1 <= len(entries) <= MAX_GPUS:
        raise ValueError(f"1 to {MAX_GPUS} GPUs")
    faults: list[Fault] = []
    specs: list[GpuSpec] = []
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        found = list(_entry_faults(entry, str(index), seen))
        faults += found
        if not found:
            specs.append(_spec(entry, index))
            seen |= {specs[-1].key, specs[-1].uuid} - {""}
    if faults:
        raise Rejection(faults)
    return ConfiguredGpus(tuple(specs))


def _spec(entry: Mapping[str, Any], index: int) -> GpuSpec:
    return GpuSpec(
        key=entry["key"],
        index=index,
        total_bytes=parse_size(entry["memory"]),
        uuid=entry.get("uuid") or "",
        name=entry.get("name") or "",
        monitored=False,
        source="configured",
    )


def _entry_faults(entry: object, index: str, seen: set[str]) -> Iterator[Fault]:
    if not isinstance(entry, dict):
        yield Fault((index,), entry, "a mapping with key and memory, and uuid and name if they are known")
        return
    for name in entry:
        if name not in _ENTRY_KEYS:
            yield Fault((index, name), None, unknown_key(name, _ENTRY_KEYS), wrong=UNKNOWN_KEY)
    for name, pattern, allowed in (
        ("key", _KEY_PATTERN, "a text such as gpu:0: a letter, then up to 63 letters, digits and _.:/-"),
        ("uuid", _TEXT_PATTERN, "a UUID as nvidia-smi -L shows it"),
        ("name", _TEXT_PATTERN, "a text of up to 96 characters"),
    ):
        text = entry.get(name)
        if text is None and name != "key":
            continue
        if not isinstance(text, str) or not re.fullmatch(pattern, text):
            yield Fault((index, name), text, allowed)
        elif name != "name" and text in seen:
            yield Fault((index, name), text, "a key and a UUID that no other GPU has")
    try:
        if not parse_size(entry.get("memory")):
            yield Fault((index, "memory"), entry["memory"], "more than 0 bytes")
    except ValueError as error:
        yield Fault((index, "memory"), entry.get("memory"), str(error))


def _schema() -> dict[str, Any]:
    text = {"type": "string", "pattern": f"^{_TEXT_PATTERN}$"}
    entry = {
        "type": "object",
        "additionalProperties": False,
        "required": ["key", "memory"],
        "properties": {
            "key": {"type": "string", "pattern": f"^{_KEY_PATTERN}$"},
            "memory": {"anyOf": [{"type": "string", "pattern": SIZE_PATTERN}, {"type": "integer", "minimum": 1}]},
            "uuid": text,
            "name": text,
        },
    }
    simulated = {"type": "string", "pattern": r"^(auto|sim:[0-9]{1,4}x.+)$"}
    return {"anyOf": [simulated, {"type": "array", "minItems": 1, "maxItems": MAX_GPUS, "items": entry}]}


Gpus = Annotated[
    GpuSource,
    PlainValidator(parse_gpus),
    PlainSerializer(format_gpus),
    WithJsonSchema(_schema()),
    Kind("auto, sim:COUNTxSIZE or a list of {key, memory, uuid, name}"),
]
