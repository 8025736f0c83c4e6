"""Types of arguments; argparse turns an ArgumentTypeError into a line of usage."""

import argparse
from collections.abc import Callable
from datetime import timedelta
from typing import TypeVar

from gpuarbiter._units import parse_bytes, parse_duration

T = TypeVar("T")


def _checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    def kind(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return kind


size: Callable[[str], int] = _checked(parse_bytes)
duration: Callable[[str], timedelta] = _checked(parse_duration)


def _ratio(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"{text!r} is out of range; 0 to 1")
    return value


ratio: Callable[[str], float] = _checked(_ratio)
