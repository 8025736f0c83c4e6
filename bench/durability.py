"""What the journal costs: acquire + release at each durability, beside what the disk takes for one sync; restarts."""

import itertools
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import grpc

from bench import loop
from bench.disk import sync_seconds
from bench.figures import spread, verdict
from bench.pairs import SHAPES, measure
from bench.servers import arbiter
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import gpu_arbiter_pb2_grpc as bindings
from gpuarbiter_server.core.model import AcquireRequest, Holder, Identity, RequestKey, Sharing
from gpuarbiter_server.core.policy import Settings
from gpuarbiter_server.core.records import LeaseSaved, SavedLease, SavedShare
from gpuarbiter_server.core.terms import terms_of
from gpuarbiter_server.gpu import procfs
from gpuarbiter_server.runtime.clock import monotonic
from gpuarbiter_server.store.journal import Journal

_DURABILITIES = ("memory", "relaxed", "full")
_GIB = 1 << 30


def rows(*, quick: bool) -> list[tuple[str, ...]]:
    """A row for each shape and durability, and one for a start with many live leases."""
    return [*_pairs(quick=quick), _restart(*((100, 1) if quick else (1000, 3)))]


def _pairs(*, quick: bool) -> list[tuple[str, ...]]:
    rounds, count = (2, 50) if quick else (7, 200)
    sync = f"one fdatasync of the disk {sync_seconds(20 if quick else 200) * 1e6:.0f} µs"
    table = []
    with ExitStack() as stack:
        servers = [stack.enter_context(arbiter(f"journal.durability={each}")) for each in _DURABILITIES]
        for shape in SHAPES:
            samples = [
                [loop.run(measure(server, shape, turn * (count + 20), count)) for server in servers]
                for turn in range(rounds)
            ]
            for number, durability in enumerate(_DURABILITIES):
                wall = statistics.median(turn[number].wall for turn in samples) * 1e6
                cpu = statistics.median(turn[number].cpu for turn in samples) * 1e6
                ratios = [turn[number].wall / turn[0].wall for turn in samples]
                table.append(
                    (
                        f"{shape}, journal.durability: {durability}",
                        sync,
                        f"{wall:.0f} µs, CPU {cpu:.0f} µs",
                        f"time {statistics.median(ratios):.2f} × that in memory",
                    )
                )
    return table


def _restart(leases: int, rounds: int) -> tuple[str, ...]:
    """From the start of the process to its first answer, without and with live leases in the journal."""
    times: dict[int, list[float]] = {0: [], leases: []}
    for _, count in itertools.product(range(rounds), times):
        with tempfile.TemporaryDirectory() as folder:
            if count:
                _fill(Path(folder), count)
            began = time.perf_counter()
            with arbiter(f"journal.path={folder}") as server, grpc.insecure_channel(server.target) as channel:
                found = next(iter(bindings.GpuArbiterStub(channel).Snapshot(pb.SnapshotRequest())))
                times[count].append(time.perf_counter() - began)
            assert len(found.snapshot.leases) == count, found
    cold, restart = (statistics.median(each) for each in times.values())
    return (
        f"P10 Start to the first answer, with {leases:,} live leases in the journal",
        f"none: {spread(times[0], 2)} s",
        f"{spread(times[leases], 2)} s",
        f"{restart / cold:.2f} ×; " + verdict("at most 1.5 and 2.5 s", passed=cold <= 1.5 and restart <= 2.5),
    )


def _fill(folder: Path, count: int) -> None:
    """A journal with so many live shared leases."""
    now = monotonic()
    journal = Journal.open(folder, durability="full")
    journal.begin(epoch=1, boot_id=procfs.boot_id(), pid_namespace=procfs.own_pid_namespace(), tokens_until=count + 1)
    saved = []
    for token in range(1, count + 1):
        request = AcquireRequest("BENCH", Holder(f"client-{token}"), request_id=f"r{token}", ttl=3600.0)
        key = RequestKey(Identity("local", f"client-{token}"), f"r{token}")
        share = SavedShare("gpu:0", "", _GIB // 1024, _GIB // 1024, None, 0, 0, ())
        lease = SavedLease(
            lease_id=f"{token:x}-0",
            token=token,
            key=key,
            named=True,
            request=request,
            terms=terms_of(request, Settings()),
            sharing=Sharing.SHARED,
            enqueued_at=now,
            granted_at=now,
            hold_until=None,
            hold_passed=False,
            yields=(),
            shares=(share,),
            recover_until=None,
        )
        saved.append(LeaseSaved(lease))
    journal.commit(saved)
    journal.close()
