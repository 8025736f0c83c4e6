"""What counts as the same result, and how it is counted."""

import math
import random
import sys
import threading
from collections import OrderedDict
from typing import Any

import pytest

from gpuarbiter import ConsistencyCheck, ConsistencyCounts
from gpuarbiter._comparing import close, exact

NAN = float("nan")


@pytest.mark.parametrize(
    ("one", "other", "exactly", "closely"),
    [
        (1, 1.0, True, True),
        (1.0, 1.0 + 1e-9, False, True),
        (1.0, 1.001, False, False),
        (0.0, 1e-9, False, True),
        (1e300, 1e300 * (1 + 1e-9), False, True),
        (math.inf, math.inf, True, True),
        (math.inf, 1e308, False, False),
        (math.inf, -math.inf, False, False),
        (NAN, NAN, False, True),
        (NAN, 1.0, False, False),
        (1 + 1j, 1 + 1.000000001j, False, True),
        (True, 1, True, True),
        (True, 0.999999999, False, False),
        ("text", "text", True, True),
        ("text", "other", False, False),
        (b"ab", b"ab", True, True),
        ("ab", ["a", "b"], False, False),
        ([1, (2.0, "x")], [1, [2.0 + 1e-9, "x"]], False, True),
        ([1, 2], (1, 2), True, True),
        ([1, 2], [1, 2, 3], False, False),
        ({"a": [1.0]}, {"a": [1.0 + 1e-9]}, False, True),
        ({"a": 1}, OrderedDict(a=1), True, True),
        ({"a": 1}, {"b": 1}, False, False),
        ({"a": 1}, [1], False, False),
        (None, None, True, True),
        (None, 0, False, False),
    ],
)
def test_values(one: object, other: object, exactly: bool, closely: bool):
    assert exact(one, other) is exactly
    assert exact(other, one) is exactly
    assert close(one, other) is closely


def test_tolerances_are_the_callers():
    check = ConsistencyCheck(1, "allclose", absolute=0.5, relative=0)
    assert check.judge("ASR", [1.0], [1.4]) is None
    assert check.judge("ASR", [1.0], [1.6]) is not None
    relative = ConsistencyCheck(1, "allclose", absolute=0, relative=0.1)
    assert relative.judge("ASR", 100, 109) is None
    assert relative.judge("ASR", 100, 120) is not None


class Array:
    """As much of an array as is looked at: a list of numbers with a shape."""

    def __init__(self, *values: float, shape: tuple[int, ...] | None = None, device: str = "cpu") -> None:
        self.values = values
        self.shape = (len(values),) if shape is None else shape
        self.device = device
        self.dtype = "float32"

    def __eq__(self, other: object) -> bool:
        raise AssertionError("an array compares by its elements, which is no answer")

    __hash__ = None  # type: ignore[assignment]


class Numpy:
    """The few names of numpy that are used."""

    ndarray = Array
    generic = complex  # some type that nothing here is

    @staticmethod
    def array_equal(one: Any, other: Any) -> bool:
        return list(one.values) == list(other.values)

    @staticmethod
    def allclose(one: Any, other: Any, *, rtol: float, atol: float, equal_nan: bool) -> bool:
        assert equal_nan
        return all(abs(a - b) <= atol + rtol * abs(b) for a, b in zip(one.values, other.values, strict=True))


class Tensor(Array):
    def detach(self) -> "Tensor":
        return self

    def cpu(self) -> "Tensor":
        return Tensor(*self.values, shape=self.shape)

    def to(self, dtype: str) -> "Tensor":
        assert dtype == "promoted"
        return self


class Torch:
    """The few names of torch that are used."""

    Tensor = Tensor

    @staticmethod
    def as_tensor(value: Any) -> Any:
        return value if isinstance(value, Tensor) else Tensor(*value.values)

    @staticmethod
    def promote_types(_one: str, _other: str) -> str:
        return "promoted"

    @staticmethod
    def equal(one: Any, other: Any) -> bool:
        assert one.device == other.device == "cpu"
        return list(one.values) == list(other.values)

    @staticmethod
    def allclose(one: Any, other: Any, **tolerance: Any) -> bool:
        assert one.device == other.device == "cpu"
        return Numpy.allclose(one, other, **tolerance)


@pytest.mark.parametrize(("name", "library", "kind"), [("numpy", Numpy, Array), ("torch", Torch, Tensor)])
def test_arrays_are_compared_by_their_library(
    monkeypatch: pytest.MonkeyPatch, name: str, library: type, kind: type[Array]
):
    monkeypatch.setitem(sys.modules, name, library)  # type: ignore[arg-type]
    gpu = kind(1.0, 2.0, device="cuda:0")
    assert exact(gpu, kind(1.0, 2.0)) is True
    assert exact([{"x": gpu}], [{"x": kind(1.0, 2.5)}]) is False
    assert close([gpu], [kind(1.0, 2.0 + 1e-6)]) is True
    assert close(gpu, kind(1.0, 2.5)) is False
    assert exact(gpu, kind(1.0, 2.0, shape=(2, 1))) is False
    assert close(gpu, kind(1.0, 2.0, shape=(2, 1))) is False
    assert close(gpu, 1.0) is False


def test_neither_numpy_nor_torch_is_imported():
    loaded = set(sys.modules)
    exact([1.0], [2.0])
    close([1.0], [2.0])
    assert not {"numpy", "torch"} & (set(sys.modules) - loaded)


def test_the_rate_and_the_seed_decide_alone():
    def chosen(seed: int) -> list[bool]:
        check = ConsistencyCheck(0.3, random=random.Random(seed))
        return [check.due() for _ in range(200)]

    assert chosen(7) == chosen(7)
    assert chosen(7) != chosen(8)
    assert not any(ConsistencyCheck(0).due() for _ in range(50))
    assert all(ConsistencyCheck(1).due() for _ in range(50))


def test_counts_hold_across_threads():
    check = ConsistencyCheck(1)

    def work() -> None:
        for number in range(300):
            check.judge("ASR", number % 3, 0)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert check.counts == ConsistencyCounts(1200, 400, 800, 0)


@pytest.mark.parametrize("rate", [-0.1, 1.1, NAN])
def test_a_rate_is_a_fraction(rate: float):
    with pytest.raises(ValueError, match="a fraction from 0 to 1"):
        ConsistencyCheck(rate)


def test_a_comparison_is_known():
    with pytest.raises(ValueError, match='"exact", "allclose" or a function'):
        ConsistencyCheck(1, "about")  # type: ignore[arg-type]
