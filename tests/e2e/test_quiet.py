"""Clients that die as their last answer is sent leave no traceback in the log."""

import logging
import sys

import pytest

from gpuarbiter_server.api import quiet

GRPC = logging.getLogger("grpc._cython.cygrpc")


class ExecuteBatchError(Exception):
    """As grpc.aio raises it, which has no public name for it."""


@pytest.fixture(autouse=True)
def hushed(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, GRPC.name)
    quiet.hush()
    yield
    GRPC.removeFilter(quiet._is_news)


def log(error: Exception) -> None:
    try:
        raise error
    except type(error):
        GRPC.error("raised in core by servicer method", exc_info=sys.exc_info())


def test_a_client_that_is_gone_is_no_news(caplog: pytest.LogCaptureFixture):
    log(ExecuteBatchError())
    assert not caplog.records


def test_unless_every_detail_is_wanted(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG, GRPC.name)
    log(ExecuteBatchError())
    assert len(caplog.records) == 1


def test_everything_else_is(caplog: pytest.LogCaptureFixture):
    log(ValueError("a defect of ours"))
    GRPC.error("without an exception")
    assert len(caplog.records) == 2
