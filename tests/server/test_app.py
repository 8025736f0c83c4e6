"""gpu-arbiterd as a process: how it starts, what it refuses, and how it ends."""

import json
import os
import platform
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fakes.polling import async_until, until
from gpuarbiter.v1 import admin_pb2, admin_pb2_grpc, lease_pb2
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import gpu_arbiter_pb2_grpc as rpc
from gpuarbiter_server import app
from gpuarbiter_server.app import gpus
from gpuarbiter_server.config import load
from gpuarbiter_server.core.model import GpuReading, GpuSpec, ProcessId
from gpuarbiter_server.runtime import local_machine
from support.messages import GIB, acquire, holder, release
from support.process import ISOLATED, Arbiterd, environment, running
from support.refusals import read

FETCH_A_TOKEN = """
import socket, sys, time
with socket.socket(socket.AF_UNIX) as attestation:
    attestation.connect(sys.argv[1])
    print(attestation.makefile().readline().strip(), flush=True)
time.sleep(1000)
"""


class Client:
    """A synchronous client of a process."""

    def __init__(self, target: str) -> None:
        self.channel = grpc.insecure_channel(target, options=(("grpc.use_local_subchannel_pool", 1),))
        self.stub: Any = rpc.GpuArbiterStub(self.channel)
        self.admin: Any = admin_pb2_grpc.GpuArbiterAdminStub(self.channel)
        self.health: Any = health_pb2_grpc.HealthStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def granted(self, request: pb.AcquireRequest) -> tuple[Any, Any]:
        call = self.stub.Acquire(request, timeout=30)
        answer = next(call)
        while answer.HasField("queued"):
            answer = next(call)
        return call, answer.granted.lease

    def queued(self, request: pb.AcquireRequest) -> Any:
        call = self.stub.Acquire(request, timeout=30)
        assert next(call).HasField("queued")
        return call

    def snapshot(self) -> Any:
        return next(self.stub.Snapshot(pb.SnapshotRequest(), timeout=30)).snapshot

    def status(self) -> int:
        return self.health.Check(health_pb2.HealthCheckRequest(), timeout=30).status


def get(address: str, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except HTTPError as error:
        with error:
            return error.code, error.read().decode()


def changed(address: str, token: str) -> int:
    """The answer to a change of the analysis over HTTP."""
    headers = {"content-type": "application/json", "authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://{address}/config/update", b'{"interval": "60s"}', headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return int(answer.status)
    except HTTPError as error:
        with error:
            return error.code


def ended_with(call: Any) -> grpc.RpcError:
    """The error that a stream ends with; whatever comes before is passed over."""
    with pytest.raises(grpc.RpcError) as broken:
        for _ in call:
            pass
    return broken.value


def refused(folder: Path, *arguments: str, env: dict[str, str] | None = None) -> tuple[int, str]:
    """Exit code and output of an arbiter that must not start."""
    arbiter = Arbiterd(*arguments, folder=folder, env=env)
    try:
        return arbiter.wait(), arbiter.output
    finally:
        arbiter.stop()


# -- start --


def test_changes_over_http_take_the_token_that_lies_beside_the_journal(tmp_path: Path):
    with running(tmp_path) as arbiter:
        token = arbiter.admin_token
        assert changed(arbiter.http, token) == 200
        assert changed(arbiter.http, token[:-1]) == 403
    with running(tmp_path) as arbiter:
        assert arbiter.admin_token == token
        assert changed(arbiter.http, token) == 200
        assert token not in arbiter.output
    with running(tmp_path, env=environment(tmp_path, GPU_ARBITER_ADMIN_TOKEN="x" * 20)) as arbiter:
        assert (changed(arbiter.http, token), changed(arbiter.http, "x" * 20)) == (403, 200)


def test_without_a_journal_nobody_knows_the_token(tmp_path: Path):
    with running(tmp_path, "journal.durability=memory") as arbiter:
        until(lambda: "nothing can be changed over HTTP: the journal is in memory" in arbiter.output, "for why")
        assert changed(arbiter.http, "x" * 20) == 403
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(
    ("text", "mode", "why"),
    [("", 0o600, "is empty"), ("short", 0o600, "holds something else"), ("x" * 20, 0o644, "read or written by others")],
)
def test_it_does_not_start_with_an_admin_token_that_is_none(tmp_path: Path, text: str, mode: int, why: str):
    file = tmp_path / "token"
    file.write_text(text)
    file.chmod(mode)
    code, output = refused(tmp_path, "serve", *ISOLATED, "--set", f"auth.admin_token={file}")
    assert code == 1
    assert "gpu-arbiterd cannot start: " in output
    assert why in output


def test_it_serves_everywhere_it_says(tmp_path: Path):
    with running(tmp_path) as arbiter:
        assert arbiter.socket == f"unix:{tmp_path}/gpu-arbiter/arbiter.sock"
        for target in (arbiter.grpc, arbiter.socket):
            with Client(target) as client:
                snapshot = client.snapshot()
                assert [gpu.name for gpu in snapshot.gpus] == ["Simulated GPU"]
                call, lease = client.granted(acquire())
                client.stub.Release(release(lease))
                assert next(call).HasField("ended")
        assert get(arbiter.http, "/healthz") == (200, "OK")
        assert get(arbiter.http, "/readyz") == (200, "OK")
        lines = get(arbiter.http, "/metrics")[1].splitlines()
        leases = [line for line in lines if line.startswith("gpu_arbiter_leases{")]
        assert leases
        assert all(line.endswith(" 0") for line in leases)
        assert get(arbiter.http, "/nonsense")[0] == 404
    assert arbiter.wait() == 0
    assert not Path(arbiter.socket.removeprefix("unix:")).exists()


def identity_of(pid: int) -> dict[str, int]:
    """What a holder declares of its process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    namespace = Path("/proc/self/ns/pid").stat().st_ino
    return {"pid": pid, "pid_namespace": namespace, "process_start_ticks": int(fields[19])}


def test_it_reads_its_gpus_and_notices_the_death_of_holders(tmp_path: Path):
    with running(tmp_path, "sampler.interval=50ms") as arbiter, Client(arbiter.grpc) as client:
        until(lambda: client.snapshot().gpus[0].HasField("sample"), "for a reading")
        child = subprocess.Popen(["sleep", "1000"])
        stream, _ = client.granted(acquire(holder=holder("child", **identity_of(child.pid))))
        child.kill()
        child.wait()
        assert next(stream).ended.reason == lease_pb2.END_REASON_HOLDER_DIED


def test_an_attested_holder_is_known_without_declaring_its_process(tmp_path: Path):
    with running(tmp_path) as arbiter, Client(arbiter.socket) as client:
        path = arbiter.socket.removeprefix("unix:") + ".attest"
        command = [sys.executable, "-c", FETCH_A_TOKEN, path]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert child.stdout is not None
        with child.stdout:
            token = child.stdout.readline().strip()
        assert token
        stream, _ = client.granted(acquire(holder=holder("child", attestation=token)))
        child.kill()
        child.wait()
        assert next(stream).ended.reason == lease_pb2.END_REASON_HOLDER_DIED


def test_configured_gpus_need_no_driver(tmp_path: Path):
    gpus = 'gpus=[{key: "gpu:a", memory: 8GiB}, {key: "gpu:b", memory: 8GiB}]'
    with running(tmp_path, gpus, "listen.socket=off", "listen.http=off") as arbiter:
        assert (arbiter.socket, arbiter.http) == ("", "")
        with Client(arbiter.grpc) as client:
            assert [gpu.key for gpu in client.snapshot().gpus] == ["gpu:a", "gpu:b"]


def test_a_unix_socket_alone_is_enough(tmp_path: Path):
    with running(tmp_path, "listen.grpc=off") as arbiter:
        assert arbiter.grpc == ""
        with Client(arbiter.socket) as client:
            assert client.snapshot().instance_id


def test_addresses_are_said_as_clients_take_them(tmp_path: Path):
    with running(tmp_path, 'listen.grpc="[::1]:0"', 'listen.http="[::1]:0"') as arbiter, Client(arbiter.grpc) as client:
        assert client.snapshot().instance_id
        assert arbiter.grpc.startswith("[::1]:")
        assert get(arbiter.http, "/healthz") == (200, "OK")


def test_the_socket_of_an_arbiter_that_was_killed_is_taken_over(tmp_path: Path):
    with running(tmp_path) as first:
        first.signal(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
        assert Path(first.socket.removeprefix("unix:")).exists()
        with running(tmp_path) as second, Client(second.socket) as client:
            assert second.socket == first.socket
            assert client.snapshot().instance_id


def test_the_format_and_the_levels_of_its_log_can_be_chosen_and_changed(tmp_path: Path):
    settings = ("log_format=json", "log_levels={events: error}")
    with running(tmp_path, *settings) as arbiter, Client(arbiter.grpc) as client:
        call, _ = client.granted(acquire(task_type="UNSEEN"))
        call.cancel()
        patch = "{log_levels: {events: debug}, shutdown_grace: 0s}"
        client.admin.UpdateConfig(admin_pb2.UpdateConfigRequest(patch_yaml=patch), timeout=30)
        call, lease = client.granted(acquire(task_type="SEEN", max_wait=30))
        line = json.loads(arbiter.wait_for('"event": "GRANTED"').string)
        call.cancel()
    assert (line["task"], line["lease"], line["level"], line["logger"]) == ("SEEN", lease.lease_id, "info", "events")
    assert "UNSEEN" not in arbiter.output


def test_a_change_of_the_configuration_reaches_logs_and_metrics(tmp_path: Path):
    with running(tmp_path) as arbiter, Client(arbiter.grpc) as client:
        client.granted(acquire(task_type="NEW"))
        arbiter.wait_for("GRANTED task=NEW")
        patch = "{log_level: warning, policies: {NEW: {priority: 90}}, shutdown_grace: 0s}"
        client.admin.UpdateConfig(admin_pb2.UpdateConfigRequest(patch_yaml=patch), timeout=30)
        call, lease = client.granted(acquire(task_type="NEW", max_wait=30))
        assert lease.priority == 90
        counted = get(arbiter.http, "/metrics")[1]
        assert 'gpu_arbiter_acquire_total{gpu="gpu:0",task="NEW",outcome="granted"} 1\n' in counted
        call.cancel()
    assert arbiter.output.count("GRANTED task=NEW") == 1


def test_memory_that_is_in_use_is_waited_for(tmp_path: Path):
    with running(tmp_path, "sampler.fast_interval=20ms") as arbiter, Client(arbiter.grpc) as client:
        gpu = client.snapshot().gpus[0]
        taken = tmp_path / "sim" / gpu.uuid / f"{os.getpid()}.json"
        mine = identity_of(os.getpid())
        job = {"pid": mine["pid"], "start_ticks": mine["process_start_ticks"], "utilization_ratio": 0.5}
        taken.write_text(json.dumps(job | {"memory_bytes": 20 * GIB}))
        until(lambda: client.snapshot().gpus[0].memory.unleased_bytes == 20 * GIB, "for it to be seen")
        call = client.stub.Acquire(acquire(gpu={"memory_bytes": 10 * GIB}, max_wait=60), timeout=30)
        assert next(call).queued.reason == lease_pb2.WAIT_REASON_MEMORY
        taken.unlink()
        while not (answer := next(call)).HasField("granted"):
            assert answer.HasField("queued")


def test_without_attestation_it_serves_all_the_same(tmp_path: Path):
    folder = tmp_path / "gpu-arbiter"
    folder.mkdir(mode=0o700)
    (folder / "arbiter.sock.attest").write_text("in the way")
    with running(tmp_path) as arbiter, Client(arbiter.socket) as client:
        assert "no attestation socket" in arbiter.output
        assert client.snapshot().instance_id
    assert (folder / "arbiter.sock.attest").read_text() == "in the way"


class NotingSampler:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, frozenset[Any]]] = []

    def fast(self, keys: frozenset[str]) -> None:
        self.told.append(("fast", keys))

    def refresh(self, keys: frozenset[str]) -> None:
        self.told.append(("refresh", keys))

    def watch_holders(self, processes: frozenset[ProcessId]) -> None:
        self.told.append(("holders", processes))


class NotingProcesses:
    """The same, for processes."""

    def __init__(self) -> None:
        self.told: list[tuple[str, ProcessId]] = []

    def watch(self, process: ProcessId) -> None:
        self.told.append(("watch", process))

    def unwatch(self, process: ProcessId) -> None:
        self.told.append(("unwatch", process))


async def test_the_machine_hands_on_what_the_core_wants_of_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(local_machine, "_HOLDERS_DELAY", 0.0)
    sampler: Any = NotingSampler()
    processes: Any = NotingProcesses()
    machine = local_machine.LocalMachine(sampler, processes)
    first, second, third = ProcessId(1, 1), ProcessId(2, 2), ProcessId(3, 3)
    gpus = frozenset({"gpu:0"})
    machine.sample_fast(gpus)
    machine.refresh(gpus)
    for process in (first, second, third):
        machine.watch(process)
    machine.unwatch(second)
    await async_until(lambda: len(sampler.told) == 3)
    # Holders that come and go at once are looked after together.
    assert sampler.told == [("fast", gpus), ("refresh", gpus), ("holders", frozenset({first, third}))]
    assert processes.told == [("watch", first), ("watch", second), ("watch", third), ("unwatch", second)]


# -- what keeps it from starting --


class HangingBackend:
    """A driver that never answers."""

    def __init__(self) -> None:
        self.released = threading.Event()

    def open(self) -> list[GpuSpec]:
        self.released.wait()
        return []

    def read(self, spec: GpuSpec) -> GpuReading:
        raise AssertionError(spec)

    def close(self) -> None:
        self.released.wait()


async def test_a_driver_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch):
    backend = HangingBackend()
    monkeypatch.setattr(gpus, "NvmlBackend", lambda: backend)
    monkeypatch.setattr(gpus, "_DRIVER_PATIENCE", 0.05)
    monkeypatch.setattr(gpus, "_LAST_PATIENCE", 0.05)
    with pytest.raises(app.StartError, match=r"did not answer within 0\.05 s"):
        await gpus.find(load(None, {}, ()))
    await gpus.close(backend)
    backend.released.set()


@pytest.mark.parametrize("what", ["grpc", "socket", "http"])
def test_a_second_one_on_the_same_address_is_refused(tmp_path: Path, what: str):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with running(tmp_path) as first:
        address = getattr(first, what)
        setting = f"listen.{what}={address.removeprefix('unix:')}"
        code, output = refused(elsewhere, "serve", *ISOLATED, "--set", setting)
        assert code == 1
        # gRPC itself may have had its say before.
        assert f"gpu-arbiterd cannot start: {'cannot listen on ' if what == 'socket' else ''}{address}" in output
        assert "Traceback" not in output
        with Client(first.socket) as client:
            assert client.snapshot().instance_id
        assert get(first.http, "/healthz") == (200, "OK")


def test_an_address_is_free_again_at_once(tmp_path: Path):
    with running(tmp_path) as first:
        # A connection that the server closes last leaves its port in TIME_WAIT.
        assert get(first.http, "/healthz") == (200, "OK")
    again = (f"listen.grpc={first.grpc}", f"listen.http={first.http}")
    with running(tmp_path, *again) as second:
        assert (second.grpc, second.http) == (first.grpc, first.http)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("queue_limt=4", ["queue_limt", "did you mean queue_limit"]),
        ("queue_limit=many", ["queue_limit", "many", "whole number"]),
        ("listen.grpc=0.0.0.0:1", ["listen.grpc", "0.0.0.0"]),
    ],
)
def test_a_configuration_that_is_wrong_keeps_it_from_starting(tmp_path: Path, setting: str, said: list[str]):
    code, output = refused(tmp_path, "serve", *ISOLATED, "--set", setting)
    assert code == 2
    assert output.startswith("gpu-arbiterd: the configuration has 1 problem:")
    for text in said:
        assert text in output


def test_an_unknown_variable_keeps_it_from_starting(tmp_path: Path):
    env = environment(tmp_path, GPU_ARBITER_QUEUE_LIMT="4")
    code, output = refused(tmp_path, "serve", *ISOLATED, env=env)
    assert code == 2
    assert "GPU_ARBITER_QUEUE_LIMT" in output


def test_without_a_driver_it_says_what_to_do(tmp_path: Path):
    code, output = refused(tmp_path, "serve", *ISOLATED, "--set", "gpus=auto")
    if code == 0:
        pytest.skip("this machine has an NVIDIA driver")
    assert code == 1
    assert output.startswith("gpu-arbiterd cannot start: ")
    assert "sim:" in output
    assert "Traceback" not in output


def test_a_folder_for_simulated_gpus_that_cannot_be_is_said(tmp_path: Path):
    (tmp_path / "file").write_text("")
    env = environment(tmp_path, GPU_ARBITER_SIM_DIR=str(tmp_path / "file" / "sim"))
    code, output = refused(tmp_path, "serve", *ISOLATED, env=env)
    assert code == 1
    assert str(tmp_path / "file" / "sim") in output


# -- the end --


def test_told_to_stop_it_takes_no_new_requests_and_lets_holders_finish(tmp_path: Path):
    with running(tmp_path, "shutdown_grace=60s") as arbiter, Client(arbiter.grpc) as client:
        held, lease = client.granted(acquire("r", max_hold=0))
        waiting = client.queued(acquire(max_wait=60))
        arbiter.signal(signal.SIGTERM)
        refusal = read(ended_with(waiting))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTDOWN")
        assert refusal.retry_after is not None
        assert client.status() == health_pb2.HealthCheckResponse.NOT_SERVING
        assert get(arbiter.http, "/readyz") == (503, "stopping")
        assert get(arbiter.http, "/healthz") == (200, "OK")
        refusal = read(ended_with(client.stub.Acquire(acquire(), timeout=30)))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTDOWN")
        assert client.snapshot().draining
        assert client.stub.Renew(pb.RenewRequest(lease_id=lease.lease_id), timeout=30) == pb.RenewResponse()
        assert arbiter.process.poll() is None
        client.stub.Release(release(lease), timeout=30)
        assert next(held).ended.reason == lease_pb2.END_REASON_RELEASED
        assert arbiter.wait() == 0
        assert "Traceback" not in arbiter.output
        assert "ERROR" not in arbiter.output


def test_when_the_grace_is_over_holders_and_watchers_are_told_that_it_is_gone(tmp_path: Path):
    with running(tmp_path, "shutdown_grace=300ms") as arbiter, Client(arbiter.grpc) as client:
        held, _ = client.granted(acquire("r", max_hold=0))
        watching = client.stub.Snapshot(pb.SnapshotRequest(watch=True))
        next(watching)
        following = client.admin.ListEvents(admin_pb2.ListEventsRequest(follow=True))
        next(following)
        session = client.stub.Session(iter_then_wait(pb.SessionRequest(call_id=1, open={"holder": holder()})))
        assert next(session).HasField("opened")
        arbiter.signal(signal.SIGTERM)
        refusal = read(ended_with(held))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "SHUTDOWN")
        for stream in (watching, following, session):
            assert ended_with(stream).code() is grpc.StatusCode.UNAVAILABLE
        assert arbiter.wait() == 0
        assert "Traceback" not in arbiter.output
        assert "ERROR" not in arbiter.output


def iter_then_wait(*messages: Any) -> Iterator[Any]:
    """A client's side that stays open."""
    yield from messages
    threading.Event().wait(60)


def test_a_second_signal_hurries(tmp_path: Path):
    with running(tmp_path, "shutdown_grace=60s") as arbiter, Client(arbiter.grpc) as client:
        held, _ = client.granted(acquire(max_hold=0))
        arbiter.signal(signal.SIGTERM)
        arbiter.wait_for("stopping")
        arbiter.signal(signal.SIGINT)
        assert ended_with(held).code() is grpc.StatusCode.UNAVAILABLE
        assert arbiter.wait() == 0


def test_an_idle_one_ends_at_once(tmp_path: Path):
    with running(tmp_path, "shutdown_grace=60s") as arbiter:
        arbiter.signal(signal.SIGINT)
        assert arbiter.wait() == 0


def test_a_client_that_reads_no_http_answer_does_not_keep_it_from_ending(tmp_path: Path):
    with running(tmp_path) as arbiter:
        host, _, port = arbiter.http.rpartition(":")
        with socket.create_connection((host, int(port))) as connection:
            connection.sendall(b"GET /metrics HTTP/1.1\r\nHost: x\r\n")
            arbiter.signal(signal.SIGTERM)
            assert arbiter.wait() == 0


def test_the_arenas_of_the_allocator_are_shared_where_there_are_any():
    code = "from gpuarbiter_server.app import allocator; print(allocator.keep_together())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert said == str(platform.libc_ver()[0] == "glibc")


def test_whether_anybody_reads_that_it_is_ready_decides_nothing(tmp_path: Path):
    reading, writing = os.pipe()
    os.close(reading)
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, "-m", "gpuarbiter_server.cli", "serve", *ISOLATED, "--set", f"listen.grpc={address}"]
    with subprocess.Popen(command, stdout=writing, stderr=subprocess.PIPE, env=environment(tmp_path)) as process:
        os.close(writing)
        with Client(address) as client:
            client.health.Check(health_pb2.HealthCheckRequest(), timeout=30, wait_for_ready=True)
            _, lease = client.granted(acquire())
            client.stub.Release(release(lease))
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert b"Traceback" not in said
    assert process.returncode == 0


def test_the_console_is_there_unless_it_is_switched_off(tmp_path: Path):
    with running(tmp_path) as arbiter:
        assert "GpuArbiter" in get(arbiter.http, "/console")[1]
    with running(tmp_path, "console.enabled=false") as arbiter:
        assert [get(arbiter.http, path)[0] for path in ("/console", "/console/feed", "/healthz")] == [404, 404, 200]
