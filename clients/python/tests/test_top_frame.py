"""Frames of the live view: what they say, and that they fit on whatever screen there is."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from fakes.scripted_arbiter import seconds
from gpuarbiter._top import frame, gpus, text
from gpuarbiter.v1 import lease_pb2, snapshot_pb2

GIB = 2**30
BEGIN = 1_700_000_000
_SGR = re.compile(r"\x1b\[[0-9]*m")


def at(moment: float) -> Timestamp:
    made = Timestamp()
    made.FromMicroseconds(round((BEGIN + moment) * 10**6))
    return made


def now(moment: float) -> datetime:
    return datetime.fromtimestamp(BEGIN, UTC) + timedelta(seconds=moment)


def gpu(index: int = 0, *, granted: int = 0, **fields: Any) -> snapshot_pb2.GpuSnapshot:
    facts: dict[str, Any] = {
        "key": f"gpu:{index}",
        "name": "L4",
        "health": snapshot_pb2.GPU_HEALTH_OK,
        "memory": snapshot_pb2.GpuMemory(
            total_bytes=24 * GIB, committed_bytes=12 * GIB, unleased_bytes=6 * GIB, headroom_bytes=1, admissible_bytes=5
        ),
        "sample": snapshot_pb2.GpuSample(
            memory_used_bytes=12 * GIB,
            utilization_ratio=0.9,
            power_watts=60,
            power_limit_watts=72,
            temperature_celsius=65,
        ),
        "stats": snapshot_pb2.GpuStats(granted_total=granted, queue_wait_p50=seconds(0.4), queue_wait_p95=seconds(12)),
    }
    return snapshot_pb2.GpuSnapshot(**facts | fields)


def lease(number: int = 0, client: str = "asr-worker-0") -> lease_pb2.Lease:
    return lease_pb2.Lease(
        lease_id=f"lease-{number}",
        task_type="ASR",
        holder=lease_pb2.Holder(client_id=client),
        gpus=[lease_pb2.GpuGrant(key="gpu:0", declared_bytes=6 * GIB, observed_bytes=5 * GIB)],
        state=lease_pb2.LEASE_STATE_YIELDING,
        grant_time=at(-2),
        hold_remaining=seconds(8),
    )


def ticket(number: int = 1, client: str = "nmt-worker-0") -> snapshot_pb2.Ticket:
    return snapshot_pb2.Ticket(
        position=number,
        task_type="NMT",
        holder=lease_pb2.Holder(client_id=client),
        reason=lease_pb2.WAIT_REASON_GPU_BUSY,
        enqueue_time=at(-1),
        memory_bytes=GIB,
    )


def state(**fields: Any) -> snapshot_pb2.ArbiterSnapshot:
    facts: dict[str, Any] = {
        "node": "node-1",
        "version": "0.1.0",
        "snapshot_time": at(0),
        "start_time": at(-100),
        "nvml_up": True,
        "gpus": [gpu()],
        "leases": [lease()],
        "queue": [ticket()],
        "queue_length": 1,
    }
    return snapshot_pb2.ArbiterSnapshot(**facts | fields)


def lines(snapshot: snapshot_pb2.ArbiterSnapshot, moment: float = 3, height: int = 24, **options: Any) -> list[str]:
    return frame.render(snapshot, options.pop("previous", None), now(moment), 80, height, **options)


def test_a_frame_says_all_of_it():
    shown = lines(state(), previous=state(snapshot_time=at(-1), gpus=[gpu(granted=0)]))
    assert shown[0] == "node-1  version 0.1.0  up 1m43s  1 held  1 waiting  22:13:23Z"
    assert shown[1] == "gpu:0 L4 24.0 GiB  OK  util 90%  60/72 W  65 °C"
    assert shown[2] == "  ledger  [" + "#" * 22 + "+" * 12 + "-" + " " * 10 + "] admissible 5 B"
    assert shown[3] == "          # committed 12.0 GiB  + unleased 6.0 GiB  - headroom 1 B"
    assert shown[4] == "  driver  [" + "=" * 22 + " " * 23 + "] used       12.0 GiB"
    happens = "grants 0/min  declines 0/min  timeouts 0/min"
    assert shown[5] == f"  waits p50 0.4s p95 12s  {happens}"
    assert shown[7].split() == ["TASK", "CLIENT", "GPUS", "HELD", "LEFT", "DECLARED", "SEEN", "STATE"]
    assert re.split(r"  +", shown[8]) == [
        "ASR",
        "asr-worker-0",
        "gpu:0",
        "5.0s",
        "5.0s",
        "6.0 GiB",
        "5.0 GiB",
        "YIELDING",
    ]
    assert re.split(r"  +", shown[11]) == ["1", "NMT", "nmt-worker-0", "1 of any", "1.0 GiB", "4.0s", "GPU_BUSY"]


def test_what_a_gpu_suffers_from_is_named():
    ill = gpu(health=snapshot_pb2.GPU_HEALTH_LOST, cordoned=True, pressure=2, cooldown_remaining=seconds(12))
    assert "LOST drained pressure cooldown 12s" in lines(state(gpus=[ill]))[1]


def test_what_is_not_known_is_a_dash():
    bare = state(gpus=[snapshot_pb2.GpuSnapshot(key="gpu:0")], leases=[lease_pb2.Lease()], queue=[], start_time=None)
    shown = "\n".join(lines(bare))
    assert "util -  - W  - °C" in shown
    assert "committed -  + unleased -" in shown
    assert "waits p50 - p95 -  grants -" in shown
    assert "0 B" not in shown


def test_rates_are_what_the_counters_rose_by():
    before = state(snapshot_time=at(-7), gpus=[gpu(granted=5)])
    for granted, rate in ((25, "2.0/s"), (6, "6/min"), (5, "0/min"), (4, "-")):
        after = state(gpus=[gpu(granted=granted)])
        assert gpus.per_time(frame.rates(after.gpus[0], after, before, now(3)).grants) == rate
    other = state(epoch=2)
    assert frame.rates(other.gpus[0], other, before, now(3)).grants is None, "another run of the arbiter"
    assert frame.rates(before.gpus[0], before, before, now(-7)).grants is None
    assert frame.rates(gpu(7), before, before, now(3)).grants is None


def test_what_does_not_fit_is_counted():
    crowd = state(
        leases=[lease(number) for number in range(30)], queue=[ticket(n) for n in range(1, 21)], queue_length=40
    )
    shown = lines(crowd)
    assert len(shown) == 24
    told = [int(line.split()[2]) for line in shown if line.startswith("… and")]
    held = sum(line.startswith("ASR") for line in shown)
    waiting = sum("nmt-worker" in line for line in shown)
    assert told == [30 - held, 40 - waiting]
    assert held > 3
    assert waiting > 3
    many = lines(state(gpus=[gpu(index) for index in range(64)]))
    assert sum(line.startswith("gpu:") for line in many) == 12
    assert "… and 52 more GPUs" in many
    assert any(line.startswith("ASR") for line in many)


def test_a_name_is_no_command_to_the_terminal():
    shown = "\n".join(lines(state(leases=[lease(client="\x1b[2Jme\r\n\u202e\x9b")])))
    assert "?[2Jme????" in shown
    assert "\x1b" not in shown


def test_colour_changes_nothing_but_the_colour():
    plain, coloured = lines(state(), notice="away"), lines(state(), notice="away", colour=True)
    assert "\x1b[31maway\x1b[0m" in coloured
    assert [_SGR.sub("", line).rstrip() for line in coloured] == plain


names = st.text(max_size=60)


@given(
    st.lists(names, max_size=30),
    st.lists(names, max_size=30),
    st.lists(names, max_size=20),
    st.integers(1, 200),
    st.integers(1, 60),
    st.booleans(),
)
def test_a_frame_fits_on_every_screen(
    holders: list[str], waiting: list[str], gpu_names: list[str], width: int, height: int, colour: bool
):
    snapshot = state(
        gpus=[gpu(index, name=name) for index, name in enumerate(gpu_names)],
        leases=[lease(client=name) for name in holders],
        queue=[ticket(client=name) for name in waiting],
        queue_length=len(waiting) + 5,
    )
    shown = frame.render(snapshot, None, now(1), width, height, notice="the arbiter is away", colour=colour)
    assert len(shown) <= height
    assert all(text.width_of(_SGR.sub("", line)) <= width for line in shown)
    assert not any("\n" in line or "\r" in line for line in shown)
