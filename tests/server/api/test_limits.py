"""Nothing that a client sends gets past the table of limits, and nothing that is refused leaves a trace."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import Descriptor, MethodDescriptor

from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter_server.api.checks import check
from gpuarbiter_server.api.limit_table import LIMITS, REQUESTS
from gpuarbiter_server.core.errors import ArbiterError
from support.messages import acquire, holder, seconds
from support.refusals import refusal
from support.samples import SERVICES, Case, is_well_known, right, wrong
from support.server import InProcess, serving

METHODS = {method.name: (service.full_name, method) for service in SERVICES.values() for method in service.methods}
SESSION_CALLS = {field.name: field for field in pb.SessionRequest.DESCRIPTOR.oneofs_by_name["call"].fields}
# The parts of a oneof are sent in turn.
CHOICES = {"ReleaseRequest": ("lease_id", "request_id")}


def reachable() -> dict[str, Descriptor]:
    """Every message that a client can send, by its name."""
    found: dict[str, Descriptor] = {}

    def visit(descriptor: Descriptor) -> None:
        if descriptor.name not in found and not is_well_known(descriptor) and not descriptor.GetOptions().map_entry:
            found[descriptor.name] = descriptor
            for field in descriptor.fields:
                if field.message_type:
                    visit(field.message_type)

    for _, method in METHODS.values():
        visit(method.input_type)
    return found


def test_every_field_that_a_client_can_send_has_its_row_and_no_row_is_superfluous():
    expected = {name: {field.name for field in descriptor.fields} for name, descriptor in reachable().items()}
    assert {name: set(rows.fields) for name, rows in LIMITS.items()} == expected


def test_the_requests_are_those_of_the_services():
    assert set(REQUESTS) == {method.input_type.name for _, method in METHODS.values()}


def test_rules_name_fields_or_oneofs_of_their_message():
    for name, rows in LIMITS.items():
        descriptor = reachable()[name]
        for rule in rows.rules:
            assert rule.field in descriptor.fields_by_name or rule.field in descriptor.oneofs_by_name


@pytest.mark.parametrize("name", sorted(LIMITS))
def test_a_message_with_every_field_set_is_right(name: str):
    for choice in CHOICES.get(name, SESSION_CALLS if name == "SessionRequest" else ("",)):
        check(right(reachable()[name], choice))


# -- what the contract says in words, so that the table cannot be wrong on its own --

LONG = "x" * 65
CONTRACT = [
    (acquire("r" * 65), "request_id"),
    (acquire(task_type=LONG), "task_type"),
    (acquire(task_type="A B"), "task_type"),
    (acquire(task_type=""), "task_type"),
    (acquire(priority=101), "priority"),
    (acquire(priority=-1), "priority"),
    (acquire(max_wait=24 * 3600 + 0.001), "max_wait"),
    (acquire(max_wait=-0.001), "max_wait"),
    (acquire(client=""), "holder.client_id"),
    (acquire(client="c" * 129), "holder.client_id"),
    (acquire(gpu={"count": 65}), "gpu.count"),
    (acquire(gpu={"memory_bytes": 2**63}), "gpu.memory_bytes"),
    (acquire(sequence={"index": 1}), "sequence.group"),
    (acquire(sequence={"group": "g" * 129}), "sequence.group"),
    (acquire(context={"attributes": {f"k{i}": "v" for i in range(17)}}), "context.attributes"),
    (acquire(context={"attributes": {"k" * 65: "v"}}), "context.attributes[0]"),
    (acquire(context={"attributes": {"k": "v" * 257}}), "context.attributes[0]"),
    (acquire("r", detached=True), "ttl"),
    (acquire("r", detached=True, ttl=0), "ttl"),
    (acquire(detached=True, ttl=1), "request_id"),
    (pb.ReleaseRequest(), "target"),
    (pb.ReleaseRequest(fencing_token=7), "target"),
    (pb.RenewRequest(), "lease_id"),
    (pb.CheckFenceRequest(gpu="gpu:0"), "fencing_token"),
    (pb.CheckFenceRequest(fencing_token=1), "gpu"),
    (pb.ReportWorkRequest(task_type="ASR", holder=holder()), "report"),
    (pb.SnapshotRequest(min_interval=seconds(0.049)), "min_interval"),
    (pb.SessionRequest(call_id=1), "call"),
]


@pytest.mark.parametrize(("request_", "field"), CONTRACT, ids=[f"{m.DESCRIPTOR.name}.{f}" for m, f in CONTRACT])
def test_what_the_contract_forbids_is_refused(request_: Any, field: str):
    with pytest.raises(ArbiterError) as refused:
        check(request_)
    assert [violation.field for violation in refused.value.violations] == [field]


WITHIN = [
    acquire("r" * 64, priority=0, max_wait=24 * 3600, gpu={"count": 64, "memory_bytes": 2**63 - 1}),
    acquire(task_type="a.B_c-9" + "x" * 57, client="c" * 128, priority=100, max_wait=0, max_hold=0, ttl=0),
    acquire("r", detached=True, ttl=0.001),
    acquire(context={"attributes": {f"{i}" * 32: "line\nbreak" for i in range(10, 26)}}, sequence={"group": "g" * 128}),
    pb.SnapshotRequest(min_interval=seconds(0.05), max_tickets=0),
    pb.CheckFenceRequest(gpu="GPU-ü", fencing_token=2**64 - 1),
]


@pytest.mark.parametrize("request_", WITHIN, ids=[f"{i}-{m.DESCRIPTOR.name}" for i, m in enumerate(WITHIN)])
def test_what_lies_just_within_its_limits_is_taken(request_: Any):
    check(request_)


def test_in_a_session_the_holder_of_an_acquire_may_be_left_out():
    request = acquire()
    request.ClearField("holder")
    check(pb.SessionRequest(call_id=1, acquire=request))


# -- over the wire --


def caller(arbiter: InProcess, service: str, method: MethodDescriptor) -> Any:
    stub = arbiter.stub if service == "gpuarbiter.v1.GpuArbiter" else arbiter.admin
    return getattr(stub, method.name)


async def outcome(arbiter: InProcess, service: str, method: MethodDescriptor, message: Any) -> Any:
    """The refusal of a call that must be refused."""
    call = caller(arbiter, service, method)(message)
    return await refusal(call.read() if method.server_streaming else call)


def cases_of(descriptor: Descriptor) -> Iterator[Case]:
    for choice in CHOICES.get(descriptor.name, ("",)):
        yield from wrong(descriptor, choice)


UNARY_AND_STREAM = sorted(name for name, (_, method) in METHODS.items() if not method.client_streaming)


@pytest.mark.parametrize("name", UNARY_AND_STREAM)
async def test_each_wrong_field_is_named_and_nothing_changes(name: str):
    service, method = METHODS[name]
    mistaken = []
    async with serving(gpus=2) as arbiter:
        before = await arbiter.snapshot(), await arbiter.events()
        for case in cases_of(method.input_type):
            answer = await outcome(arbiter, service, method, case.message)
            refused = (answer.code, answer.reason, answer.domain)
            if refused != (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST", "gpuarbiter"):
                mistaken.append(f"{case}: {answer}")
            elif answer.fields != {case.field} or case.field not in answer.message:
                mistaken.append(f"{case}: names {answer.fields}")
        after = await arbiter.snapshot(), await arbiter.events()
        assert before[1] == after[1] == []
        assert before[0].revision == after[0].revision
        assert not arbiter.runtime._calls
    assert not mistaken, "\n".join(mistaken)


@pytest.mark.parametrize("kind", sorted(set(SESSION_CALLS) - {"open"}))
async def test_each_wrong_field_is_named_inside_a_session_too(kind: str):
    field = SESSION_CALLS[kind]
    mistaken = []
    async with serving(gpus=2) as arbiter:
        call = arbiter.stub.Session()
        await call.write(pb.SessionRequest(call_id=1, open={"holder": holder()}))
        assert (await call.read()).HasField("opened")
        before = arbiter.runtime.revision
        for case in cases_of(field.message_type):
            if case.field == "holder" and kind == "acquire":
                continue  # The session's stands in.
            request = pb.SessionRequest(call_id=2)
            getattr(request, kind).CopyFrom(case.message)
            await call.write(request)
            answer = await call.read()
            failure = answer.failure
            if (answer.call_id, failure.code, failure.reason) != (2, 3, 1):
                mistaken.append(f"{case}: {answer}")
            elif [violation.field for violation in failure.violations] != [f"{kind}.{case.field}"]:
                mistaken.append(f"{case}: names {failure.violations}")
        assert arbiter.runtime.revision == before
        assert await arbiter.events() == []
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() is grpc.StatusCode.OK
    assert not mistaken, "\n".join(mistaken)


async def test_each_wrong_field_of_the_opening_ends_the_session():
    async with serving() as arbiter:
        for case in wrong(pb.SessionOpen.DESCRIPTOR):
            call = arbiter.stub.Session()
            await call.write(pb.SessionRequest(call_id=1, open=case.message))
            answer = await refusal(call.read())
            assert answer.code is grpc.StatusCode.INVALID_ARGUMENT, str(case)
            assert answer.fields == {f"open.{case.field}"}, str(case)
        assert await arbiter.events() == []


async def test_several_wrong_fields_are_named_at_once():
    async with serving() as arbiter:
        answer = await refusal(arbiter.stub.Acquire(acquire(client="", task_type="", priority=101)).read())
        assert answer.fields == {"task_type", "holder.client_id", "priority"}


async def test_more_wrong_fields_than_a_status_can_carry_are_cut_not_lost():
    async with serving() as arbiter:
        request = pb.SnapshotRequest(gpus=["\x00" * 128] * 64)
        answer = await refusal(arbiter.stub.Snapshot(request).read())
        assert answer.code is grpc.StatusCode.INVALID_ARGUMENT
        assert "gpus[0]" in answer.fields
