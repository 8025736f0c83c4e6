"""`gpu-arbiter run`, as a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from fakes.polling import until
from fakes.scripted_arbiter import UUID, Call, ScriptedArbiter, refuse, seconds
from gpuarbiter.cli import main
from gpuarbiter.v1 import lease_pb2, snapshot_pb2
from support.screen import FORKS, Screen

Environment = dict[str, str]
Start = Callable[..., Any]

RUN = [sys.executable, "-m", "gpuarbiter.cli", "run"]
# The same, but it gives what is to end no ten seconds.
IMPATIENT = [
    sys.executable,
    "-c",
    "import sys; from gpuarbiter.cli import leased, main; leased.END_SECONDS = 0.2; sys.exit(main(sys.argv[1:]))",
    "run",
]


@pytest.fixture
def environment(scripted: ScriptedArbiter) -> Environment:
    """Of a shell that knows the arbiter."""
    return os.environ | {"GPU_ARBITER_ADDRESS": scripted.address}


def run(environment: Environment, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs it to its end."""
    return subprocess.run([*RUN, *arguments], env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def start(environment: Environment) -> Iterator[Start]:
    """Starts it; whatever is left of it is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [*RUN, *arguments], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def lives(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def test_the_command_finds_its_gpu_and_its_exit_code_is_passed_on(scripted: ScriptedArbiter, environment: Environment):
    script = (
        'echo "$CUDA_VISIBLE_DEVICES $GPU_ARBITER_LEASE_ID $GPU_ARBITER_FENCING_TOKEN $GPU_ARBITER_ADDRESS"; exit 3'
    )
    done = run(environment, "--memory", "6GiB", "--wait", "1m", "--hold", "2h", "--", "sh", "-c", script)
    assert done.returncode == 3
    assert done.stdout == f"{UUID} lease-1 7 {scripted.address}\n"
    assert done.stderr == ""
    (request,) = scripted.seen["Acquire"]
    assert request.task_type == "RUN"
    assert request.gpu.memory_bytes == 6 * 2**30
    assert (request.max_wait, request.max_hold, request.ttl) == (seconds(60), seconds(7200), seconds(60))
    (release,) = scripted.seen["Release"]
    assert release.report.result == lease_pb2.WORK_RESULT_FAILED


def test_the_options_arrive(scripted: ScriptedArbiter, environment: Environment):
    options = [
        "--task",
        "TTS",
        "--gpu",
        "0",
        "--gpu",
        "1",
        "--count",
        "2",
        "--priority",
        "9",
        "--shared",
        "--ttl",
        "5m",
    ]
    done = run(environment, *options, "true")
    assert done.returncode == 0
    (request,) = scripted.seen["Acquire"]
    assert request.task_type == "TTS"
    assert list(request.gpu.candidates) == ["0", "1"]
    assert (request.gpu.count, request.priority, request.gpu.sharing) == (2, 9, lease_pb2.SHARING_SHARED)
    assert request.ttl == seconds(300)
    assert scripted.seen["Release"][0].report.result == lease_pb2.WORK_RESULT_OK


def test_mig_instances_come_as_they_are(scripted: ScriptedArbiter, environment: Environment):
    instances = "MIG-11111111-1111-1111-1111-111111111111,MIG-22222222-2222-2222-2222-222222222222"

    def script(call: Call):
        gpus = [lease_pb2.GpuGrant(key=f"gpu:0/mig:{n}", uuid=uuid) for n, uuid in enumerate(instances.split(","))]
        yield call.granted(visible_devices=instances, gpus=gpus)
        yield from call.hold()

    scripted.scripts.append(script)
    done = run(environment, "sh", "-c", "echo $CUDA_VISIBLE_DEVICES $GPU_ARBITER_GPU_KEYS ${CUDA_DEVICE_ORDER-unset}")
    assert done.stdout == f"{instances} gpu:0/mig:0,gpu:0/mig:1 unset\n"


@pytest.mark.parametrize("dashes", [(), ("--",)], ids=["", "--"])
@pytest.mark.usefixtures("scripted")
def test_what_follows_the_command_is_the_commands(environment: Environment, dashes: tuple[str, ...]):
    script = 'echo "$*"'
    done = run(environment, "--gpu", "0", *dashes, "sh", "-c", script, "sh", "--memory", "x", "--", "--json", "-h")
    assert (done.stdout, done.stderr) == ("--memory x -- --json -h\n", "")


def test_indices_come_with_their_order(scripted: ScriptedArbiter, environment: Environment):
    def script(call: Call):
        yield call.granted(visible_devices="0,1")
        yield from call.hold()

    scripted.scripts.append(script)
    done = run(environment, "--", "sh", "-c", "echo $CUDA_DEVICE_ORDER $CUDA_VISIBLE_DEVICES")
    assert done.stdout == "PCI_BUS_ID 0,1\n"


def test_a_command_that_cannot_run_is_known_before_anyone_waits(
    scripted: ScriptedArbiter, environment: Environment, tmp_path: Path
):
    done = run(environment, "--", "no-such-command")
    assert (done.returncode, done.stderr) == (127, "gpu-arbiter: error: no-such-command: command not found\n")
    plain = tmp_path / "plain"
    plain.touch()
    done = run(environment, "--", str(plain))
    assert (done.returncode, done.stderr) == (126, f"gpu-arbiter: error: {plain}: cannot be executed\n")
    assert not scripted.seen["Acquire"]


def test_a_command_that_the_system_refuses_gives_the_gpu_back(
    scripted: ScriptedArbiter, environment: Environment, tmp_path: Path
):
    nonsense = tmp_path / "nonsense"
    nonsense.write_bytes(b"\x00\x01")
    nonsense.chmod(0o755)
    done = run(environment, "--", str(nonsense))
    assert done.returncode == 126
    assert "Exec format error" in done.stderr
    assert len(scripted.seen["Release"]) == 1


def test_a_wait_that_takes_too_long_is_124(scripted: ScriptedArbiter, environment: Environment):
    def script(call: Call):
        refuse(call.context, grpc.StatusCode.RESOURCE_EXHAUSTED, "WAIT_TIMEOUT", "waited 3 s in vain")
        yield

    def decline(call: Call):
        yield call.declined("SKIP", detail="ASR since 3 s")

    scripted.scripts += [script, decline]
    done = run(environment, "--", "true")
    assert (done.returncode, done.stderr) == (124, "gpu-arbiter: error: waited 3 s in vain [WAIT_TIMEOUT]\n")
    done = run(environment, "--", "true")
    assert (done.returncode, done.stderr) == (124, "gpu-arbiter: error: ASR since 3 s [GPU_BUSY]\n")


def full(call: Call):
    refuse(call.context, grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL", "eight wait already", retry_after=0.01)
    yield


@pytest.mark.parametrize("wait", [(), ("--wait", "1m")], ids=["without limit", "with a limit"])
def test_a_full_queue_is_asked_again(scripted: ScriptedArbiter, environment: Environment, wait: tuple[str, ...]):
    scripted.scripts += [full, full]
    assert run(environment, *wait, "--", "true").returncode == 0
    asked = scripted.seen["Acquire"]
    assert len({request.request_id for request in asked}) == len(asked) == 3
    if wait:
        waits = [request.max_wait.ToTimedelta() for request in asked]
        assert sorted(set(waits), reverse=True) == waits, "all of them together have a minute"


@pytest.mark.parametrize("options", [("--wait", "0"), ("--wait", "50ms"), ("--task", "ASR")])
def test_a_full_queue_is_124_once_the_wait_is_over(
    scripted: ScriptedArbiter, environment: Environment, options: tuple[str, ...]
):
    scripted.scripts += [full] * 100
    done = run(environment, *options, "--", "true")
    assert (done.returncode, done.stderr) == (124, "gpu-arbiter: error: eight wait already [QUEUE_FULL]\n")


# The library itself asks again for ten seconds.
HASTY = "from gpuarbiter._sync import asking; asking.OUTAGE_SECONDS = 0.1;"


@pytest.mark.parametrize(("ttl", "code"), [("1m", 0), ("1ms", 125)])
def test_an_arbiter_that_goes_away_while_it_waits(
    scripted: ScriptedArbiter, environment: Environment, ttl: str, code: int
):
    def waiting(call: Call):
        yield call.queued()
        call.wait("never")

    scripted.scripts.append(waiting)
    program = [*IMPATIENT[:2], HASTY + IMPATIENT[2], "run", "--json", "--ttl", ttl, "--", "true"]
    quiet = environment | {"GRPC_VERBOSITY": "ERROR"}
    with subprocess.Popen(program, env=quiet, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while '"position": 1' not in process.stderr.readline():
            assert process.poll() is None
        scripted.stop()
        if not code:
            assert "the arbiter is away, asking again" in process.stderr.readline()
            scripted.start()
        assert process.wait(timeout=30) == code


def test_an_arbiter_that_is_not_there_is_125(scripted: ScriptedArbiter, environment: Environment):
    scripted.stop()
    done = run(environment, "--", "true")
    assert done.returncode == 125
    assert done.stderr.startswith(f"gpu-arbiter: error: the arbiter at {scripted.address} cannot be reached")
    assert "Traceback" not in done.stderr


def test_a_bad_address_is_125(environment: Environment):
    done = run(environment, "--address", "nowhere", "--", "true")
    assert done.returncode == 125
    assert "'nowhere' is not an address" in done.stderr


# A command that says which signals it hears, and ends with a code that it is told.
HEARING = """
for name in INT TERM HUP QUIT USR1 USR2 CONT WINCH; do trap "echo $name" $name; done
echo up
while [ ! -s "$0" ]; do sleep 0.02; done
exit "$(cat "$0")"
"""


@pytest.mark.parametrize(
    ("names", "code", "result"),
    [
        (["INT", "TERM", "HUP", "QUIT", "USR1", "USR2"], 7, lease_pb2.WORK_RESULT_CANCELLED),
        # They end nothing.
        (["CONT", "WINCH"], 0, lease_pb2.WORK_RESULT_OK),
    ],
)
def test_signals_are_the_commands(
    scripted: ScriptedArbiter, start: Start, tmp_path: Path, names: list[str], code: int, result: int
):
    process = start("--", "sh", "-c", HEARING, str(tmp_path / "code"))
    assert process.stdout.readline() == "up\n"
    for name in names:
        process.send_signal(signal.Signals[f"SIG{name}"])
        assert process.stdout.readline() == f"{name}\n"
    (tmp_path / "code").write_text(str(code))
    assert process.wait(timeout=30) == code
    assert scripted.seen["Release"][0].report.result == result


def test_a_command_that_a_signal_ends_is_128_and_the_signal(scripted: ScriptedArbiter, start: Start):
    process = start("--", "sh", "-c", "echo up; exec sleep 60")
    assert process.stdout.readline() == "up\n"
    process.terminate()
    assert process.wait(timeout=30) == 128 + signal.SIGTERM
    assert len(scripted.seen["Release"]) == 1


def test_an_ignored_signal_stays_ignored(scripted: ScriptedArbiter, environment: Environment):
    script = f"trap '' HUP; WRAPPER=$$ exec {' '.join(RUN)} -- sh -c 'kill -HUP $WRAPPER $PPID 0; sleep 0.2; exit 5'"
    done = subprocess.run(["sh", "-c", script], env=environment, capture_output=True, timeout=60, check=False)
    assert done.returncode == 5
    assert len(scripted.seen["Release"]) == 1


@pytest.mark.usefixtures("scripted")
def test_who_holds_a_gpu_does_not_stop(start: Start):
    process = start("--", "sh", "-c", "echo up; exec sleep 60")
    assert process.stdout.readline() == "up\n"
    process.send_signal(signal.SIGTSTP)
    assert process.stderr.readline() == ("gpu-arbiter: a command cannot be stopped while it holds a GPU; it goes on\n")
    process.terminate()
    assert process.wait(timeout=30) == 128 + signal.SIGTERM


def test_what_a_shell_hands_over_reaches_the_command(scripted: ScriptedArbiter, environment: Environment):
    script = f"{' '.join(RUN)} -- cat <(echo seven) 3<&0"
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, b"seven\n"), done.stderr
    assert len(scripted.seen["Release"]) == 1


def test_what_the_command_leaves_running_is_ended_first(scripted: ScriptedArbiter, environment: Environment):
    left: list[int] = []

    def released(_request: object, _context: object):
        from gpuarbiter.v1 import gpu_arbiter_pb2 as pb

        left.extend(pid for pid in pids if lives(pid))
        return pb.ReleaseResponse()

    pids: list[int] = []
    scripted.answers["Release"] = released
    stubborn = "trap '' TERM; while :; do sleep 0.1; done"
    script = f'sleep 60 >/dev/null & echo $!; sh -c "{stubborn}" >/dev/null & echo $!'
    command = [*IMPATIENT, "--", "sh", "-c", script]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids += [int(process.stdout.readline()), int(process.stdout.readline())]
        assert process.wait(timeout=30) == 0
    assert left == []
    assert not [pid for pid in pids if lives(pid)]


def test_what_cannot_be_killed_keeps_the_gpu(scripted: ScriptedArbiter, environment: Environment, tmp_path: Path):
    go = tmp_path / "go"
    guard = f"""
import pathlib, sys
from gpuarbiter._guard import family, guard
immortal = [family.Process(2**22 + 1, 1, 2**22 + 1, 1, zombie=False)]
family.KILLED_SECONDS = 0.0
family.Family.living = lambda _self: [] if pathlib.Path({str(go)!r}).exists() else immortal
guard.main(int(sys.argv[2]))
"""
    setting = f"from gpuarbiter._guard import command; command._BOOTSTRAP = {guard!r};"
    program = [*IMPATIENT[:2], setting + IMPATIENT[2], "run", "--", "true"]
    with subprocess.Popen(program, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        left = "some processes of the command cannot be ended; the GPU is theirs until they are gone"
        assert process.stderr.readline() == f"gpu-arbiter: {left}\n"
        assert not scripted.seen["Release"]
        go.touch()
        assert process.wait(timeout=30) == 0
    assert len(scripted.seen["Release"]) == 1


def test_a_lost_lease_ends_the_command(scripted: ScriptedArbiter, start: Start):
    def script(call: Call):
        yield call.granted()
        call.wait("ask")
        yield call.yield_requested("PREEMPTED", grace=5)
        yield call.yield_requested("OPERATOR")
        call.wait("revoke")
        yield call.ended("REVOKED", detail="an operator did")

    scripted.scripts.append(script)
    process = start("--", "sh", "-c", "trap 'echo ending; exit 0' TERM; echo up; while :; do sleep 0.05; done")
    assert process.stdout.readline() == "up\n"
    scripted.open("ask")
    asked = "gpu-arbiter: the arbiter asks for the GPU (PREEMPTED: please), and will take it in 5s\n"
    assert process.stderr.readline() == asked
    assert process.stderr.readline() == "gpu-arbiter: the arbiter asks for the GPU (OPERATOR: please)\n"
    scripted.open("revoke")
    out, error = process.communicate(timeout=30)
    assert process.returncode == 123
    assert out == "ending\n"
    lost = "gpu-arbiter: error: the lease is lost (REVOKED: an operator did); ending the command [REVOKED]"
    assert error.splitlines()[0] == lost


def test_a_command_that_does_not_end_with_its_lease_is_killed(scripted: ScriptedArbiter, environment: Environment):
    def script(call: Call):
        yield call.granted()
        call.wait("revoke")
        yield call.ended("REVOKED")

    scripted.scripts.append(script)
    stubborn = "trap '' TERM; echo $$; while :; do sleep 0.05; done"
    command = [*IMPATIENT, "--", "sh", "-c", stubborn]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pid = int(process.stdout.readline())
        scripted.open("revoke")
        assert process.wait(timeout=30) == 123
        assert not lives(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_waiting_takes_the_request_back(scripted: ScriptedArbiter, start: Start, number: signal.Signals):
    def waiting(call: Call):
        yield call.queued()
        call.wait("never")

    scripted.scripts.append(waiting)
    process = start("--json", "--", "true")
    assert '"position": 1' in process.stderr.readline() + process.stderr.readline()
    process.send_signal(number)
    # Of Ctrl-C it ends as one does, so that a script around it does too; a shell says 130.
    assert process.wait(timeout=30) == (-number if number == signal.SIGINT else 128 + number)
    assert scripted.seen["Release"][0].request_id == scripted.seen["Acquire"][0].request_id


def test_json_is_for_programs(scripted: ScriptedArbiter, environment: Environment):
    def script(call: Call):
        yield call.queued(2, detail="ASR since 3 s")
        yield call.granted()
        yield call.yield_requested("QUANTUM")
        yield from call.hold()

    scripted.scripts.append(script)
    done = run(environment, "--json", "--", "sleep", "0.5")
    assert done.returncode == 0
    events = [json.loads(line) for line in done.stderr.splitlines()]
    assert [event["event"] for event in events] == ["progress", "progress", "yield_requested"]
    assert (events[1]["position"], events[1]["reason"]) == (2, "GPU_BUSY")
    assert (events[2]["reason"], events[2]["grace_seconds"]) == ("QUANTUM", None)
    done = run(environment, "--json", "--", "no-such-command")
    assert json.loads(done.stderr)["message"] == "no-such-command: command not found"


@FORKS
def test_on_a_terminal_the_command_is_in_the_foreground(scripted: ScriptedArbiter, environment: Environment):
    def script(call: Call):
        yield call.queued(3, detail="ASR since 3 s")
        call.wait("grant")
        yield call.granted()
        yield from call.hold()

    scripted.scripts.append(script)
    code = "import time; print('read:', input()); time.sleep(60)"
    screen = Screen(environment, *RUN, "--", sys.executable, "-c", code)
    assert screen.shows("waiting for a GPU: 3 of 3, GPU_BUSY (ASR since 3 s)")
    scripted.open("grant")
    screen.type("hello\n")
    assert screen.shows("read: hello")
    screen.type("\x1a")
    assert screen.shows("cannot be stopped while it holds a GPU; it goes on")
    screen.type("\x03")
    assert screen.shows("KeyboardInterrupt")
    assert screen.exit_code() == -signal.SIGINT
    until(lambda: scripted.seen["Release"])
    assert scripted.seen["Release"][0].report.result == lease_pb2.WORK_RESULT_CANCELLED


@FORKS
@pytest.mark.usefixtures("scripted")
def test_who_stands_beside_it_in_a_pipeline_keeps_the_terminal(environment: Environment, tmp_path: Path):
    go = tmp_path / "go"
    waits = f"{' '.join(RUN)} -- sh -c 'while [ ! -e {go} ]; do sleep 0.02; done'"
    screen = Screen(environment, "sh", "-c", f"{waits} | (read line </dev/tty; echo heard: $line; touch {go})")
    screen.type("hello\n")
    assert screen.shows("heard: hello")
    assert screen.exit_code() == 0


@FORKS
def test_ctrl_c_ends_the_script_around_it_too(scripted: ScriptedArbiter, environment: Environment):
    job = f"{' '.join(RUN)} -- sh -c 'echo job $number; exec sleep 60'"
    screen = Screen(environment, "bash", "-c", f"for number in 1 2; do export number; {job}; done")
    assert screen.shows("job 1")
    screen.type("\x03")
    assert screen.exit_code() == -signal.SIGINT
    assert len(scripted.seen["Acquire"]) == len(scripted.seen["Release"]) == 1


@FORKS
@pytest.mark.usefixtures("scripted")
def test_a_command_in_the_background_gets_the_terminal_with_fg(environment: Environment):
    screen = Screen(environment | {"PS1": "$ "}, "bash", "--norc", "--noprofile", "-i")
    screen.type(f"{' '.join(RUN)} -- sh -c 'read line; echo heard: $line; exit 3' &\n")
    assert screen.shows("the command waits for the terminal: bring it to the foreground")
    screen.type("fg\nhello\n")
    assert screen.shows("heard: hello")
    screen.type("exit $?\n")
    assert screen.exit_code() == 3


@FORKS
def test_a_run_inside_a_run_gets_the_terminal_too(scripted: ScriptedArbiter, environment: Environment):
    gpu = lease_pb2.GpuGrant(key="gpu:0", uuid=UUID)
    lease = lease_pb2.Lease(lease_id="lease-1", sharing=lease_pb2.SHARING_EXCLUSIVE, gpus=[gpu], visible_devices=UUID)
    scripted.snapshots = [snapshot_pb2.ArbiterSnapshot(leases=[lease])]
    command = " ".join(RUN)
    inner = f"{command} -- sh -c 'read line; echo heard: $line; exit 3'; exit $?"
    screen = Screen(environment, *RUN, "--", "sh", "-c", inner)
    assert screen.shows("joins the lease around it, lease-1 on gpu:0")
    screen.type("hello\n")
    assert screen.shows("heard: hello")
    assert screen.exit_code() == 3
    assert len(scripted.seen["Acquire"]) == 1


def test_in_this_process_the_handlers_are_put_back(scripted: ScriptedArbiter, capfd: pytest.CaptureFixture[str]):
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    assert main(["run", "--address", scripted.address, "--", "sh", "-c", "echo hi"]) == 0
    assert capfd.readouterr().out == "hi\n"
    assert {number: signal.getsignal(number) for number in before} == before
