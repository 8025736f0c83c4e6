"""Processes as /proc shows them: who lives, since when, and who started whom.

Law: nothing here raises because a process went away between two looks; it is then simply not there.
A zombie is not there either: it has let go of its memory, on the GPU too. Where there is no /proc
(macOS, Windows) no process is known, and whoever asks goes without.

Fields of /proc/PID/stat by number: proc_pid_stat(5).
"""

import os
from collections.abc import Callable, Collection, Iterable
from functools import cache
from typing import NamedTuple

from gpuarbiter_server.core.model import ProcessId

# Deeper than any real chain of parents; a bound against a /proc that changes while it is walked.
MAX_DEPTH = 64

# PROC_PID_INIT_INO of the kernel's include/linux/proc_ns.h: the PID namespace of the machine itself.
INITIAL_PID_NAMESPACE = 0xEFFFFFFC

Children = Callable[[int], Iterable[int]]


class Stat(NamedTuple):
    """What the arbiter needs of /proc/PID/stat."""

    name: str
    parent: int
    threads: int
    # Clock ticks since boot.
    start_ticks: int


def read_stat(pid: int) -> Stat | None:
    """Looks at one process; None when it is gone, a zombie, or not to be seen from here."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:  # noqa: PTH123 - Path.open costs twice the time
            raw = file.read(4096)
    except OSError:
        return None
    # The name is free text: it may hold spaces and parentheses, so that only the last one closes it.
    opened, closed = raw.find(b"("), raw.rfind(b")")
    fields = raw[closed + 2 :].split()
    try:
        # From field 3 on: state 3, ppid 4, num_threads 20, starttime 22.
        state, parent, threads, start = fields[0], int(fields[1]), int(fields[17]), int(fields[19])
    except (IndexError, ValueError):
        return None
    # A leader that ended before its threads is a zombie by name, and yet the process lives.
    if state in b"ZX" and threads <= 1:
        return None
    return Stat(raw[opened + 1 : closed].decode(errors="replace"), parent, threads, start)


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when it is gone."""
    stat = read_stat(pid)
    return None if stat is None else stat.start_ticks


def identify(pid: int) -> ProcessId | None:
    """Names the process that has this pid now, so that a later one with the same pid is another."""
    stat = read_stat(pid)
    return None if stat is None else ProcessId(pid, stat.start_ticks)


def is_alive(process: ProcessId) -> bool:
    """Whether this very process, and not a later one with its pid, lives."""
    return start_ticks(process.pid) == process.start_ticks


def own_pid_namespace() -> int:
    """The inode of our PID namespace; 0 where there is none to be had."""
    try:
        return os.stat("/proc/self/ns/pid").st_ino  # noqa: PTH116 - it is a link into the kernel, no path
    except OSError:
        return 0


def boot_id() -> str:
    """Names this start of the machine; empty where the system does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as kernel:  # noqa: PTH123 -- no path of ours
            return kernel.read().strip()
    except OSError:
        return ""


def ancestors(process: ProcessId) -> tuple[ProcessId, ...]:
    """The living parents of a process, nearest first; empty when the process itself is gone."""
    found: list[ProcessId] = []
    child, stat = process, read_stat(process.pid)
    if stat is None or stat.start_ticks != process.start_ticks:
        return ()
    for _ in range(MAX_DEPTH):
        if stat is None or stat.parent <= 0:
            break
        above = read_stat(stat.parent)
        if above is None or above.start_ticks > child.start_ticks:
            # The parent died since we looked (its pid may be another's by now): ask for the new one.
            again = read_stat(child.pid)
            moved = again is not None and again.parent != stat.parent
            stat = again if moved else None
            continue
        child = ProcessId(stat.parent, above.start_ticks)
        found.append(child)
        stat = above
    return tuple(found)


def descendants(*pids: int, children: Children | None = None) -> tuple[ProcessId, ...]:
    """All living descendants of these processes, by pid; the processes themselves are not among them.

    `children` is how to find the children of one process; by default the cheapest way for these.
    """
    step = children or cheapest_children(pids)
    seen = set(pids)
    found: list[ProcessId] = []
    pending = list(pids)
    while pending:
        for child in step(pending.pop()):
            if child in seen:
                continue
            seen.add(child)
            pending.append(child)
            process = identify(child)
            if process is not None:
                found.append(process)
    return tuple(sorted(found))


def cheapest_children(pids: Collection[int]) -> Children:
    """Chooses between asking each thread for its children and looking at every process once.

    A CUDA program has dozens of threads, and each is one file; a container has few processes.
    """
    if not children_files_exist():
        return parent_table()
    stats = (read_stat(pid) for pid in pids)
    threads = sum(stat.threads for stat in stats if stat is not None)
    return children_of_threads if threads <= len(all_pids()) else parent_table()


@cache
def children_files_exist() -> bool:
    """Whether the kernel was built with the files (CONFIG_PROC_CHILDREN)."""
    pid = os.getpid()
    return os.path.exists(f"/proc/{pid}/task/{pid}/children")  # noqa: PTH110 - no Path is needed for one question


def children_of_threads(pid: int) -> list[int]:
    """The children of a process, from what each of its threads started."""
    found: list[int] = []
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - names are all that is wanted
    except OSError:
        return found
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/children", "rb") as file:  # noqa: PTH123 - as above
                found += map(int, file.read().split())
        except OSError:
            continue
    return found


def parent_table() -> Children:
    """The children of every process, from one look at all of them."""
    table: dict[int, list[int]] = {}
    for pid in all_pids():
        stat = read_stat(pid)
        if stat is not None:
            table.setdefault(stat.parent, []).append(pid)
    return lambda pid: table.get(pid, ())


def all_pids() -> list[int]:
    """Every process that /proc shows."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - as above
    except OSError:
        return []
