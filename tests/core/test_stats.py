"""What the last hundred leases of a GPU were like."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.world import World, gpus
from gpuarbiter_server.core.stats import GpuStats, percentile


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [
        ([], 0.5, None),
        ([3.0], 0.5, 3.0),
        ([3.0], 0.0, 3.0),
        ([1.0, 2.0], 0.5, 1.0),
        ([4.0, 1.0, 3.0, 2.0], 0.5, 2.0),
        ([float(n) for n in range(1, 101)], 0.95, 95.0),
        ([float(n) for n in range(1, 101)], 1.0, 100.0),
    ],
)
def test_percentiles_by_nearest_rank(values: list[float], share: float, expected: float | None) -> None:
    assert percentile(values, share) == expected


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=100), st.sampled_from([0.25, 0.5, 0.75, 1.0]))
def test_a_percentile_is_the_smallest_value_that_enough_do_not_exceed(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found is not None
    enough = math.ceil(share * len(values))
    assert sum(value <= found for value in values) >= enough
    assert sum(value < found for value in values) < enough


def test_the_last_hundred_count() -> None:
    stats = GpuStats()
    for n in range(250):
        stats.waited(float(n))
        stats.held(float(1000 + n))
    view = stats.view()
    assert (view.queue_wait_p50, view.queue_wait_p95) == (199.0, 244.0)
    assert (view.hold_p50, view.hold_p95) == (1199.0, 1244.0)
    assert view.granted == 250


def test_each_gpu_counts_what_happens_to_it() -> None:
    world = World(gpus(2))
    both = world.acquire(count=2)
    world.advance(2)
    waiting = world.acquire(candidates=("gpu:1",), max_hold=1)
    world.acquire(candidates=("gpu:1",), max_wait=1)
    world.acquire(candidates=("gpu:0",), max_wait=0, busy=world.request().busy_policy.SKIP)
    world.advance(1)
    world.release(both)
    world.advance(2)
    assert waiting.held
    first, second = (gpu.stats for gpu in world.snapshot().gpus)
    assert (first.granted, second.granted) == (1, 2)
    assert (first.declined, second.declined) == (1, 0)
    assert (first.timed_out, second.timed_out) == (1, 1)
    assert (first.watchdog, second.watchdog) == (0, 1)
    assert (first.hold_p50, second.queue_wait_p95) == (3.0, 1.0)
