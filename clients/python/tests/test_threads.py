"""What only threads can do: share one Arbiter, be interrupted, and be there when the program ends."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from fakes.polling import until
from fakes.scripted_arbiter import Call, ScriptedArbiter
from gpuarbiter import Arbiter, Lease
from gpuarbiter._sync import backend


def test_several_threads_share_an_arbiter(scripted: ScriptedArbiter):
    def work(_number: int) -> str:
        with arbiter.lease("ASR", ttl="1s") as lease:
            return lease.request_id

    with Arbiter(scripted.address) as arbiter, ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(work, range(24)))) == 24
    until(lambda: not [thread for thread in threading.enumerate() if thread.name.startswith("gpuarbiter-")])


def test_an_interrupted_wait_is_taken_back(scripted: ScriptedArbiter):
    def waiting(call: Call):
        yield call.queued()
        call.wait("never")

    def interrupt(_queued: object) -> None:
        raise KeyboardInterrupt

    scripted.scripts.append(waiting)
    with Arbiter(scripted.address) as arbiter:
        with pytest.raises(KeyboardInterrupt):
            arbiter.acquire("ASR", on_queued=interrupt)
        assert scripted.seen["Release"][0].request_id == scripted.seen["Acquire"][0].request_id


def test_a_callback_may_release(scripted: ScriptedArbiter):
    def script(call: Call):
        yield call.granted()
        yield call.yield_requested()
        yield from call.hold()

    scripted.scripts.append(script)
    with Arbiter(scripted.address) as arbiter:
        lease = arbiter.acquire("ASR", on_yield=lambda lease, _asked: lease.release())
        assert isinstance(lease, Lease)
        until(lambda: lease.released)
    assert len(scripted.seen["Release"]) == 1


FORGETFUL = """
import sys
from gpuarbiter import Arbiter
arbiter = Arbiter(sys.argv[1])
lease = arbiter.acquire("ASR", ttl="10s")
state = next(arbiter.watch())
print(lease.lease_id)
"""


def test_a_program_that_forgets_to_release_ends_and_releases(scripted: ScriptedArbiter):
    program = [sys.executable, "-c", FORGETFUL, scripted.address]
    done = subprocess.run(program, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "lease-1\n"
    assert len(scripted.seen["Release"]) == 1


def test_credentials_make_a_secure_channel(scripted: ScriptedArbiter):
    from gpuarbiter import ArbiterUnavailable

    # The scripted arbiter speaks no TLS, and a client that is to speak it must not do without.
    with (
        Arbiter(scripted.address, credentials=grpc.ssl_channel_credentials()) as arbiter,
        pytest.raises(ArbiterUnavailable),
    ):
        arbiter.check_fence("gpu:0", 7)


def test_sleeping_lets_time_pass(monkeypatch: pytest.MonkeyPatch):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    backend.sleep(0.25)
    assert slept == [0.25]
