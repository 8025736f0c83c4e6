"""Errors of the core as statuses and failures: the right code, and details that arrive whatever they hold."""

import string
from urllib.parse import quote

import grpc
import pytest

from gpuarbiter.v1 import error_pb2
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter_server.api.status import CODES, to_failure, to_status
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason, Violation
from support.messages import acquire, in_seconds
from support.refusals import Refusal, refusal
from support.server import serving

# As the comments of the contract have it; all but UNSPECIFIED begin with their code.
CONTRACT = {
    "INVALID_REQUEST": "INVALID_ARGUMENT",
    "UNKNOWN_GPU": "NOT_FOUND",
    "UNKNOWN_LEASE": "NOT_FOUND",
    "INFEASIBLE": "FAILED_PRECONDITION",
    "QUEUE_FULL": "RESOURCE_EXHAUSTED",
    "CLIENT_LIMIT": "RESOURCE_EXHAUSTED",
    "WAIT_TIMEOUT": "RESOURCE_EXHAUSTED",
    "SHUTDOWN": "UNAVAILABLE",
    "STALE_TOKEN": "ABORTED",
    "REQUEST_ID_CONFLICT": "ALREADY_EXISTS",
    "NOT_PERMITTED": "PERMISSION_DENIED",
    "UNAUTHENTICATED": "UNAUTHENTICATED",
    "JOURNAL_UNAVAILABLE": "UNAVAILABLE",
    "GPU_UNAVAILABLE": "UNAVAILABLE",
    "LEASE_ENDED": "FAILED_PRECONDITION",
    "RESIZE_REFUSED": "FAILED_PRECONDITION",
    "SUPERSEDED": "ABORTED",
    "CANCELLED": "ABORTED",
}


def test_every_reason_of_the_contract_has_its_code():
    names = {name.removeprefix("ERROR_REASON_") for name in error_pb2.ErrorReason.keys()}  # noqa: SIM118 -- an EnumTypeWrapper
    assert {reason.name for reason in CODES} == names == {reason.name for reason in ErrorReason}
    assert {reason.name: code.name for reason, code in CODES.items() if reason} == CONTRACT


@pytest.mark.parametrize("reason", list(ErrorReason), ids=lambda reason: reason.name)
def test_a_failure_in_a_session_tells_what_a_status_does(reason: ErrorReason):
    error = ArbiterError(
        reason, "no", metadata={"a": "b"}, retry_after=1.5, violations=(Violation("holder.pid", "is wrong"),)
    )
    failure, status = to_failure(error), to_status(error)
    assert failure.code == status.code == CODES[reason].value[0]
    assert failure.message == status.message == "no"
    assert error_pb2.ErrorReason.Name(failure.reason) == f"ERROR_REASON_{reason.name}"
    assert dict(failure.metadata) == {"a": "b"}
    assert in_seconds(failure.retry_after) == 1.5
    assert [(v.field, v.description) for v in failure.violations] == [("holder.pid", "is wrong")]
    assert [detail.TypeName() for detail in status.details] == [
        "google.rpc.ErrorInfo",
        "google.rpc.RetryInfo",
        "google.rpc.BadRequest",
    ]


def test_what_does_not_apply_is_left_out():
    error = ArbiterError(ErrorReason.UNKNOWN_LEASE, "no lease")
    assert [detail.TypeName() for detail in to_status(error).details] == ["google.rpc.ErrorInfo"]
    assert not to_failure(error).HasField("retry_after")


class Refusing:
    """Stands in for a core that refuses with this error."""

    def __init__(self, error: ArbiterError) -> None:
        self.error = error

    async def ask(self, _make: object) -> None:
        raise self.error


async def over_the_wire(error: ArbiterError, monkeypatch: pytest.MonkeyPatch) -> Refusal:
    async with serving() as arbiter:
        monkeypatch.setattr(arbiter.runtime, "ask", Refusing(error).ask)
        return await refusal(arbiter.stub.Release(pb.ReleaseRequest(lease_id="x")))


@pytest.mark.parametrize("reason", list(ErrorReason), ids=lambda reason: reason.name)
async def test_the_details_of_every_reason_arrive(reason: ErrorReason, monkeypatch: pytest.MonkeyPatch):
    error = ArbiterError(reason, f"it is {reason.name}", metadata={"key": "value"}, retry_after=0.25)
    answer = await over_the_wire(error, monkeypatch)
    assert (answer.code, answer.message) == (CODES[reason], f"it is {reason.name}")
    assert (answer.reason, answer.domain) == (reason.name, "gpuarbiter")
    assert (answer.metadata, answer.retry_after) == ({"key": "value"}, 0.25)


WIDE = "\U0001f4a9"


LONG_ERRORS = pytest.mark.parametrize(
    "error",
    [
        ArbiterError(ErrorReason.QUEUE_FULL, WIDE * 5000, metadata={"holder": WIDE * 5000}),
        ArbiterError(ErrorReason.QUEUE_FULL, "x" * 50_000, metadata={f"key{i}" * 50: "y" * 5000 for i in range(50)}),
        ArbiterError(
            ErrorReason.INVALID_REQUEST,
            "ä" * 9000,
            violations=tuple(Violation(WIDE * 900, "ü" * 900) for _ in range(99)),
        ),
    ],
    ids=["wide", "many facts", "many violations"],
)


@LONG_ERRORS
def test_a_status_stays_well_below_what_gives_grpc_pause(error: ArbiterError):
    # Beyond 8 KiB of trailers a status arrives by chance, beyond 16 KiB never.
    status = to_status(error)
    on_the_wire = len(quote(status.message, safe=string.printable)) + 4 / 3 * status.ByteSize()
    assert on_the_wire <= 2048 + 4 / 3 * 3800


@LONG_ERRORS
async def test_details_arrive_however_much_there_is_to_tell(error: ArbiterError, monkeypatch: pytest.MonkeyPatch):
    answer = await over_the_wire(error, monkeypatch)
    assert answer.code is CODES[error.reason]
    assert answer.reason == error.reason.name
    assert error.message.startswith(answer.message)
    assert len(answer.message) > 50
    for key, value in (answer.metadata or {}).items():
        assert error.metadata[key].startswith(value)
    for field, description in (answer.violations or {}).items():
        assert (WIDE * 900).startswith(field)
        assert description
    if error.violations:
        assert answer.violations
    else:
        assert answer.metadata


async def test_the_longest_names_do_not_keep_a_refusal_from_arriving():
    client = WIDE * 128
    async with serving("queue_limit=0", gpus=8) as arbiter:
        for _ in range(8):
            await arbiter.granted(acquire(client=client))
        answer = await refusal(arbiter.stub.Acquire(acquire(client="small", task_type="x" * 64)).read())
        assert (answer.code, answer.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert answer.metadata is not None
        assert answer.metadata["holder"] == client[: len(answer.metadata["holder"])]
        assert answer.retry_after is not None
