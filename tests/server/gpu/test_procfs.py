import io
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gpuarbiter_server.core.model import ProcessId
from gpuarbiter_server.gpu import procfs

Make = Callable[..., Any]

OURS = os.getpid()


def identity(pid: int) -> ProcessId:
    process = procfs.identify(pid)
    assert process is not None
    return process


def test_a_process_is_its_pid_and_its_start():
    assert identity(OURS) == (OURS, procfs.start_ticks(OURS))
    assert procfs.is_alive(identity(OURS))
    assert not procfs.is_alive(ProcessId(OURS, 1))


@pytest.mark.parametrize("name", ["a b c", "x) S 1 (y", ")) 1 2 3", "(((", "\u20ac\u20ac"])
def test_no_name_misleads(family: Make, name: str):
    stat = procfs.read_stat(family(name=name).pids[0])
    assert stat is not None
    assert stat.name == name
    assert stat.parent == OURS
    assert stat.threads == 1
    assert stat.start_ticks >= (procfs.start_ticks(OURS) or 0)


def test_a_dead_process_is_not_there(family: Make):
    one = family()
    process = identity(one.pids[0])
    one.kill(0)
    assert procfs.identify(process.pid) is None
    assert procfs.start_ticks(process.pid) is None
    assert not procfs.is_alive(process)
    assert procfs.ancestors(process) == ()
    assert procfs.descendants(process.pid) == ()


def test_a_zombie_is_not_there(eventually: Make):
    child = subprocess.Popen(["true"])
    eventually(lambda: ") Z " in Path(f"/proc/{child.pid}/stat").read_text())
    assert procfs.identify(child.pid) is None
    child.wait()


def test_a_leader_that_ended_before_its_threads_still_lives(monkeypatch: pytest.MonkeyPatch):
    line = b"7 (x) Z 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 %d 0 4711 0"
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.BytesIO(line % 3))
    assert procfs.identify(7) == ProcessId(7, 4711)
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.BytesIO(line % 1))
    assert procfs.identify(7) is None


@pytest.mark.parametrize("line", [b"", b"7 (x) S", b"7 (x) S a 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 4711 0"])
def test_what_makes_no_sense_is_no_process(monkeypatch: pytest.MonkeyPatch, line: bytes):
    monkeypatch.setattr("builtins.open", lambda *_, **__: io.BytesIO(line))
    assert procfs.read_stat(7) is None


def test_ancestors_are_named_nearest_first(family: Make):
    pids = family(depth=2).pids
    found = procfs.ancestors(identity(pids[2]))
    assert found[:3] == (identity(pids[1]), identity(pids[0]), identity(OURS))
    assert found[-1].pid == 1 or procfs.read_stat(found[-1].pid).parent == 0


def test_ancestors_of_a_later_process_with_the_pid_are_not_told(family: Make):
    process = identity(family().pids[0])
    assert procfs.ancestors(process._replace(start_ticks=process.start_ticks - 1)) == ()


def table_of(monkeypatch: pytest.MonkeyPatch, *tables: dict[int, procfs.Stat]) -> None:
    """Answers from the first table, and from the next one once a missing process was asked for."""
    left = list(tables)

    def read_stat(pid: int) -> procfs.Stat | None:
        stat = left[0].get(pid)
        if stat is None and len(left) > 1:
            left.pop(0)
        return stat

    monkeypatch.setattr(procfs, "read_stat", read_stat)


def test_a_parent_that_dies_while_we_look_makes_room_for_the_next(monkeypatch: pytest.MonkeyPatch):
    child, root = procfs.Stat("c", 5, 1, 90), procfs.Stat("r", 0, 1, 10)
    table_of(monkeypatch, {9: child, 1: root}, {9: child._replace(parent=1), 1: root})
    assert procfs.ancestors(ProcessId(9, 90)) == (ProcessId(1, 10),)


def test_a_child_that_dies_while_we_look_has_no_more_ancestors(monkeypatch: pytest.MonkeyPatch):
    table_of(monkeypatch, {9: procfs.Stat("c", 5, 1, 90)}, {})
    assert procfs.ancestors(ProcessId(9, 90)) == ()


def test_a_process_younger_than_its_child_is_not_its_parent(monkeypatch: pytest.MonkeyPatch):
    table_of(monkeypatch, {9: procfs.Stat("c", 5, 1, 90), 5: procfs.Stat("p", 1, 1, 95)})
    assert procfs.ancestors(ProcessId(9, 90)) == ()


def test_a_ring_of_parents_ends(monkeypatch: pytest.MonkeyPatch):
    table_of(monkeypatch, {9: procfs.Stat("a", 5, 1, 90), 5: procfs.Stat("b", 9, 1, 90)})
    assert len(procfs.ancestors(ProcessId(9, 90))) == procfs.MAX_DEPTH


@pytest.mark.parametrize("way", ["threads", "table", "choice"])
def test_descendants_are_found_either_way(family: Make, way: str):
    pids = family(depth=3).pids
    children = {"threads": lambda: procfs.children_of_threads, "table": procfs.parent_table, "choice": lambda: None}
    found = procfs.descendants(pids[0], children=children[way]())
    assert found == tuple(sorted(identity(pid) for pid in pids[1:]))


def test_descendants_of_several_are_told_once(family: Make):
    pids = family(depth=2).pids
    assert procfs.descendants(pids[0], pids[1]) == (identity(pids[2]),)


def test_a_descendant_that_dies_while_we_look_is_left_out(family: Make):
    one = family(depth=1)
    process = identity(one.pids[0])
    assert procfs.descendants(process.pid, children=lambda pid: [2**22 + 1] if pid == process.pid else []) == ()


def test_many_threads_are_dearer_than_all_processes(monkeypatch: pytest.MonkeyPatch):
    procfs.children_files_exist.cache_clear()
    assert procfs.children_files_exist()
    monkeypatch.setattr(procfs, "read_stat", lambda _: procfs.Stat("x", 1, 5, 1))
    monkeypatch.setattr(procfs, "all_pids", lambda: [1, 2, 3, 4])
    assert procfs.cheapest_children([1]) is not procfs.children_of_threads
    monkeypatch.setattr(procfs, "all_pids", lambda: [1, 2, 3, 4, 5])
    assert procfs.cheapest_children([1]) is procfs.children_of_threads


def test_without_the_kernels_files_all_processes_are_looked_at(monkeypatch: pytest.MonkeyPatch, family: Make):
    monkeypatch.setattr(procfs, "children_files_exist", lambda: False)
    pids = family(depth=1).pids
    assert procfs.descendants(pids[0]) == (identity(pids[1]),)


def test_threads_without_the_file_have_no_children(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "listdir", lambda _: ["999999999"])
    assert procfs.children_of_threads(OURS) == []


def test_the_pid_namespace_is_the_kernels(monkeypatch: pytest.MonkeyPatch):
    assert str(Path("/proc/self/ns/pid").readlink()) == f"pid:[{procfs.own_pid_namespace()}]"
    monkeypatch.setattr(os, "stat", lambda _: (_ for _ in ()).throw(FileNotFoundError()))
    assert procfs.own_pid_namespace() == 0


def test_without_proc_there_is_nobody(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "listdir", lambda _: (_ for _ in ()).throw(FileNotFoundError()))
    assert procfs.all_pids() == []
    assert procfs.children_of_threads(OURS) == []
