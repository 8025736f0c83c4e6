"""gpu-arbiterd journal: the journal as text for people and as JSON for programs."""

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from gpuarbiter_server.core.records import SavedGpu, SavedLease
from gpuarbiter_server.gpu.procfs import boot_id
from gpuarbiter_server.runtime.clock import monotonic
from gpuarbiter_server.store import journal_tools
from gpuarbiter_server.store.journal_tools import Inspection
from gpuarbiter_server.store.state_directory import JournalError

_NONE = "-"


def run(command: str, directory: Path, *, as_json: bool) -> int:
    """Runs `inspect`, `verify` or `compact`; returns the exit code: 1 where something is wrong with the journal."""
    commands: dict[str, Callable[[Path, bool], int]] = {"inspect": _inspect, "verify": _verify, "compact": _compact}
    try:
        return commands[command](directory, as_json)
    except JournalError as error:
        print(f"gpu-arbiterd: {error}", file=sys.stderr)  # noqa: T201
        return 1


def _inspect(directory: Path, as_json: bool) -> int:
    found = journal_tools.inspect(directory)
    # Times mean something only to the start of the machine that they were taken in.
    now = monotonic() if found.boot_id and found.boot_id == boot_id() else None
    _print(_plain(found), as_json, lambda: _page(found, now))
    return 1 if found.problems else 0


def _verify(directory: Path, as_json: bool) -> int:
    problems = journal_tools.verify(directory)
    _print({"problems": problems}, as_json, lambda: "\n".join(problems) or "the journal is in order")
    return 1 if problems else 0


def _compact(directory: Path, as_json: bool) -> int:
    sizes = journal_tools.compact(directory)
    _print(_plain(sizes), as_json, lambda: f"from {_size(sizes.before)} to {_size(sizes.after)}")
    return 0


def _print(plain: Any, as_json: bool, page: Callable[[], str]) -> None:
    print(json.dumps(plain, indent=2, ensure_ascii=False) if as_json else page())  # noqa: T201


def _plain(value: Any) -> Any:
    """The same as JSON knows it; enums by their names."""
    if is_dataclass(value):
        return {each.name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Enum):
        return value.name
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "_asdict"):
        return _plain(value._asdict())
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple) else value


def _page(found: Inspection, now: float | None) -> str:
    saved = found.saved
    state = "not in order; below is what can be read" if found.problems else "in order"
    about = [
        ("journal", str(found.path)),
        ("state", state),
        ("files", ", ".join(f"{name} {_size(size)}" for name, size in found.files.items()) or _NONE),
        ("version", _known(found.version)),
        ("epoch", _known(found.epoch)),
        ("boot", f"{found.boot_id or _NONE}{'' if now is None else ' (the one that runs)'}"),
        ("tokens", f"reserved up to {_known(found.tokens_until)}"),
        ("ended", f"{len(saved.ended)} kept"),
    ]
    parts = [
        "\n".join(f"problem  {problem}" for problem in found.problems),
        "\n".join(f"{name:<9}{text}" for name, text in about),
        _table(_LEASES, [_lease(each, now) for each in saved.leases]) if saved.leases else "no leases",
        _table(_GPUS, [_gpu(each, now) for each in saved.gpus]) if saved.gpus else "no GPUs",
    ]
    return "\n\n".join(part for part in parts if part)


_LEASES = ("LEASE", "TASK", "CLIENT", "GPUS", "TOKEN", "HELD", "HOLD", "RECOVERS")


def _lease(lease: SavedLease, now: float | None) -> Sequence[str]:
    hold = None if lease.hold_until is None else lease.hold_until - lease.granted_at
    return (
        lease.lease_id,
        lease.request.task_type,
        lease.key.identity.client_id,
        ",".join(share.gpu for share in lease.shares),
        str(lease.token),
        _seconds(None if now is None else now - lease.granted_at),
        _seconds(hold),
        _left(lease.recover_until, now),
    )


_GPUS = ("GPU", "UUID", "NEWEST TOKEN", "CORDONED", "COOLDOWN")


def _gpu(gpu: SavedGpu, now: float | None) -> Sequence[str]:
    cordon = _NONE if gpu.cordon is None else gpu.cordon or "yes"
    cooldown = None if gpu.cooldown is None else gpu.cooldown.until
    return gpu.key, gpu.uuid or _NONE, str(gpu.newest_token), cordon, _left(cooldown, now)


def _left(until: float | None, now: float | None) -> str:
    if until is None:
        return _NONE
    return "yes" if now is None else f"{max(0.0, until - now):.1f}s left"


def _seconds(seconds: float | None) -> str:
    return _NONE if seconds is None else f"{seconds:.1f}s"


def _known(number: int | None) -> str:
    return _NONE if number is None else str(number)


def _size(size: int) -> str:
    return f"{size / 1024:.1f} KiB"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    lines = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in (head, *rows))
    return "\n".join(line.rstrip() for line in lines)
