"""Statuses and the error tree, without a connection."""

import pickle
from datetime import timedelta

import pytest
from google.protobuf.any_pb2 import Any as Packed
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

import gpuarbiter
from fakes.scripted_arbiter import seconds
from gpuarbiter._errors import BY_REASON
from gpuarbiter._reporting import report_of
from gpuarbiter._status import DETAILS_KEY, from_failure, from_status
from gpuarbiter.sim import SimulatedOutOfMemory
from gpuarbiter.v1 import error_pb2


def details(*messages: object, domain: str = "gpuarbiter", reason: str = "QUEUE_FULL") -> list[tuple[str, bytes]]:
    status = status_pb2.Status(code=8, message="m")
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain=domain))
    for message in messages:
        if isinstance(message, Packed):
            status.details.append(message)
        else:
            status.details.add().Pack(message)
    return [("x", "y"), (DETAILS_KEY, status.SerializeToString())]


def test_every_reason_of_the_contract_has_its_class():
    names = {name.removeprefix("ERROR_REASON_") for name in error_pb2.ErrorReason.keys()}  # noqa: SIM118 -- no dict
    assert BY_REASON.keys() == names - {"UNSPECIFIED"}
    assert all(issubclass(kind, gpuarbiter.ArbiterError) for kind in BY_REASON.values())


def test_a_reason_of_another_domain_is_not_ours():
    error = from_status("RESOURCE_EXHAUSTED", "m", details(domain="proxy"))
    assert type(error) is gpuarbiter.ArbiterError
    assert error.reason == ""


def test_details_that_are_not_known_are_passed_over():
    error = from_status("RESOURCE_EXHAUSTED", "m", details(error_details_pb2.Help()))
    assert type(error) is gpuarbiter.QueueFull


def test_a_detail_that_cannot_be_decoded_costs_only_itself():
    broken = Packed(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff")
    error = from_status("RESOURCE_EXHAUSTED", "m", details(broken))
    assert type(error) is gpuarbiter.QueueFull
    assert error.retry_after is None


@given(st.binary(), st.sampled_from(["UNAVAILABLE", "ABORTED", "OK", "NONSENSE"]), st.text())
def test_whatever_the_trailers_hold_an_error_comes_out(value: bytes, code: str, message: str):
    error = from_status(code, message, [(DETAILS_KEY, value), (DETAILS_KEY, "text")])
    assert isinstance(error, gpuarbiter.ArbiterError)
    assert error.code == code
    assert error.message == (message or f"the call ended {code}")


@pytest.mark.parametrize(
    ("code", "kind", "transient"),
    [
        ("UNAVAILABLE", gpuarbiter.ArbiterUnavailable, True),
        ("DEADLINE_EXCEEDED", gpuarbiter.ArbiterUnavailable, True),
        ("UNKNOWN", gpuarbiter.ArbiterUnavailable, True),
        ("INTERNAL", gpuarbiter.ArbiterUnavailable, True),
        ("CANCELLED", gpuarbiter.ArbiterUnavailable, True),
        ("UNAUTHENTICATED", gpuarbiter.Unauthenticated, False),
        ("UNIMPLEMENTED", gpuarbiter.ArbiterError, False),
    ],
)
def test_without_a_reason_the_code_decides(code: str, kind: type, transient: bool):
    error = from_status(code, "m")
    assert type(error) is kind
    assert error.transient is transient


def test_what_cannot_be_granted_just_now_is_transient():
    assert from_status("UNAVAILABLE", "m", details(reason="JOURNAL_UNAVAILABLE")).transient
    assert not from_status("RESOURCE_EXHAUSTED", "m", details()).transient


def test_a_failure_of_a_session_says_what_a_status_says():
    failure = error_pb2.Failure(
        code=8,
        message="full",
        reason=error_pb2.ERROR_REASON_QUEUE_FULL,
        metadata={"limit": "8"},
        retry_after=seconds(1.5),
        violations=[error_pb2.Failure.FieldViolation(field="gpu", description="no")],
    )
    error = from_failure(failure)
    assert type(error) is gpuarbiter.QueueFull
    assert (str(error), error.reason, error.code) == ("full (gpu: no)", "QUEUE_FULL", "RESOURCE_EXHAUSTED")
    assert (error.metadata, error.retry_after) == ({"limit": "8"}, timedelta(seconds=1.5))


def test_a_failure_that_says_little_is_an_error_all_the_same():
    error = from_failure(error_pb2.Failure(code=99))
    assert type(error) is gpuarbiter.ArbiterUnavailable
    assert (error.code, error.message, error.retry_after) == ("UNKNOWN", "the call ended UNKNOWN", None)


def test_a_lease_that_ended_is_a_lease_that_is_lost():
    assert issubclass(gpuarbiter.LeaseEnded, gpuarbiter.LeaseLost)


def test_errors_survive_a_process_pool():
    error = from_status("RESOURCE_EXHAUSTED", "m", details(error_details_pb2.RetryInfo(retry_delay={"seconds": 2})))
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is gpuarbiter.QueueFull
    assert (copy.reason, copy.retry_after, str(copy)) == ("QUEUE_FULL", timedelta(seconds=2), "m")


class OutOfMemoryError(RuntimeError):
    """Named as torch's."""


class CancelledError(Exception):
    """Named as those of asyncio and of futures."""


@pytest.mark.parametrize(
    ("error", "result"),
    [
        (None, "OK"),
        (SystemExit(0), "OK"),
        (SystemExit(), "OK"),
        (SystemExit(3), "FAILED"),
        (ValueError("x"), "FAILED"),
        (OutOfMemoryError(), "OUT_OF_MEMORY"),
        (SimulatedOutOfMemory(), "OUT_OF_MEMORY"),
        (CancelledError(), "CANCELLED"),
        (KeyboardInterrupt(), "CANCELLED"),
        (GeneratorExit(), "CANCELLED"),
    ],
)
def test_how_a_body_ended_is_how_its_work_turned_out(error: BaseException | None, result: str):
    report = report_of(error, timedelta(seconds=2))
    assert (report.result, report.device, report.duration) == (result, "GPU", timedelta(seconds=2))
