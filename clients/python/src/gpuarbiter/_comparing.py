"""Whether two results are the same, exactly or closely.

Law: arrays are compared by the library that made them, which is there then; nothing is imported for it. What
neither numpy nor torch made is compared as Python values: numbers, text, and sequences and mappings of them.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

RELATIVE = 1e-5
ABSOLUTE = 1e-8


def exact(one: Any, other: Any) -> bool:
    """Equal in every element; two arrays of another shape or type of element count by their values."""
    arrays = _arrays(one, other)
    if arrays is not None:
        return _same_shape(one, other) and arrays.equal(one, other)
    if _both(one, other, Mapping):
        return one.keys() == other.keys() and all(exact(one[key], other[key]) for key in one)
    if _listed(one, other):
        return len(one) == len(other) and all(map(exact, one, other))
    return bool(one == other)


def close(one: Any, other: Any, relative: float = RELATIVE, absolute: float = ABSOLUTE) -> bool:
    """Numbers apart by at most `absolute` plus `relative` times the second one, all else equal; NaN equals NaN."""
    arrays = _arrays(one, other)
    if arrays is not None:
        return _same_shape(one, other) and arrays.close(one, other, relative, absolute)
    if _both(one, other, Mapping):
        return one.keys() == other.keys() and all(close(one[key], other[key], relative, absolute) for key in one)
    if _listed(one, other):
        return len(one) == len(other) and all(close(a, b, relative, absolute) for a, b in zip(one, other, strict=True))
    if _numbers(one, other):
        return _near(complex(one), complex(other), relative, absolute)
    return bool(one == other)


def _near(one: complex, other: complex, relative: float, absolute: float) -> bool:
    if one == other:  # infinities, too
        return True
    if any(math.isnan(part) for part in (one.real, one.imag, other.real, other.imag)):
        return repr(one) == repr(other)
    apart = abs(one - other)
    return math.isfinite(apart) and apart <= absolute + relative * abs(other)


def _both(one: Any, other: Any, kind: type) -> bool:
    return isinstance(one, kind) and isinstance(other, kind)


def _listed(one: Any, other: Any) -> bool:
    text = (str, bytes, bytearray)
    return _both(one, other, Sequence) and not isinstance(one, text) and not isinstance(other, text)


def _numbers(one: Any, other: Any) -> bool:
    return all(isinstance(each, (int, float, complex)) and not isinstance(each, bool) for each in (one, other))


def _same_shape(one: Any, other: Any) -> bool:
    return tuple(getattr(one, "shape", ())) == tuple(getattr(other, "shape", ()))


def _arrays(one: Any, other: Any) -> "type[_Torch | _Numpy] | None":
    torch, numpy = sys.modules.get("torch"), sys.modules.get("numpy")
    if torch is not None and any(isinstance(each, torch.Tensor) for each in (one, other)):
        return _Torch
    if numpy is not None and any(isinstance(each, (numpy.ndarray, numpy.generic)) for each in (one, other)):
        return _Numpy
    return None


class _Numpy:
    @staticmethod
    def equal(one: Any, other: Any) -> bool:
        return bool(sys.modules["numpy"].array_equal(one, other))

    @staticmethod
    def close(one: Any, other: Any, relative: float, absolute: float) -> bool:
        return bool(sys.modules["numpy"].allclose(one, other, rtol=relative, atol=absolute, equal_nan=True))


class _Torch:
    """On the CPU: the two tensors may lie on different devices."""

    @staticmethod
    def _pair(one: Any, other: Any) -> tuple[Any, Any]:
        torch: Any = sys.modules["torch"]
        a, b = (torch.as_tensor(each).detach().cpu() for each in (one, other))
        kind = torch.promote_types(a.dtype, b.dtype)
        return a.to(kind), b.to(kind)

    @staticmethod
    def equal(one: Any, other: Any) -> bool:
        return bool(sys.modules["torch"].equal(*_Torch._pair(one, other)))

    @staticmethod
    def close(one: Any, other: Any, relative: float, absolute: float) -> bool:
        pair = _Torch._pair(one, other)
        return bool(sys.modules["torch"].allclose(*pair, rtol=relative, atol=absolute, equal_nan=True))
