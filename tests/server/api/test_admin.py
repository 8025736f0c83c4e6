"""The operator's calls."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from google.protobuf.timestamp_pb2 import Timestamp

from gpuarbiter.v1 import admin_pb2 as admin
from gpuarbiter.v1 import lease_pb2
from gpuarbiter_server.api import admin as admin_module
from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.events import Caller
from gpuarbiter_server.core.model import EventType
from support.messages import acquire, in_seconds, release, seconds
from support.refusals import refusal
from support.server import InProcess, rest_of, serving

# -- Drain, Resume, Revoke --


async def test_a_drained_gpu_grants_nothing_until_it_is_resumed():
    async with serving(gpus=2) as arbiter:
        answer = await arbiter.admin.Drain(admin.DrainRequest(gpus=["0"], reason="new fan"))
        assert answer.leases_left == 0
        cordoned = [gpu.cordoned for gpu in (await arbiter.snapshot()).gpus]
        assert cordoned == [True, False]
        waiting, told = await arbiter.queued(acquire(gpu={"candidates": ["gpu:0"]}, max_wait=60))
        assert told.reason == lease_pb2.WAIT_REASON_DRAINING
        await arbiter.admin.Resume(admin.ResumeRequest(gpus=["GPU-00000000"]))
        assert (await waiting.read()).HasField("granted")


async def test_a_drain_with_grace_asks_holders_to_yield_and_revokes_them():
    async with serving(gpus=2) as arbiter:
        call, _ = await arbiter.granted(acquire(max_hold=0))
        answer = await arbiter.admin.Drain(admin.DrainRequest(all=True, grace=seconds(10)))
        assert answer.leases_left == 1
        asked = (await call.read()).yield_requested
        assert (asked.reason, in_seconds(asked.grace)) == (lease_pb2.YIELD_REASON_DRAINING, 10)
        await arbiter.advance(10.0)
        (ended,) = await rest_of(call)
        assert ended.ended.reason == lease_pb2.END_REASON_REVOKED
        assert ended.ended.cause == lease_pb2.YIELD_REASON_DRAINING
        assert (await arbiter.snapshot()).draining
        await arbiter.admin.Resume(admin.ResumeRequest(all=True))
        assert not (await arbiter.snapshot()).draining


@pytest.mark.parametrize("make", [admin.DrainRequest, admin.ResumeRequest])
async def test_the_gpus_or_all_are_named_not_both_nor_none(make: Any):
    async with serving() as arbiter:
        method = arbiter.admin.Drain if make is admin.DrainRequest else arbiter.admin.Resume
        for request in (make(), make(gpus=["gpu:0"], all=True)):
            assert (await refusal(method(request))).fields == {"gpus"}
        answer = await refusal(method(make(gpus=["gpu:0", "gpu:9"])))
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_GPU")
        assert not (await arbiter.snapshot()).gpus[0].cordoned


async def test_a_lease_is_revoked_at_once_without_grace():
    async with serving() as arbiter:
        call, lease = await arbiter.granted(acquire())
        request = admin.RevokeRequest(lease_id=lease.lease_id, reason="wrong GPU")
        assert await arbiter.admin.Revoke(request) == admin.RevokeResponse()
        (ended,) = await rest_of(call)
        assert (ended.ended.reason, ended.ended.cause) == (
            lease_pb2.END_REASON_OPERATOR,
            lease_pb2.YIELD_REASON_OPERATOR,
        )
        assert ended.ended.detail == "wrong GPU"
        assert await arbiter.admin.Revoke(request) == admin.RevokeResponse(), "what has ended is fine"
        answer = await refusal(arbiter.admin.Revoke(admin.RevokeRequest(lease_id="nonsense")))
        assert (answer.code, answer.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_LEASE")


async def test_without_the_admin_role_nothing_is_permitted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(admin_module, "caller_of", lambda _: Caller("someone", admin=False))
    async with serving() as arbiter:
        for name in ("Drain", "Resume", "Revoke", "GetConfig", "UpdateConfig", "ListEvents"):
            call = getattr(arbiter.admin, name)(getattr(admin, f"{name}Request")())
            answer = await refusal(call.read() if name == "ListEvents" else call)
            assert (answer.code, answer.reason) == (grpc.StatusCode.PERMISSION_DENIED, "NOT_PERMITTED"), name


# -- the configuration --


async def config(arbiter: InProcess) -> tuple[dict[str, Any], int]:
    answer = await arbiter.admin.GetConfig(admin.GetConfigRequest())
    return yaml.safe_load(answer.config_yaml), answer.revision


async def test_the_configuration_in_force_can_be_seen():
    async with serving("queue_limit=3", "policies.ASR.priority=90") as arbiter:
        shown, revision = await config(arbiter)
        assert (shown["queue_limit"], shown["policies"]["ASR"]["priority"], revision) == (3, 90, 1)


async def test_a_change_takes_effect_at_once_and_is_counted():
    async with serving() as arbiter:
        request = admin.UpdateConfigRequest(patch_yaml="{queue_limit: 0, policies: {NMT: {priority: 80}}}", revision=1)
        answer = await arbiter.admin.UpdateConfig(request)
        assert (answer.revision, list(answer.restart_needed)) == (2, [])
        assert yaml.safe_load(answer.config_yaml) == (await config(arbiter))[0]
        assert (await config(arbiter))[0]["policies"]["NMT"] == {"priority": 80}
        _, lease = await arbiter.granted(acquire(task_type="NMT"))
        assert lease.priority == 80
        assert (await refusal(arbiter.stub.Acquire(acquire()).read())).reason == "QUEUE_FULL"
        (updated,) = [event for event in await arbiter.events() if event.type == admin.EVENT_TYPE_CONFIG_UPDATED]
        assert updated.detail == "revision 2"


async def test_null_gives_a_key_its_default_back():
    async with serving("queue_limit=3") as arbiter:
        await arbiter.admin.UpdateConfig(admin.UpdateConfigRequest(patch_yaml="queue_limit: null"))
        assert (await config(arbiter))[0]["queue_limit"] == 8


async def test_what_takes_effect_later_is_named():
    async with serving() as arbiter:
        request = admin.UpdateConfigRequest(patch_yaml="{sampler: {interval: 1s}, queue_limit: 9}")
        answer = await arbiter.admin.UpdateConfig(request)
        assert list(answer.restart_needed) == ["sampler.interval"]


async def test_a_dry_run_changes_nothing():
    async with serving() as arbiter:
        before = await config(arbiter)
        answer = await arbiter.admin.UpdateConfig(admin.UpdateConfigRequest(patch_yaml="queue_limit: 0", dry_run=True))
        assert (yaml.safe_load(answer.config_yaml)["queue_limit"], answer.revision) == (0, 1)
        assert await config(arbiter) == before
        assert await arbiter.events() == []


@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_change_of_what_has_moved_on_is_refused(dry_run: bool):
    async with serving() as arbiter:
        for stale in (0, 2, 2**64 - 1):
            request = admin.UpdateConfigRequest(patch_yaml="queue_limit: 0", revision=stale, dry_run=dry_run)
            answer = await refusal(arbiter.admin.UpdateConfig(request))
            assert (answer.code, answer.metadata) == (grpc.StatusCode.ABORTED, {"revision": "1"})
        assert (await config(arbiter))[0]["queue_limit"] == 8


@pytest.mark.parametrize(
    ("patch", "fields"),
    [
        ("queue_limt: 1", {"patch_yaml:queue_limt"}),
        ("{queue_limit: -1, aging: soon}", {"patch_yaml:queue_limit", "patch_yaml:aging"}),
        ("policies: {ASR: {priority: 101}}", {"patch_yaml:policies.ASR.priority"}),
        ("policies: {ASR: {priority: 90, max_priority: 80}}", {"patch_yaml:policies.ASR.priority"}),
        ("[", {"patch_yaml:"}),
        ("just a text", {"patch_yaml:"}),
        ("a: &x [*x]", {"patch_yaml:"}),
        ("x" * 60_000 + ": 1", None),
        ("".join(f"k{i}: 1\n" for i in range(2000)), None),
    ],
    ids=["unknown", "two", "nested", "together", "syntax", "no mapping", "alias", "long key", "many"],
)
async def test_a_bad_change_is_refused_as_a_whole_and_named(patch: str, fields: set[str] | None):
    async with serving() as arbiter:
        before = await config(arbiter)
        answer = await refusal(arbiter.admin.UpdateConfig(admin.UpdateConfigRequest(patch_yaml=patch)))
        assert (answer.code, answer.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
        if fields is None:
            assert answer.violations
        else:
            assert answer.fields == fields
        assert await config(arbiter) == before
        assert await arbiter.events() == []


async def test_a_long_change_holds_nobody_up():
    # Two seconds of YAML, here.
    patch = "".join(f"k{i}: {{priority: {i}}}\n" for i in range(2500))
    async with serving() as arbiter:
        update = asyncio.ensure_future(refusal(arbiter.admin.UpdateConfig(admin.UpdateConfigRequest(patch_yaml=patch))))
        served = 0
        while not update.done():
            _, lease = await arbiter.granted(acquire())
            await arbiter.stub.Release(release(lease))
            served += 1
        assert served > 5
        assert (await update).reason == "INVALID_REQUEST"


async def test_of_several_changes_at_once_each_builds_on_the_one_before():
    async with serving() as arbiter:
        patches = [f"policies: {{T{number}: {{priority: {number}}}}}" for number in range(8)]
        updates = [arbiter.admin.UpdateConfig(admin.UpdateConfigRequest(patch_yaml=patch)) for patch in patches]
        answers = await asyncio.gather(*updates)
        assert sorted(answer.revision for answer in answers) == list(range(2, 10))
        shown, _ = await config(arbiter)
        assert {f"T{number}": {"priority": number} for number in range(8)}.items() <= shown["policies"].items()


async def test_a_password_is_masked_and_its_mask_changes_nothing():
    async with serving("analysis.prometheus.url=http://user:hunter2@prometheus:9090") as arbiter:
        shown, _ = await config(arbiter)
        assert shown["analysis"]["prometheus"]["url"] == "http://…@prometheus:9090"
        whole = yaml.safe_dump(shown | {"queue_limit": 5}, allow_unicode=True)
        answer = await arbiter.admin.UpdateConfig(admin.UpdateConfigRequest(patch_yaml=whole))
        assert "hunter2" not in answer.config_yaml
        assert list(answer.restart_needed) == []
        assert arbiter.live_config.config.analysis.prometheus.url == "http://user:hunter2@prometheus:9090"


async def test_of_two_changes_of_one_revision_one_is_refused():
    async with serving() as arbiter:
        requests = [admin.UpdateConfigRequest(patch_yaml=f"queue_limit: {number}", revision=1) for number in (3, 4)]
        calls = [arbiter.admin.UpdateConfig(request) for request in requests]
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert sorted(isinstance(outcome, grpc.RpcError) for outcome in outcomes) == [False, True]
        assert (await config(arbiter))[1] == 2


async def test_a_change_that_its_caller_gave_up_may_come_or_not_but_harms_nothing():
    async with serving() as arbiter:
        for _ in range(10):
            call = arbiter.admin.UpdateConfig(admin.UpdateConfigRequest(patch_yaml="queue_limit: 4"))
            await asyncio.sleep(0.001)
            call.cancel()
        answer = await arbiter.admin.UpdateConfig(admin.UpdateConfigRequest(patch_yaml="queue_limit: 5"))
        assert (await config(arbiter))[0]["queue_limit"] == 5
        assert 2 <= answer.revision <= 12


# -- the audit trail --


def types(events: list[admin.ListEventsResponse]) -> list[str]:
    return [admin.EventType.Name(event.type).removeprefix("EVENT_TYPE_") for event in events]


async def test_everything_that_happens_to_a_lease_is_on_record():
    async with serving() as arbiter:
        call, lease = await arbiter.granted(acquire("r", client="first"))
        call.cancel()
        await arbiter.at_rest()
        _, again = await arbiter.granted(acquire("r", client="first"))
        await arbiter.stub.Release(release(again))
        events = await arbiter.events()
    assert types(events) == ["GRANTED", "DETACHED", "JOINED", "ENDED"]
    assert [event.sequence for event in events] == [1, 2, 3, 4]
    for event in events:
        assert (event.lease_id, event.request_id, event.task_type) == (lease.lease_id, "r", "ASR")
        assert (event.holder.client_id, list(event.gpus)) == ("first", ["gpu:0"])
        assert event.fencing_token == lease.fencing_token
    times = [event.event_time.ToNanoseconds() for event in events]
    assert times == sorted(times)


async def three_events(arbiter: InProcess) -> None:
    for number in range(3):
        await arbiter.admin.Drain(admin.DrainRequest(all=True, reason=f"reason {number}"))


async def test_the_trail_begins_where_it_is_asked_to_and_has_its_limit():
    async with serving() as arbiter:
        await three_events(arbiter)
        events = await arbiter.events()
        assert [event.detail for event in events] == ["reason 0", "reason 1", "reason 2"]
        assert [event.HasField("holder") for event in events] == [False] * 3
        for fields, expected in (
            ({"after_sequence": 1}, [2, 3]),
            ({"limit": 2}, [1, 2]),
            ({"after_sequence": 1, "limit": 1}, [2]),
            ({"after_sequence": 3}, []),
            ({"after_sequence": 2**64 - 1}, []),
            ({"since": events[1].event_time}, [2, 3]),
            ({"since": Timestamp(seconds=253_402_300_799)}, []),
            ({"since": Timestamp()}, [1, 2, 3]),
        ):
            assert [event.sequence for event in await arbiter.events(**fields)] == expected, fields


async def test_a_follower_gets_what_was_and_what_comes():
    async with serving() as arbiter:
        await three_events(arbiter)
        call = arbiter.admin.ListEvents(admin.ListEventsRequest(after_sequence=2, follow=True))
        limited = arbiter.admin.ListEvents(admin.ListEventsRequest(follow=True, limit=4))
        assert (await call.read()).sequence == 3
        assert [(await limited.read()).sequence for _ in range(3)] == [1, 2, 3]
        await arbiter.admin.Resume(admin.ResumeRequest(all=True))
        assert types([await call.read(), await limited.read()]) == ["RESUMED", "RESUMED"]
        assert await limited.read() is grpc.aio.EOF
        call.cancel()


async def test_the_trail_is_bounded():
    async with serving("history.max_events=2") as arbiter:
        await three_events(arbiter)
        assert [event.sequence for event in await arbiter.events()] == [2, 3]


async def test_the_trail_goes_on_after_a_restart(tmp_path: Path):
    for life in range(3):
        async with serving(history=tmp_path / "history.db") as arbiter:
            await three_events(arbiter)
            numbers = [event.sequence for event in await arbiter.events()]
            assert numbers == list(range(1, 3 * life + 4))
            call = arbiter.admin.ListEvents(admin.ListEventsRequest(after_sequence=3 * life + 2, follow=True))
            assert (await call.read()).sequence == 3 * life + 3
            call.cancel()


async def test_a_long_trail_is_told_to_the_end_and_beyond(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("gpuarbiter_server.store.history.MAX_IN_MEMORY", 500)
    async with serving(history=tmp_path / "history.db") as arbiter:
        for number in range(2000):
            arbiter.history.observe(Recorded(EventType.RENEWED, detail=f"event {number}"))
        call = arbiter.admin.ListEvents(admin.ListEventsRequest(follow=True))
        seen = [await call.read() for _ in range(2000)]
        assert [event.sequence for event in seen] == list(range(1, 2001))
        assert {event.detail for event in seen} == {f"event {number}" for number in range(2000)}
        await arbiter.admin.Drain(admin.DrainRequest(all=True, reason="the end"))
        assert (await call.read()).detail == "the end"
        call.cancel()
        assert [event.sequence for event in await arbiter.events(limit=2)] == [1, 2]
