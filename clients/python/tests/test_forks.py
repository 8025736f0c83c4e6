"""A forked child opens a line of its own, and leaves its parent's leases alone; shown by real processes."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from fakes.scripted_arbiter import ScriptedArbiter
from gpuarbiter import AsyncArbiter, _forks

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")

# The parent holds a lease and reads a watch; then it forks, as often as there are names of functions.
PROGRAM = """
import asyncio, gc, json, os, sys
from gpuarbiter import Arbiter, AsyncArbiter

def tell(**facts):
    sys.stdout.write(json.dumps(facts) + "\\n")
    sys.stdout.flush()

def parents_arbiter():
    with arbiter.lease("NMT") as mine:
        tell(mine=mine.request_id)

def own_arbiter():
    with Arbiter(sys.argv[1]) as other, other.lease("NMT") as mine:
        tell(mine=mine.request_id)

def asynchronous():
    async def work():
        async with AsyncArbiter(sys.argv[1]) as other, other.lease("NMT") as mine:
            tell(mine=mine.request_id)
    asyncio.run(work())

def parents_lease():
    released = lease.release()
    tell(released=[released.reason, released.already_ended], lost=lease.lost, asked=lease.wait_yield())

def destroys():
    global arbiter, lease, watch
    arbiter.close()
    del arbiter, lease, watch
    gc.collect()

arbiter = Arbiter(sys.argv[1])
watch = arbiter.watch()
next(watch)
lease = arbiter.acquire("ASR", ttl="60s")
for name in sys.argv[2:]:
    pid = os.fork()
    if pid == 0:
        globals()[name]()
        sys.exit(0)
    tell(status=os.waitpid(pid, 0)[1])
lease.renew()
tell(parent=lease.request_id, uncertain=lease.uncertain, released=lease.released is not None)
arbiter.close()
"""


def run(scripted: ScriptedArbiter, *names: str) -> list[dict[str, Any]]:
    command = [sys.executable, "-c", PROGRAM, scripted.address, *names]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", ["parents_arbiter", "own_arbiter", "asynchronous"])
def test_a_child_opens_a_line_of_its_own(scripted: ScriptedArbiter, name: str):
    child, status, parent = run(scripted, name)
    assert status == {"status": 0}
    assert not parent["uncertain"]
    first, second = scripted.seen["Session"]
    assert first.holder.pid != second.holder.pid
    assert [each.request_id for each in scripted.seen["Acquire"]] == [parent["parent"], child["mine"]]


def test_a_parents_lease_counts_as_given_back_in_the_child(scripted: ScriptedArbiter):
    child, _status, parent = run(scripted, "parents_lease")
    assert child == {"released": ["", True], "lost": False, "asked": None}
    assert not parent["released"]
    assert len(scripted.seen["Session"]) == 1
    assert len(scripted.seen["Release"]) == 1, "the parent's own, at its end"


def test_what_a_child_destroys_is_not_the_parents(scripted: ScriptedArbiter):
    *statuses, parent = run(scripted, *["destroys"] * 5)
    assert statuses == [{"status": 0}] * 5
    assert parent | {"parent": ""} == {"parent": "", "uncertain": False, "released": False}
    assert len(scripted.seen["Session"]) == 1
    assert len(scripted.seen["Acquire"]) == 1, "nothing had to be joined again"


async def test_after_asyncio_a_forked_child_is_told_what_to_do(
    scripted: ScriptedArbiter, monkeypatch: pytest.MonkeyPatch
):
    # Not by a fork: with grpc.aio in use, Python itself may crash in the child.
    monkeypatch.setattr(_forks, "_aio_lost", True)
    async with AsyncArbiter(scripted.address, on_unavailable="proceed") as arbiter:
        with pytest.raises(RuntimeError, match="use Arbiter there, or start the child with the method spawn"):
            await arbiter.acquire("ASR")
    assert not scripted.seen["Acquire"]
