"""Durations and sizes: what is taken, what is refused, and that text and number say the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuarbiter_server.config.units import (
    MAX_DURATION,
    MAX_SIZE,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("400ms", 0.4),
        ("3s", 3.0),
        ("10m", 600.0),
        ("1h", 3600.0),
        ("1d", 86400.0),
        ("1.5h", 5400.0),
        (0, 0.0),
        (0.0, 0.0),
    ],
)
def test_a_duration_is_read(text: object, seconds: float):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "400ms"),
        (3.0, "3s"),
        (90.0, "90s"),
        (600.0, "10m"),
        (3600.0, "1h"),
        (172800, "2d"),
        (0.0005, "0.5ms"),
        (0, "0s"),
    ],
)
def test_a_duration_is_written_in_the_largest_unit_that_divides_it(seconds: float, text: str):
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "s",
        "-3s",
        "3 s",
        "3S",
        "3sec",
        "1m30s",
        "1e3s",
        "infs",
        "nans",
        "3s\n",
        "٣s",
        None,
        True,
        [],
        {},
        "9" * 17 + "s",
    ],
)
def test_what_is_no_duration_is_refused(text: object):
    with pytest.raises(ValueError, match=r"^a duration such as 400ms, 3s, 10m, 1h or 1d$"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("number", "example"),
    [(3, "write 3s"), (1.5, "write 1.5s"), (-3, "write 3s"), (float("nan"), "write 3s"), (float("inf"), "write 3s")],
)
def test_a_number_without_a_unit_is_refused_with_what_to_write(number: float, example: str):
    with pytest.raises(ValueError, match=f"the unit is missing, {example}$"):
        parse_duration(number)


def test_a_duration_has_a_bound():
    assert parse_duration("365d") == MAX_DURATION
    with pytest.raises(ValueError, match="at most 365d"):
        parse_duration("366d")


@given(
    number=st.decimals(min_value=0, max_value=MAX_DURATION / 86400, places=6) | st.integers(0, 365),
    unit=st.sampled_from(["ms", "s", "m", "h", "d"]),
)
def test_a_duration_survives_being_written(number: object, unit: str):
    seconds = parse_duration(f"{number}{unit}")
    assert parse_duration(format_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("512MiB", 512 * 1024**2),
        ("24GiB", 25769803776),
        ("1.5GiB", 1610612736),
        ("7B", 7),
        ("2TiB", 2 * 1024**4),
        (0, 0),
        (1000, 1000),
    ],
)
def test_a_size_is_read(text: object, size: int):
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("size", "text"), [(25769803776, "24GiB"), (512 * 1024**2, "512MiB"), (1000, "1000B"), (0, "0B"), (1536, "1536B")]
)
def test_a_size_is_written_in_the_largest_unit_that_divides_it(size: int, text: str):
    assert format_size(size) == text


@pytest.mark.parametrize(
    ("value", "match"),
    [
        ("24GB", "write 24GiB"),
        ("24G", "write 24GiB"),
        ("24 GiB", "write 24GiB"),
        ("24", "a size such as"),
        ("GiB", "a size such as"),
        ("-1GiB", "a size such as"),
        (1.5, "a size such as"),
        (float("nan"), "a size such as"),
        (True, "a size such as"),
        (None, "a size such as"),
        (-1, "0 or more"),
        ("0.3B", "whole bytes"),
        ("2000TiB", "at most 1024TiB"),
        (10**40, "at most 1024TiB"),
    ],
)
def test_what_is_no_size_is_refused(value: object, match: str):
    with pytest.raises(ValueError, match=match):
        parse_size(value)


@given(size=st.integers(0, MAX_SIZE))
def test_a_size_survives_being_written(size: int):
    assert parse_size(format_size(size)) == size
