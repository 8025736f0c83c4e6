import os
from collections.abc import Callable
from typing import Any

import pytest

from gpuarbiter_server.core.model import GpuProcess, GpuReading, ProcessId
from gpuarbiter_server.gpu import lineage
from gpuarbiter_server.gpu.lineage import IDLE_BYTES, Lineage
from gpuarbiter_server.gpu.procfs import ancestors, identify

Make = Callable[..., Any]

US = os.getpid()
NOBODY = 2**22 + 1


def listed(*processes: tuple[int, int | None], used: int = 0) -> GpuReading:
    found = tuple(GpuProcess(ProcessId(pid, 0), bytes_) for pid, bytes_ in processes)
    return GpuReading(time=7.0, memory_used_bytes=used, processes=found)


def living(pid: int) -> ProcessId:
    process = identify(pid)
    assert process is not None
    return process


@pytest.fixture
def ours() -> Lineage:
    return Lineage(sees_all=True)


def test_a_pid_becomes_a_process_with_its_family(ours: Lineage, family: Make):
    pids = family(depth=1, name="trainer").pids
    reading = ours.complete(listed((pids[1], 5)))
    assert reading.time == 7.0
    (found,) = reading.processes
    assert found == GpuProcess(living(pids[1]), 5, ancestors(living(pids[1])), "trainer")
    assert found.ancestors[0] == living(pids[0])


def test_a_parent_that_died_since_stays(ours: Lineage, family: Make):
    one = family(depth=2)
    before = ours.complete(listed((one.pids[2], 5))).processes
    one.kill(0)
    assert ours.complete(listed((one.pids[2], 6))).processes == (
        GpuProcess(before[0].process, 6, before[0].ancestors, before[0].name),
    )


def test_families_are_looked_up_once(ours: Lineage, monkeypatch: pytest.MonkeyPatch):
    ours.complete(listed((US, 1)))
    monkeypatch.setattr(lineage, "ancestors", lambda _: pytest.fail("looked up"))
    assert ours.complete(listed((US, 2))).processes[0].used_bytes == 2


def test_who_left_and_came_back_is_looked_up_again(ours: Lineage, monkeypatch: pytest.MonkeyPatch):
    ours.complete(listed((US, 1)))
    ours.complete(listed())
    monkeypatch.setattr(lineage, "ancestors", lambda _: ())
    assert ours.complete(listed((US, 2))).processes[0].ancestors == ()


def test_a_single_process_that_is_gone_is_left_out(ours: Lineage):
    found = ours.complete(listed((NOBODY, 1), (US, None))).processes
    assert [(entry.process, entry.used_bytes) for entry in found] == [(living(US), None)]


def test_pids_of_another_namespace_are_no_list(ours: Lineage):
    assert ours.complete(listed((NOBODY, 1), (NOBODY + 1, 2))).processes is None


def test_the_last_process_that_ended_is_not_another_namespaces(ours: Lineage, family: Make):
    one = family()
    assert len(ours.complete(listed((one.pids[0], 1))).processes) == 1
    one.kill(0)
    assert ours.complete(listed((one.pids[0], 1))).processes == ()


def test_start_times_that_the_source_knows_are_held_against_it(ours: Lineage):
    now = living(US)
    both = (GpuProcess(now, 1), GpuProcess(now._replace(start_ticks=1), 1))
    found = ours.complete(GpuReading(time=1.0, processes=both)).processes
    assert [entry.process for entry in found] == [now]


def test_no_list_stays_no_list(ours: Lineage):
    reading = GpuReading(time=1.0)
    assert ours.complete(reading) is reading


@pytest.mark.parametrize(
    ("sees_all", "used", "expected"),
    [
        (True, IDLE_BYTES + 1, ()),
        (False, IDLE_BYTES + 1, None),
        (False, IDLE_BYTES, ()),
    ],
)
def test_an_empty_list_is_believed_where_we_would_see_everybody(sees_all: bool, used: int, expected: object):
    assert Lineage(sees_all=sees_all).complete(listed(used=used)).processes == expected


def test_who_sees_all_is_who_shares_the_machines_namespace(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lineage, "own_pid_namespace", lambda: 4026532000)
    assert Lineage().complete(listed(used=2**30)).processes is None
    monkeypatch.setattr(lineage, "own_pid_namespace", lambda: 4026531836)
    assert Lineage().complete(listed(used=2**30)).processes == ()


def test_an_empty_list_without_a_memory_figure():
    reading = GpuReading(time=1.0, processes=())
    assert Lineage(sees_all=False).complete(reading).processes == ()
