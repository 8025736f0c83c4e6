"""Sizes and durations, as people write them."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuarbiter._units import format_bytes, format_duration, parse_bytes, parse_duration


@pytest.mark.parametrize(
    ("written", "size"),
    [
        (0, 0),
        (2**64 - 1, 2**64 - 1),
        ("0", 0),
        ("6442450944", 6 * 2**30),
        ("6GiB", 6 * 2**30),
        (" 512 MiB ", 512 * 2**20),
        ("1.5KiB", 1536),
        ("2TiB", 2 * 2**40),
        ("1.5GB", 1_500_000_000),
        ("7b", 7),
    ],
)
def test_sizes(written: int | str, size: int):
    assert parse_bytes(written) == size


@pytest.mark.parametrize(
    ("written", "kind", "message"),
    [
        ("6G", ValueError, "'G' is no unit"),
        ("", ValueError, "is not a size"),
        ("-1GiB", ValueError, "is not a size"),
        ("GiB", ValueError, "is not a size"),
        ("1 GiB 2", ValueError, "is not a size"),
        ("٣GiB", ValueError, "is not a size"),
        (-1, ValueError, "out of range"),
        (2**64, ValueError, "out of range"),
        ("99999999TiB", ValueError, "out of range"),
        (1.5, TypeError, "is not a size"),
        (True, TypeError, "is not a size"),
        (None, TypeError, "is not a size"),
    ],
)
def test_no_sizes(written: object, kind: type[Exception], message: str):
    with pytest.raises(kind, match=message) as caught:
        parse_bytes(written)  # type: ignore[arg-type]
    assert "512MiB" in str(caught.value), "it says what is allowed"


@pytest.mark.parametrize(
    ("written", "duration"),
    [
        (0, timedelta(0)),
        (3, timedelta(seconds=3)),
        (0.4, timedelta(milliseconds=400)),
        ("3", timedelta(seconds=3)),
        ("400ms", timedelta(milliseconds=400)),
        ("5us", timedelta(microseconds=5)),
        ("1.5s", timedelta(seconds=1.5)),
        ("10m", timedelta(minutes=10)),
        ("2h", timedelta(hours=2)),
        ("1d", timedelta(days=1)),
        (timedelta(seconds=9), timedelta(seconds=9)),
    ],
)
def test_durations(written: float | str | timedelta, duration: timedelta):
    assert parse_duration(written) == duration


@pytest.mark.parametrize(
    ("written", "kind", "message"),
    [
        ("3 weeks", ValueError, "'weeks' is no unit"),
        ("3M", ValueError, "'M' is no unit"),
        ("soon", ValueError, "is not a duration"),
        (-1, ValueError, "out of range"),
        (timedelta(seconds=-1), ValueError, "out of range"),
        (float("nan"), ValueError, "is not a duration"),
        (float("inf"), ValueError, "is not a duration"),
        ("9999999999d", ValueError, "out of range"),
        (False, TypeError, "is not a duration"),
        (None, TypeError, "is not a duration"),
    ],
)
def test_no_durations(written: object, kind: type[Exception], message: str):
    with pytest.raises(kind, match=message) as caught:
        parse_duration(written)  # type: ignore[arg-type]
    assert "400ms" in str(caught.value), "it says what is allowed"


@given(st.text())
def test_any_text_is_a_size_and_a_duration_or_a_value_error(text: str):
    for parse in (parse_bytes, parse_duration):
        said = ""
        try:
            parse(text)
        except ValueError as error:
            said = str(error)
        assert not said or repr(text) in said


@given(st.integers(0, 2**64 - 1))
def test_a_number_of_bytes_is_itself(size: int):
    assert parse_bytes(size) == parse_bytes(str(size)) == parse_bytes(f"{size}B") == size


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (6 * 2**30, "6.0 GiB"), (3 * 2**50, "3072.0 TiB")],
)
def test_sizes_for_people(size: int, text: str):
    assert format_bytes(size) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0s"), (9.94, "9.9s"), (12, "12s"), (185, "3m05s"), (8040, "2h14m"), (59.6, "1m00s")],
)
def test_durations_for_people(seconds: float, text: str):
    assert format_duration(timedelta(seconds=seconds)) == text
