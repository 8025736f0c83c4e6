"""Scores equal tables that were computed by hand."""

import pytest

from gpuarbiter_server.analysis.model import Part, Sample, Status, Thresholds, Weights
from gpuarbiter_server.analysis.scoring import score, status
from server.analysis.windows import GIB, of

NONE: tuple[Part, ...] = ()


@pytest.mark.parametrize(
    ("utilization", "bandwidth", "memory", "watts", "expected", "missing"),
    [
        # 50 × 0 + 20 × 0 + 20 × 0 + 10 × 40/400
        (0.0, 0.0, 0.0, 40.0, 1.0, NONE),
        # 50 × 1 + 20 × 1 + 20 × 1 + 10 × 1
        (1.0, 1.0, 80.0, 400.0, 100.0, NONE),
        # 50 × 0.9 + 20 × 0.5 + 20 × 40/80 + 10 × 300/400
        (0.9, 0.5, 40.0, 300.0, 72.5, NONE),
        # 50 × 0.1 + 20 × 0.05 + 20 × 60/80 + 10 × 80/400
        (0.1, 0.05, 60.0, 80.0, 23.0, NONE),
        # More than the limit counts as the limit: 50 × 1 + 20 × 0 + 20 × 0 + 10 × 1
        (1.0, 0.0, 0.0, 500.0, 60.0, NONE),
        # Without power: (50 × 0.9 + 20 × 0.5 + 20 × 0.5) / 0.9
        (0.9, 0.5, 40.0, None, 72.2222, (Part.POWER,)),
        # Utilization alone: 50 × 0.6 / 0.5
        (0.6, None, None, None, 60.0, (Part.MEMORY_BANDWIDTH, Part.MEMORY, Part.POWER)),
        # Without utilization: (20 × 0.5 + 20 × 0.5 + 10 × 0.5) / 0.5
        (None, 0.5, 40.0, 200.0, 50.0, (Part.UTILIZATION,)),
    ],
)
def test_a_score_is_the_weighted_mean_of_what_is_known(
    utilization: float | None,
    bandwidth: float | None,
    memory: float | None,
    watts: float | None,
    expected: float,
    missing: tuple[Part, ...],
):
    held = None if memory is None else memory * GIB
    scored = score(of(Sample(utilization, bandwidth, held, watts)), Weights())
    assert scored.value == pytest.approx(expected, abs=0.001)
    assert scored.missing == missing


def test_it_is_made_of_means_over_the_samples_that_have_the_figure():
    # Utilization 0.2, 0.4, 0.9: 0.5. Bandwidth 0.1, 0.3: 0.2. Memory 20, 60 of 80: 0.5. Power 100, 300 of 400: 0.5.
    gpu = of(Sample(0.2, 0.1, 20 * GIB, None), Sample(0.4, None, 60 * GIB, 100.0), Sample(0.9, 0.3, None, 300.0))
    assert score(gpu, Weights()).value == pytest.approx(25 + 4 + 10 + 5)


def test_without_a_limit_or_a_total_there_is_no_share_of_it():
    gpu = of(Sample(0.5, 0.5, 40 * GIB, 200.0), memory_total_bytes=None, power_limit_watts=None)
    scored = score(gpu, Weights())
    assert (scored.value, scored.missing) == (pytest.approx(50.0), (Part.MEMORY, Part.POWER))


def test_proportions_of_weights_count_and_what_has_none_is_not_missed():
    gpu = of(Sample(0.5, None, 80 * GIB, None))
    assert score(gpu, Weights(3, 0, 1, 0)).value == pytest.approx(62.5)
    assert score(gpu, Weights(30, 0, 10, 0)) == score(gpu, Weights(3, 0, 1, 0))
    assert score(gpu, Weights(3, 0, 1, 0)).missing == ()


def test_who_knows_nothing_has_no_score():
    assert score(of(Sample()), Weights()).value is None
    assert score(of(Sample(0.5)), Weights(0, 1, 0, 0)).value is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, Status.IDLE),
        (9.99, Status.IDLE),
        (10, Status.LOW),
        (19.99, Status.LOW),
        (20, Status.NORMAL),
        (69.99, Status.NORMAL),
        (70, Status.HIGH),
        (100, Status.HIGH),
    ],
)
def test_statuses_begin_at_their_thresholds(value: float, expected: Status):
    assert status(value, Thresholds()) is expected
