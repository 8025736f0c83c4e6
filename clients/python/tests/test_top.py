"""The live view on a real (pseudo) terminal, and what it prints elsewhere."""

import fcntl
import json
import os
import pty
import queue
import re
import select
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from fakes.polling import until
from fakes.scripted_arbiter import ScriptedArbiter, refuse
from gpuarbiter._errors import ArbiterUnavailable, NotPermitted
from gpuarbiter._top.states import WINDOW_SECONDS, States
from gpuarbiter.cli import main
from gpuarbiter.v1 import lease_pb2, snapshot_pb2

# Opening it makes the terminal the one that Ctrl-C and SIGWINCH come from.
_WRAPPER = "import os, sys; os.close(os.open(os.ttyname(0), os.O_RDWR)); os.execv(sys.argv[1], sys.argv[1:])"
_TOKEN = re.compile(r"\x1b\[(\d+);1H|\x1b\[(K)|\x1b\[(J)|\x1b\[[?0-9;]*[A-Za-z]|([^\x1b]+)")


def state(revision: int = 1, leases: int = 30) -> snapshot_pb2.ArbiterSnapshot:
    holder = lease_pb2.Holder(client_id="asr-worker-with-a-long-name")
    return snapshot_pb2.ArbiterSnapshot(
        node="node-1",
        revision=revision,
        nvml_up=True,
        snapshot_time=Timestamp(seconds=1_700_000_000),
        gpus=[snapshot_pb2.GpuSnapshot(key="gpu:0", health=snapshot_pb2.GPU_HEALTH_OK)],
        leases=[lease_pb2.Lease(task_type="ASR", holder=holder) for _ in range(leases)],
    )


class Feed(list[snapshot_pb2.ArbiterSnapshot]):
    """A stream of states that goes on until the arbiter stops."""

    def __init__(self) -> None:
        super().__init__([state()])
        self.over = False
        self.more: queue.Queue[snapshot_pb2.ArbiterSnapshot] = queue.Queue()

    def __iter__(self) -> Iterator[snapshot_pb2.ArbiterSnapshot]:
        yield from self[:1]
        while not self.over:
            try:
                yield self.more.get(timeout=0.05)
            except queue.Empty:
                continue


@pytest.fixture
def feed(scripted: ScriptedArbiter) -> Iterator[Feed]:
    feed = Feed()
    scripted.snapshots = feed
    yield feed
    feed.over = True


class Terminal:
    """A terminal with a program on it: what its screen shows, and everything that was written to it."""

    def __init__(self, *command: str, **environment: str) -> None:
        self.master, self.slave = pty.openpty()
        self.rows: dict[int, str] = {}
        self.written = ""
        self.resize(80, 24)
        self.mode = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            [sys.executable, "-c", _WRAPPER, sys.executable, "-m", "gpuarbiter.cli", *command],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=dict(os.environ) | environment,
            start_new_session=True,
        )

    def resize(self, columns: int, lines: int) -> None:
        self.lines = lines
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def read(self) -> None:
        """Takes in what has been written."""
        while select.select([self.master], [], [], 0)[0]:
            self.written += os.read(self.master, 65536).decode()
        self.rows, row = {}, 1
        for token in _TOKEN.finditer(self.written):
            if token[1]:
                row = int(token[1])
            elif token[2]:
                self.rows[row] = ""
            elif token[3]:
                self.rows = {place: text for place, text in self.rows.items() if place < row}
            elif token[4]:
                self.rows[row] = self.rows.get(row, "") + token[4]
        # What is below the last line is not there any more.
        self.rows = {place: text for place, text in self.rows.items() if place <= self.lines}

    def shows(self, condition: Callable[[dict[int, str]], object], what: str) -> None:
        def now() -> object:
            self.read()
            return condition(self.rows)

        until(now, f"for {what}; the screen: {self.rows}")

    def ends(self) -> int:
        """Its exit code."""
        until(lambda: (self.read(), self.process.poll() is not None)[1], "for it to end")
        self.read()
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@contextmanager
def terminal(*command: str, **environment: str) -> Iterator[Terminal]:
    made = Terminal(*command, **environment)
    try:
        yield made
    finally:
        made.close()


def is_restored(screen: Terminal) -> bool:
    alternate = screen.written.rfind("\x1b[?1049h") < screen.written.rfind("\x1b[?1049l")
    cursor = screen.written.rfind("\x1b[?25l") < screen.written.rfind("\x1b[?25h")
    return alternate and cursor and termios.tcgetattr(screen.slave) == screen.mode


def has_node(rows: dict[int, str]) -> bool:
    return rows.get(1, "").startswith("node-1")


def test_the_view_follows_the_size_and_the_arbiter_and_leaves_no_trace(scripted: ScriptedArbiter, feed: Feed):
    with terminal("top", "--address", scripted.address, NO_COLOR="1") as screen:
        screen.shows(has_node, "the first state")
        assert termios.tcgetattr(screen.slave) != screen.mode
        screen.resize(40, 12)
        screen.shows(lambda rows: has_node(rows) and all(len(row) <= 40 for row in rows.values()), "fewer columns")
        assert screen.rows[12], "the last line is in use"
        assert "\x1b[13;1H" not in screen.written.rpartition("\x1b[1;1H")[2]
        assert any("… and" in row for row in screen.rows.values())
        feed.more.put(state(2, leases=0))
        screen.shows(lambda rows: "no leases" in rows.values(), "the next state")
        scripted.stop()
        screen.shows(lambda rows: any("is away" in row for row in rows.values()), "the arbiter to be missed")
        assert has_node(screen.rows), "the last state stays"
        scripted.start()
        screen.shows(lambda rows: not any("is away" in row for row in rows.values()), "the arbiter to be back")
        screen.press(b"q")
        assert screen.ends() == 0
        assert is_restored(screen)
        assert "Traceback" not in screen.written


@pytest.mark.parametrize(("ending", "code"), [("Ctrl-C", 130), ("SIGTERM", 128 + signal.SIGTERM)])
@pytest.mark.usefixtures("feed")
def test_however_it_ends_the_terminal_is_as_it_was(scripted: ScriptedArbiter, ending: str, code: int):
    with terminal("top", "--address", scripted.address) as screen:
        screen.shows(has_node, "the first state")
        if ending == "Ctrl-C":
            screen.press(b"\x03")
        else:
            screen.process.send_signal(signal.SIGTERM)
        assert screen.ends() == code
        assert is_restored(screen)
        assert "Traceback" not in screen.written


def test_what_the_arbiter_refuses_ends_it_with_a_line(scripted: ScriptedArbiter, monkeypatch: pytest.MonkeyPatch):
    def no(_request: Any, context: Any) -> Iterator[Any]:
        refuse(context, grpc.StatusCode.NOT_FOUND, "UNKNOWN_GPU", "there is no GPU 7")
        yield

    scripted.stop()
    monkeypatch.setattr(scripted, "Snapshot", no)
    scripted.start()
    with terminal("top", "--address", scripted.address, "--gpu", "7") as screen:
        assert screen.ends() == 1
        assert is_restored(screen)
        assert screen.written.endswith("gpu-arbiter: error: there is no GPU 7 [UNKNOWN_GPU]\r\n")


def test_one_frame_for_a_pipe(
    scripted: ScriptedArbiter, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    scripted.snapshots = [state(), state(2)]
    for variable in ("COLUMNS", "LINES"):
        monkeypatch.delenv(variable, raising=False)
    assert main(["top", "--once", "--address", scripted.address]) == 0
    shown = capsys.readouterr().out
    assert shown.count("ASR") == 30
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("LINES", "15")
    assert main(["top", "--once", "--address", scripted.address]) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) == 30
    assert len(shown.splitlines()) <= 15


def test_json_is_a_state_a_line(scripted: ScriptedArbiter, capsys: pytest.CaptureFixture[str]):
    scripted.snapshots = [state(), state(2)]
    top = ["top", "--json", "--address", scripted.address]
    assert main(top) == 0
    shown = capsys.readouterr().out
    assert [json.loads(line)["revision"] for line in shown.splitlines()] == ["1", "2"]
    assert main([*top, "--once"]) == 0
    assert capsys.readouterr().out == shown.splitlines(keepends=True)[0]


def test_without_a_terminal_it_says_what_else_there_is(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        main(["top"])
    assert caught.value.code == 2
    assert "--once prints one frame" in capsys.readouterr().err


def test_rates_are_those_of_a_window_and_time_goes_on(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr("gpuarbiter._clock.now", lambda: clock[0])
    news: list[float] = []

    def watch() -> Iterator[snapshot_pb2.ArbiterSnapshot]:
        for revision in range(1, 5):
            yield state(revision)
            clock[0] += WINDOW_SECONDS / 2
        raise NotPermitted("no")

    states = States(watch, lambda: news.append(clock[0]))
    assert states.view() is None
    states._take(state(1))
    for revision in (2, 3, 4):
        clock[0] += WINDOW_SECONDS / 2
        states._take(state(revision))
    shown = states.view()
    assert shown is not None
    assert (shown.previous.revision, shown.snapshot.revision) == (2, 4)
    clock[0] += 3 * WINDOW_SECONDS
    later = states.view()
    assert later is not None
    assert later.now - shown.now == timedelta(seconds=3 * WINDOW_SECONDS)
    assert later.previous.revision == 4, "nothing happened within the window"
    states.follow()
    assert len(news) == 4 + 5
    with pytest.raises(NotPermitted):
        states.view()


def test_an_arbiter_that_is_away_is_asked_again(monkeypatch: pytest.MonkeyPatch):
    tries: list[int] = []

    def watch() -> Iterator[snapshot_pb2.ArbiterSnapshot]:
        tries.append(1)
        if len(tries) < 3:
            raise ArbiterUnavailable("nobody there")
        assert states.away() is not None
        yield state()
        assert states.away() is None
        states.close()

    states = States(watch, lambda: None)
    monkeypatch.setattr("gpuarbiter._top.states._AGAIN_SECONDS", 0.0)
    states.follow()
    away = states.away()
    assert away is not None
    assert away[1] == "the arbiter ended the stream"
