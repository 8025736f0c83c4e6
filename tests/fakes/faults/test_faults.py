"""The faults that the tests of the real server trust: each hits what it is meant for, and nothing else."""

import ast
import errno
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.faults import Faults
from fakes.polling import until

PATIENCE_SECONDS = 20.0
# What a child does between its lines: it answers each with what came of it.
PRELUDE = """
import errno, os, socket, sqlite3, sys, threading, time

def outcome(work):
    try:
        return work()
    except OSError as error:
        return errno.errorcode[error.errno]
    except sqlite3.Error as error:
        return error.sqlite_errorname

def serve(work):
    print("ready", flush=True)
    for line in sys.stdin:
        print(outcome(work), flush=True)
"""


class Child:
    """A process that meets the faults, and does its work once for each `go`."""

    def __init__(self, faults: Faults, program: str, *arguments: str | Path, inherited: int | None = None) -> None:
        passed = () if inherited is None else (inherited,)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + program, *arguments, *map(str, passed)],
            env=os.environ | faults.env,
            pass_fds=passed,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        assert self.hears() == "ready"

    def send(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")

    def hears(self) -> str:
        """What it says next; empty when it is dead."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def go(self) -> str:
        self.send()
        return self.hears()

    def close(self) -> int:
        self.process.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        return self.process.wait(PATIENCE_SECONDS)


Start = Callable[..., Child]


@pytest.fixture
def faults(tmp_path: Path) -> Faults:
    return Faults(tmp_path)


@pytest.fixture
def start(faults: Faults) -> Iterator[Start]:
    started: list[Child] = []

    def launch(program: str, *arguments: str | Path, inherited: int | None = None) -> Child:
        started.append(Child(faults, program, *arguments, inherited=inherited))
        return started[-1]

    yield launch
    for each in started:
        each.close()


# A row for each `go`, as the journal is written; the second argument is another file, which no rule is for.
DATABASE = """
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode = WAL")
connection.execute("PRAGMA synchronous = FULL")
connection.execute("CREATE TABLE IF NOT EXISTS t (x)")
other = os.open(sys.argv[2], os.O_RDWR | os.O_CREAT)

def work():
    os.pwrite(other, b"x", 0)
    os.fsync(other)
    connection.execute("INSERT INTO t VALUES (1)")
    return connection.execute("SELECT count(*) FROM t").fetchone()[0]

serve(work)
"""


class TestTheDisk:
    @pytest.fixture
    def child(self, start: Start, tmp_path: Path) -> Child:
        return start(DATABASE, tmp_path / "kept.db", tmp_path / "other")

    def test_can_be_full_and_have_space_again(self, faults: Faults, child: Child):
        assert child.go() == "1"
        faults.disk_full("kept.db")
        assert child.go() == "SQLITE_FULL"
        assert faults.failed
        faults.heal()
        assert child.go() == "2"

    def test_can_fail_to_sync(self, faults: Faults, child: Child):
        faults.syncs_fail("kept.db")
        assert child.go() == "SQLITE_IOERR_FSYNC"
        faults.heal()
        # What was written before the sync that failed is there for SQLite, or it is not: no business of the shim's.
        assert child.go() in {"1", "2"}

    def test_can_hang_until_told(self, faults: Faults, child: Child):
        faults.syncs_hang("kept.db")
        child.send()
        until(lambda: faults.syncing, "for a sync that hangs")
        faults.heal()
        assert child.hears() == "1"
        assert not faults.syncing

    def test_can_take_its_time(self, faults: Faults, child: Child):
        faults.syncs_hang("kept.db", 0.05)
        child.send()
        until(lambda: faults.syncing, "for a slow sync")
        assert child.hears() == "1"

    def test_fails_for_no_other_file(self, faults: Faults, child: Child):
        faults.disk_full("nobody's")
        faults.syncs_fail("nobody's")
        assert (child.go(), faults.failed) == ("1", 0)


@pytest.mark.parametrize(
    "call",
    ["os.write(file, b'x')", "os.pwrite(file, b'x', 0)", "os.ftruncate(file, 100)", "os.posix_fallocate(file, 0, 100)"],
)
def test_on_a_full_disk_nothing_grows(faults: Faults, start: Start, tmp_path: Path, call: str):
    child = start(f"file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); serve(lambda: {call})", tmp_path / "file")
    faults.disk_full("/file")
    assert child.go() == "ENOSPC"
    assert (tmp_path / "file").stat().st_size == 0
    faults.heal()
    assert child.go() != "ENOSPC"
    assert (tmp_path / "file").stat().st_size > 0


@pytest.mark.parametrize("call", ["os.fsync(file)", "os.fdatasync(file)"])
def test_both_syncs_fail(faults: Faults, start: Start, tmp_path: Path, call: str):
    child = start(f"file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); serve(lambda: {call})", tmp_path / "file")
    assert child.go() == "None"
    faults.syncs_fail("/file")
    assert child.go() == errno.errorcode[errno.EIO]


class TestDeathAtACall:
    @pytest.mark.parametrize(
        ("when", "left"), [("before", b"aaaaaaaa"), ("within", b"aaaaaaaabbbb"), ("after", b"aaaaaaaabbbbbbbb")]
    )
    def test_that_writes(self, faults: Faults, start: Start, tmp_path: Path, when: str, left: bytes):
        program = """
letters = iter([b"a" * 8, b"b" * 8, b"c" * 8])
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
serve(lambda: os.write(file, next(letters)))
"""
        child = start(program, tmp_path / "file")
        # Those to other files (its answers) are not counted.
        faults.kill("write", when, 2, path="/file")
        assert child.go() == "8"
        assert (faults.seen, faults.killed_at) == (1, None)
        assert child.go() == ""
        assert child.close() == -signal.SIGKILL
        assert (tmp_path / "file").read_bytes() == left
        assert faults.seen == 2
        assert faults.killed_at is not None

    @pytest.mark.parametrize(
        ("call", "when", "count"), [("sync", "before", 1), ("sync", "after", 2), ("write", "within", 3)]
    )
    def test_of_sqlite(self, faults: Faults, start: Start, tmp_path: Path, call: str, when: str, count: int):
        child = start(DATABASE, tmp_path / "kept.db", tmp_path / "other")
        faults.kill(call, when, count, path="kept.db-wal")
        answered = 0
        while child.go():
            answered += 1
        assert child.close() == -signal.SIGKILL
        faults.disarm()
        again = start(DATABASE, tmp_path / "kept.db", tmp_path / "other")
        # What it was about to say may be there.
        assert int(again.go()) - 1 in {answered, answered + 1}

    def test_not_when_it_was_taken_back(self, faults: Faults, start: Start, tmp_path: Path):
        child = start(DATABASE, tmp_path / "kept.db", tmp_path / "other")
        faults.kill("sync", "before", 1)
        faults.disarm()
        assert child.go() == "1"

    @pytest.mark.parametrize(("when", "received"), [("before", b""), ("within", b"ab"), ("after", b"abcd")])
    @pytest.mark.parametrize("call", ["connection.send(data)", "connection.sendmsg([data])", "os.write(number, data)"])
    @pytest.mark.parametrize("address", [("127.0.0.1", 0), "\0"], ids=["TCP", "Unix"])
    def test_that_sends(
        self, faults: Faults, start: Start, address: str | tuple[str, int], call: str, when: str, received: bytes
    ):
        if isinstance(address, str):
            # A name in no file system, and nobody else's.
            address += str(uuid.uuid4())
        with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as listener:
            listener.bind(address)
            listener.listen()
            child = start(SENDER.format(call=call), inherited=listener.fileno())
            with socket.socket(listener.family) as client:
                client.settimeout(PATIENCE_SECONDS)
                client.connect(listener.getsockname())
                assert child.go() == "4"
                assert client.recv(100) == b"abcd"
                faults.kill("send", when, 2)
                assert child.go() == "4"
                assert client.recv(100) == b"abcd"
                assert child.go() == ""
                assert child.close() == -signal.SIGKILL
                assert client.recv(100) == received
                assert faults.seen == 2


# It accepts a connection at its first work; and wakes itself by another, which is nobody's.
SENDER = """
listener = socket.socket(fileno=int(sys.argv[1]))
waking, woken = socket.socketpair()
data = b"abcd"

def work():
    global connection, number
    if "connection" not in globals():
        connection, _ = listener.accept()
        number = connection.fileno()
    waking.send(b"x")
    return {call}

serve(work)
"""


class TestTheWallClock:
    PROGRAM = """
def work():
    wall = time.clock_gettime(time.CLOCK_REALTIME)
    (by_sqlite,) = connection.execute("SELECT CAST(strftime('%s', 'now') AS INTEGER)").fetchone()
    assert max(abs(other - wall) for other in (time.time(), time.mktime(time.localtime()), by_sqlite)) < 2
    return wall, time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.perf_counter()

connection = sqlite3.connect(":memory:")
serve(work)
"""

    @pytest.mark.parametrize("offset", [3600.0, -3600.0])
    def test_jumps_and_no_other_does(self, faults: Faults, start: Start, offset: float):
        child = start(self.PROGRAM)
        for expected in (0.0, offset, 0.0):
            faults.wall_offset = expected
            assert faults.wall_offset == expected
            walls = time.time(), time.monotonic(), time.clock_gettime(time.CLOCK_BOOTTIME), time.perf_counter()
            told = [float(each) for each in child.go().strip("()").split(",")]
            late = told[1] - walls[1]
            assert 0 <= late < PATIENCE_SECONDS
            ahead = [there - here - late for there, here in zip(told, walls, strict=True)]
            assert ahead == pytest.approx([expected, 0, 0, 0], abs=0.05)
        assert faults.wall_waits == 0

    def test_who_waits_by_it_is_counted(self, faults: Faults, start: Start):
        child = start("""
import ctypes
libc = ctypes.CDLL(None)
until = (ctypes.c_long * 2)(int(time.time()), 0)
semaphore = ctypes.create_string_buffer(64)
serve(lambda: libc.sem_timedwait(semaphore, until))
""")
        assert child.go() == "-1"
        assert faults.wall_waits == 1

    def test_threads_that_wait_are_not(self, faults: Faults, start: Start):
        child = start("""
condition, lock = threading.Condition(), threading.Lock()
lock.acquire()
def work():
    with condition:
        return condition.wait(0.01), lock.acquire(timeout=0.01), time.sleep(0.01)
serve(work)
""")
        assert child.go() == "(False, False, None)"
        assert faults.wall_waits == 0


def test_a_file_says_something_else(faults: Faults, start: Start, tmp_path: Path):
    path = "/proc/sys/kernel/random/boot_id"
    other = tmp_path / "other"
    other.write_text("another start\n")
    child = start("serve(lambda: open(sys.argv[1]).read().strip())", path)
    here = Path(path).read_text().strip()
    assert child.go() == here
    faults.redirect(path, other)
    assert child.go() == "another start"


def test_the_machine_was_started_again(faults: Faults, start: Start):
    program = """
def work():
    boot_id = open("/proc/sys/kernel/random/boot_id").read().strip()
    return boot_id, time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic()
serve(work)
"""
    here = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    seen = {here}
    for _ in range(2):
        faults.reboot()
        now = time.monotonic()
        boot_id, up, monotonic = ast.literal_eval(start(program).go())
        assert len(boot_id) == len(here)
        seen.add(boot_id)
        assert 60 < up < 60 + PATIENCE_SECONDS
        assert now < monotonic < now + PATIENCE_SECONDS
    assert len(seen) == 3


def test_without_its_control_a_process_does_not_go_on(faults: Faults, tmp_path: Path):
    (tmp_path / "faults-control").unlink()
    ended = subprocess.run([sys.executable, "-c", ""], env=os.environ | faults.env, capture_output=True, check=False)
    assert ended.returncode == -signal.SIGABRT
    assert b"is not a control file" in ended.stderr
