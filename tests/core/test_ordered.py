"""The sorted list, against a plain one."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuarbiter_server.core import ordered
from gpuarbiter_server.core.ordered import OrderedList


def test_an_empty_list_has_no_first() -> None:
    entries: OrderedList[tuple[int, ...]] = OrderedList()
    assert len(entries) == 0
    assert list(entries) == []
    assert entries.rank((1,)) == 0
    with pytest.raises(IndexError):
        entries.first()


def test_what_is_not_there_cannot_be_removed() -> None:
    entries: OrderedList[tuple[int, ...]] = OrderedList()
    entries.add((2,))
    for missing in ((1,), (3,)):
        with pytest.raises(ValueError, match="not in the list"):
            entries.remove(missing)
    assert list(entries) == [(2,)]


@given(st.lists(st.integers(0, 40), max_size=60), st.randoms(use_true_random=False))
def test_it_is_a_sorted_list(numbers: list[int], chance: random.Random) -> None:
    bucket, ordered._BUCKET = ordered._BUCKET, 2
    try:
        entries: OrderedList[tuple[int, int]] = OrderedList()
        plain: list[tuple[int, int]] = []
        for arrival, number in enumerate(numbers):
            entries.add((number, arrival))
            plain = sorted([*plain, (number, arrival)])
            if chance.random() < 0.4:
                gone = chance.choice(plain)
                entries.remove(gone)
                plain.remove(gone)
            assert list(entries) == plain
            assert len(entries) == len(plain)
            assert [entries.rank(entry) for entry in plain] == list(range(len(plain)))
            assert entries.rank((chance.randrange(41), -1)) <= len(plain)
            assert not plain or entries.first() == plain[0]
    finally:
        ordered._BUCKET = bucket


def test_it_stays_sorted_over_many_buckets() -> None:
    entries: OrderedList[tuple[int]] = OrderedList()
    numbers = list(range(5000))
    random.Random(7).shuffle(numbers)
    for number in numbers:
        entries.add((number,))
    assert list(entries) == [(number,) for number in range(5000)]
    assert entries.rank((4321,)) == 4321
    for number in numbers[:4900]:
        entries.remove((number,))
    assert list(entries) == [(number,) for number in sorted(numbers[4900:])]
