"""The core speaks the contract's language: equal enums by value, and every reason of its own in words."""

from enum import IntEnum

import pytest
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

from gpuarbiter.v1 import admin_pb2, error_pb2, lease_pb2, snapshot_pb2
from gpuarbiter_server.core import explain, model
from gpuarbiter_server.core.errors import ErrorReason

PAIRS = [
    (model.BusyPolicy, lease_pb2.BusyPolicy, "BUSY_POLICY_"),
    (model.Sharing, lease_pb2.Sharing, "SHARING_"),
    (model.Placement, lease_pb2.Placement, "PLACEMENT_"),
    (model.WaitReason, lease_pb2.WaitReason, "WAIT_REASON_"),
    (model.YieldReason, lease_pb2.YieldReason, "YIELD_REASON_"),
    (model.EndReason, lease_pb2.EndReason, "END_REASON_"),
    (model.LeaseState, lease_pb2.LeaseState, "LEASE_STATE_"),
    (model.WorkResult, lease_pb2.WorkResult, "WORK_RESULT_"),
    (model.WorkDevice, lease_pb2.WorkDevice, "WORK_DEVICE_"),
    (model.MemoryVerdict, lease_pb2.MemoryVerdict, "MEMORY_VERDICT_"),
    (model.GpuHealth, snapshot_pb2.GpuHealth, "GPU_HEALTH_"),
    (model.Pressure, snapshot_pb2.Pressure, "PRESSURE_"),
    (model.EventType, admin_pb2.EventType, "EVENT_TYPE_"),
    (ErrorReason, error_pb2.ErrorReason, "ERROR_REASON_"),
]


@pytest.mark.parametrize(("ours", "theirs", "prefix"), PAIRS, ids=[ours.__name__ for ours, _, _ in PAIRS])
def test_enums_are_equal_by_name_and_value(ours: type[IntEnum], theirs: EnumTypeWrapper, prefix: str) -> None:
    assert {prefix + member.name: member.value for member in ours} == dict(theirs.items())


def test_every_enum_of_the_model_is_compared() -> None:
    compared = {ours for ours, _, _ in PAIRS}
    of_the_model = {thing for thing in vars(model).values() if isinstance(thing, type) and issubclass(thing, IntEnum)}
    assert of_the_model - {IntEnum} <= compared


def test_busy_policies_that_decline() -> None:
    assert [policy.name for policy in model.BusyPolicy if policy.declines] == ["SKIP", "FALLBACK_CPU"]


def test_every_reason_that_candidates_can_differ_in_has_words() -> None:
    assert set(explain._NEAREST_FIRST) <= set(explain._WORDS)
    assert all(explain.describe(reason, ()) == words for reason, words in explain._WORDS.items())
