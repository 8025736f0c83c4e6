"""The long forms of tests: GPU_ARBITER_SOAK says that they are wanted, and for how many seconds."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

VARIABLE = "GPU_ARBITER_SOAK"


def wanted() -> bool:
    """Whether the long forms are to run, and their figures to be shown."""
    return bool(os.environ.get(VARIABLE))


def duration(short: float, long: float = 60.0) -> float:
    """Seconds: the short form's, or what the variable says (`long` when it says nothing sensible, such as 1)."""
    told = os.environ.get(VARIABLE)
    if not told:
        return short
    return float(told) if told.isdecimal() and int(told) > 1 else long


@contextmanager
def figures(capsys: pytest.CaptureFixture[str]) -> Iterator[None]:
    """What is printed in here is seen in the long forms; otherwise only when the test fails."""
    if wanted():
        with capsys.disabled():
            yield
    else:
        yield
