"""Process groups, where the system offers less than Linux does."""

import os
import queue
import signal
from pathlib import Path

import pytest

from fakes.polling import until
from gpuarbiter.cli import process
from gpuarbiter.cli.process import Exited, ProcessGroup, Stopped
from gpuarbiter.cli.terminal import Terminal

PATIENCE = 30.0


def start(*command: str) -> tuple[ProcessGroup, "queue.SimpleQueue[object]"]:
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    return ProcessGroup(command, dict(os.environ), events), events


@pytest.fixture(params=["linux", "without waitid", "without proc", "without both"])
def _system(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "waitid" in request.param or "both" in request.param:
        monkeypatch.delattr(os, "waitid")
    if "proc" in request.param or "both" in request.param:
        monkeypatch.setattr(process, "_PROC", Path("/nowhere"))


@pytest.mark.usefixtures("_system")
@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -KILL $$", 137)])
def test_the_exit_code_is_told(script: str, code: int):
    group, events = start("sh", "-c", script)
    assert events.get(timeout=PATIENCE) == Exited(code)
    assert group.end(0.1)
    group.send(signal.SIGTERM)  # to nobody: no error, and no stranger


@pytest.mark.usefixtures("_system")
def test_what_is_left_is_ended():
    group, events = start("sh", "-c", "trap '' TERM; sh -c 'trap \"\" TERM; while :; do sleep 0.05; done' & exit 0")
    assert events.get(timeout=PATIENCE) == Exited(0)
    group.end(0.1)
    until(lambda: not any(process._is_living_member(path, group.pid) for path in Path("/proc").glob("[0-9]*/stat")))


def test_what_cannot_be_ended_is_said(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process, "_KILLED_SECONDS", 0.0)
    group, events = start("true")
    assert events.get(timeout=PATIENCE) == Exited(0)
    monkeypatch.setattr(group, "_living", lambda: True)
    assert not group.end(0.0)


def test_a_stop_is_told_once_each():
    group, events = start("sleep", "60")
    for _ in range(2):
        group.send(signal.SIGSTOP)
        assert events.get(timeout=PATIENCE) == Stopped(signal.SIGSTOP)
        group.send(signal.SIGCONT)
    group.send(signal.SIGKILL)
    assert events.get(timeout=PATIENCE) == Exited(137)
    assert group.end(0.1)


def test_a_file_that_is_no_process_is_none(tmp_path: Path):
    nonsense = tmp_path / "stat"
    assert not process._is_living_member(nonsense, 1)
    nonsense.write_text("1 (x) S")
    assert not process._is_living_member(nonsense, 1)


def test_without_a_terminal_there_is_nothing_to_hand_over(monkeypatch: pytest.MonkeyPatch):
    before = signal.getsignal(signal.SIGTTOU)
    with Terminal() as terminal:
        terminal.hand_to(os.getpid())
    assert signal.getsignal(signal.SIGTTOU) == before
    monkeypatch.delattr(os, "tcgetpgrp")
    with Terminal() as terminal:
        terminal.hand_to(os.getpid())


def test_a_terminal_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch):
    def gone(_descriptor: int, _group: int):
        raise OSError

    monkeypatch.setattr("gpuarbiter.cli.terminal._foreground_terminal", lambda: 0)
    monkeypatch.setattr(os, "tcsetpgrp", gone)
    before = signal.getsignal(signal.SIGTTOU)
    try:
        with Terminal() as terminal:
            terminal.hand_to(os.getpid())
    finally:
        signal.signal(signal.SIGTTOU, before)
