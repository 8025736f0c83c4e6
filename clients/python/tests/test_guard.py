"""The processes of a command and its guard, where the system offers less than Linux does, and where things go wrong."""

import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fakes.polling import until
from gpuarbiter._guard import command, family
from gpuarbiter._guard.command import Guarded
from gpuarbiter._guard.family import Ending, Family
from gpuarbiter._guard.news import Exited, GuardLost, Stopped
from gpuarbiter.cli.terminal import Terminal

PATIENCE = 30.0
Started = tuple[Guarded, "queue.SimpleQueue[object]"]


@pytest.fixture
def guarded() -> Iterator[Started]:
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    with Guarded(events) as made:
        yield made, events


def start(guarded: Started, *command: str) -> int:
    return guarded[0].start(command, dict(os.environ))


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -KILL $$", 137)])
def test_the_exit_code_is_told(guarded: Started, script: str, code: int):
    start(guarded, "sh", "-c", script)
    assert guarded[1].get(timeout=PATIENCE) == Exited(code)
    assert guarded[0].end(0.1)
    guarded[0].send(signal.SIGTERM)  # to nobody: no error, and no stranger


def test_what_cannot_be_started_is_the_systems_error(guarded: Started, tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        start(guarded, str(tmp_path / "nothing"))
    assert start(guarded, "true"), "and the guard goes on"


def test_a_stop_is_told_once_each(guarded: Started):
    start(guarded, "sleep", "60")
    for _ in range(2):
        guarded[0].send(signal.SIGSTOP)
        assert guarded[1].get(timeout=PATIENCE) == Stopped(signal.SIGSTOP)
        guarded[0].send(signal.SIGCONT)
    guarded[0].send(signal.SIGKILL)
    assert guarded[1].get(timeout=PATIENCE) == Exited(137)
    assert guarded[0].end(0.1)


def test_a_guard_asks_for_the_attestation_itself(guarded: Started, tmp_path: Path):
    path = tmp_path / "a.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(PATIENCE)

        def answer() -> None:
            line, _ = server.accept()
            pid = int.from_bytes(line.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)[:4], sys.byteorder)
            line.sendall(f"pid-{pid}\n".encode())
            line.close()

        thread = threading.Thread(target=answer)
        thread.start()
        assert guarded[0].attest(path) == f"pid-{guarded[0].guard_pid}"
        thread.join()
    assert guarded[0].attest(tmp_path / "nobody") == ""


# -- families --


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"], process_group=0) as process:
        yield process
        process.kill()


def test_without_proc_the_group_stands_for_all(child: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(family, "PROC", Path("/nowhere"))
    ending = Ending(Family(child.pid), 60)
    assert not ending.go_on()
    assert child.wait(PATIENCE) == -signal.SIGTERM
    assert ending.go_on()


def test_one_that_left_the_group_is_reached_by_its_own_pid(monkeypatch: pytest.MonkeyPatch):
    for has_pidfd in (True, False):
        if not has_pidfd:
            monkeypatch.delattr(os, "pidfd_open")
        with subprocess.Popen(["sleep", "60"], start_new_session=True) as stray:
            (there,) = [each for each in family.processes() or () if each.pid == stray.pid]
            Family(2**22 + 1).send_each([there], signal.SIGTERM)
            assert stray.wait(PATIENCE) == -signal.SIGTERM
        family._send_one(there, signal.SIGKILL)  # it is gone: no error


def test_a_pid_that_another_process_has_now_gets_nothing(child: "subprocess.Popen[bytes]"):
    (there,) = [each for each in family.processes() or () if each.pid == child.pid]
    family._send_one(there._replace(start=there.start + 1), signal.SIGKILL)
    family._send_one(there, signal.SIGTERM)
    assert child.wait(PATIENCE) == -signal.SIGTERM, "the second signal was the first that arrived"


def test_a_file_that_is_no_process_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(family, "PROC", tmp_path)
    assert family.processes() is None
    for name, text in (("self", "1 (x) S 0 1"), ("17", "17 (a) b) S 1 17"), ("18", "18 (x) Z")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stat").write_text(text)
    assert family.processes() == []
    whole = "19 (a) b) Z 1 18 " + " ".join(["0"] * 16) + " 77 0"
    (tmp_path / "19").mkdir()
    (tmp_path / "19" / "stat").write_text(whole)
    assert family.processes() == [family.Process(19, 1, 18, 77, zombie=True)]


def test_orphans_are_adopted_where_the_system_can(monkeypatch: pytest.MonkeyPatch):
    assert family.adopt_orphans()
    assert family.adopt_orphans(on=False)

    def missing(_name: None):
        raise OSError

    monkeypatch.setattr(family.ctypes, "CDLL", missing)
    assert not family.adopt_orphans()
    assert not family.call_process("somebody")


# -- the guard itself, under other circumstances --

HELPLESS = """
import sys
from gpuarbiter._guard import family, guard
immortal = [family.Process(2**22 + 1, 1, 2**22 + 1, 1, zombie=False)]
family.KILLED_SECONDS = 0.0
seen = iter([immortal, immortal, immortal])
family.Family.living = lambda _self: next(seen, [])
guard.main(int(sys.argv[1]))
"""
# As on macOS.
POORER = """
import os, pathlib, sys
from gpuarbiter._guard import family, guard
del os.waitid
family.PROC = pathlib.Path("/nowhere")
family.adopt_orphans = guard.adopt_orphans = lambda: False
guard.main(int(sys.argv[1]))
"""


class Line:
    """The wrapper's end of the line to a guard."""

    def __init__(self, script: str) -> None:
        self._socket, theirs = socket.socketpair()
        self._socket.settimeout(PATIENCE)
        with theirs:
            program = [sys.executable, "-c", script, str(theirs.fileno())]
            self.process = subprocess.Popen(program, pass_fds=[theirs.fileno()])
        self._answers = self._socket.makefile("rb")

    def order(self, order: str, **facts: object) -> None:
        self._socket.sendall(json.dumps({"order": order, **facts}).encode() + b"\n")

    def run(self, *command: str) -> None:
        self.order("start", argv=list(command), environment=dict(os.environ))

    def heard(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self._answers.readline())
        return told

    def close(self) -> None:
        self._answers.close()
        self._socket.close()


@pytest.fixture
def line() -> Iterator[Callable[[str], Line]]:
    made: list[Line] = []

    def connect(script: str) -> Line:
        made.append(Line(script))
        return made[-1]

    yield connect
    for each in made:
        each.close()
        each.process.kill()
        each.process.wait()


def test_what_cannot_be_killed_is_said_and_waited_for(line: Callable[[str], Line]):
    guard = line(HELPLESS)
    guard.run("true")
    guard.order("end", grace=0)
    told = [guard.heard()]
    while told[-1].get("gone") is not True:
        told.append(guard.heard())
    assert [each["gone"] for each in told if each["event"] == "gone"] == [False, True]
    guard.order("bye")
    assert guard.process.wait(PATIENCE) == 0


@pytest.mark.parametrize(("script", "code"), [("sleep 60 & exit 3", 3), ("sleep 60 & kill -KILL $$", 137)])
def test_where_the_system_offers_less_the_group_is_ended(line: Callable[[str], Line], script: str, code: int):
    guard = line(POORER)
    guard.run("sh", "-c", script)
    started = guard.heard()
    assert guard.heard() == {"event": "exited", "code": code}
    guard.order("end", grace=60)
    assert guard.heard() == {"event": "gone", "gone": True}
    assert not [each for each in family.processes() or () if each.group == started["pid"] and not each.zombie]
    guard.order("bye")
    assert guard.process.wait(PATIENCE) == 0


def test_where_the_system_offers_less_a_stop_is_told_too(line: Callable[[str], Line]):
    guard = line(POORER)
    guard.run("sleep", "60")
    guard.heard()
    guard.order("signal", number=signal.SIGSTOP)
    assert guard.heard() == {"event": "stopped", "signal": signal.SIGSTOP}
    guard.order("end", grace=60)
    assert guard.heard() == {"event": "exited", "code": 143}
    assert guard.heard() == {"event": "gone", "gone": True}
    guard.order("bye")
    assert guard.process.wait(PATIENCE) == 0


def test_a_guard_without_a_command_goes_with_its_wrapper(line: Callable[[str], Line]):
    guard = line("import sys; from gpuarbiter._guard import guard; guard.main(int(sys.argv[1]))")
    guard.close()
    assert guard.process.wait(PATIENCE) == 0


def test_orphans_that_end_leave_no_zombies(guarded: Started, tmp_path: Path):
    script = '(sh -c "echo \\$\\$" >"$0/orphan" & ); while [ ! -e "$0/go" ]; do sleep 0.02; done'
    start(guarded, "sh", "-c", script, str(tmp_path))
    orphan = tmp_path / "orphan"
    until(lambda: orphan.exists() and orphan.read_text().endswith("\n"))
    pid = int(orphan.read_text())
    until(lambda: not [each for each in family.processes() or () if each.pid == pid])
    (tmp_path / "go").touch()
    assert guarded[1].get(timeout=PATIENCE) == Exited(0)
    assert guarded[0].end(60)


def test_what_cannot_be_ended_is_outlasted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    go = tmp_path / "go"
    helpless = f"""
import pathlib, sys
from gpuarbiter._guard import family, guard
immortal = [family.Process(2**22 + 1, 1, 2**22 + 1, 1, zombie=False)]
family.KILLED_SECONDS = 0.0
family.Family.living = lambda _self: [] if pathlib.Path({str(go)!r}).exists() else immortal
guard.main(int(sys.argv[2]))
"""
    monkeypatch.setattr(command, "_BOOTSTRAP", helpless)
    events: queue.SimpleQueue[object] = queue.SimpleQueue()
    with Guarded(events) as guarded:
        guarded.start(["true"], dict(os.environ))
        assert not guarded.end(0)
        waiting = threading.Thread(target=guarded.outlast)
        waiting.start()
        assert waiting.is_alive()
        go.touch()
        waiting.join(PATIENCE)
        assert not waiting.is_alive()


def test_a_guard_that_is_gone_is_told_of(guarded: Started):
    assert guarded[0].guard_pid is not None
    os.kill(guarded[0].guard_pid, signal.SIGKILL)
    assert guarded[1].get(timeout=PATIENCE) == GuardLost()
    with pytest.raises(OSError, match="the guard process is gone"):
        start(guarded, "true")
    guarded[0].send(signal.SIGTERM)
    assert guarded[0].end(1)


# -- the terminal --


@pytest.fixture
def _terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A terminal of which the tests say whose it is."""
    monkeypatch.setattr("gpuarbiter.cli.terminal._DEVICE", os.devnull)
    before = signal.getsignal(signal.SIGTTOU)
    yield
    signal.signal(signal.SIGTTOU, before)


def test_without_a_terminal_there_is_nothing_to_lend(monkeypatch: pytest.MonkeyPatch):
    before = signal.getsignal(signal.SIGTTOU)
    monkeypatch.setattr("gpuarbiter.cli.terminal._DEVICE", "/nowhere")
    with Terminal() as terminal:
        assert terminal.lend(os.getpid())
    monkeypatch.delattr(os, "tcgetpgrp")
    with Terminal() as terminal:
        assert terminal.lend(os.getpid())
    assert signal.getsignal(signal.SIGTTOU) == before


@pytest.mark.usefixtures("_terminal")
def test_a_terminal_is_lent_and_taken_back(monkeypatch: pytest.MonkeyPatch):
    given: list[int] = []
    monkeypatch.setattr(os, "tcgetpgrp", lambda _descriptor: os.getpgrp())
    monkeypatch.setattr(os, "tcsetpgrp", lambda _descriptor, group: given.append(group))
    with Terminal() as terminal:
        assert terminal.lend(7)
    assert given == [7, os.getpgrp()]


@pytest.mark.usefixtures("_terminal")
def test_what_is_not_ours_is_not_lent(monkeypatch: pytest.MonkeyPatch):
    # Not even looked at: the null device is no terminal.
    given: list[int] = []
    monkeypatch.setattr(os, "tcsetpgrp", lambda _descriptor, group: given.append(group))
    with Terminal() as terminal:
        assert not terminal.lend(7)
        monkeypatch.setattr(os, "tcgetpgrp", lambda _descriptor: os.getpgrp() + 1)
        assert not terminal.lend(7)
    assert given == []


@pytest.mark.usefixtures("_terminal")
def test_a_terminal_that_is_gone_is_no_error(monkeypatch: pytest.MonkeyPatch):
    def gone(_descriptor: int, _group: int):
        raise OSError

    monkeypatch.setattr(os, "tcgetpgrp", lambda _descriptor: os.getpgrp())
    monkeypatch.setattr(os, "tcsetpgrp", gone)
    with Terminal() as terminal:
        assert terminal.lend(os.getpid())
