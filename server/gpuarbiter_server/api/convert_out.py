"""Effects and views of the core as messages of the contract."""

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from google.protobuf import timestamp_pb2

from gpuarbiter.v1 import admin_pb2, gpu_arbiter_pb2, lease_pb2
from gpuarbiter_server.api.status import duration, number
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core.model import Holder, WorkContext
from gpuarbiter_server.core.views import BlockerView, GrantView, LeaseView
from gpuarbiter_server.store.history import HistoryEvent


def timestamp(unix_seconds: float) -> timestamp_pb2.Timestamp:
    """Unix seconds as a Timestamp."""
    seconds, nanos = divmod(round(unix_seconds * 1e9), 1_000_000_000)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=nanos)


class Converter:
    """Converts what the core says; knows the node's name and how core time relates to wall time."""

    def __init__(self, node: str, clock: Any) -> None:
        self.node = node
        self._clock = clock

    def wall_time(self, at: float) -> timestamp_pb2.Timestamp:
        """A time of the core for people."""
        return timestamp(time.time() - (self._clock() - at))

    def lease(self, view: LeaseView, *, show_id: bool = True) -> lease_pb2.Lease:
        """A lease; without its id and attributes where the reader may not see them."""
        context = view.context if show_id else replace(view.context, attributes=())
        message = lease_pb2.Lease(
            lease_id=view.lease_id if show_id else "",
            fencing_token=view.fencing_token,
            request_id=view.request_id,
            task_type=view.task_type,
            holder=holder(view.holder),
            gpus=[_grant(grant) for grant in view.gpus],
            sharing=number(view.sharing),
            priority=view.priority,
            state=number(view.state),
            queue_wait=duration(view.queue_wait),
            grant_time=self.wall_time(view.granted_at),
            visible_devices=_visible_devices(view.gpus),
            context=work_context(context),
            ttl=duration(view.ttl) if view.ttl else None,
            node=self.node,
            principal=view.principal,
        )
        if view.hold_remaining is not None:
            message.hold_remaining.CopyFrom(duration(view.hold_remaining))
        if view.ttl_remaining is not None:
            message.ttl_remaining.CopyFrom(duration(view.ttl_remaining))
        return message

    def acquire(self, effect: fx.Effect) -> gpu_arbiter_pb2.AcquireResponse:
        """An event of an acquire stream, other than a failure."""
        match effect:
            case fx.Granted():
                return gpu_arbiter_pb2.AcquireResponse(granted={"lease": self.lease(effect.lease)})
            case fx.Queued():
                return gpu_arbiter_pb2.AcquireResponse(queued=_queued(effect))
            case fx.Declined():
                return gpu_arbiter_pb2.AcquireResponse(declined=_declined(effect))
            case fx.YieldRequested():
                return gpu_arbiter_pb2.AcquireResponse(yield_requested=_yield_requested(effect))
            case fx.Ended():
                return gpu_arbiter_pb2.AcquireResponse(ended=_ended(effect))
        raise TypeError(f"{effect!r} is no event of an acquire stream")

    def answer(self, effect: fx.Effect) -> dict[str, Any]:
        """The one answer of a call, as the field of a SessionResponse and its message."""
        match effect:
            case fx.Released():
                return {"release": released(effect)}
            case fx.Renewed():
                return {"renew": renewed(effect)}
            case fx.Resized():
                return {"resize": self.resized(effect)}
            case fx.FenceChecked():
                return {"check_fence": fence_checked(effect)}
            case fx.Done():
                return {"report_work": gpu_arbiter_pb2.ReportWorkResponse()}
        raise TypeError(f"{effect!r} is no answer of a session's call")

    def resized(self, effect: fx.Resized) -> gpu_arbiter_pb2.ResizeResponse:
        """The answer to Resize."""
        return gpu_arbiter_pb2.ResizeResponse(lease=self.lease(effect.lease))


def holder(view: Holder) -> lease_pb2.Holder:
    """Who holds or asks; an attestation is never shown again."""
    return lease_pb2.Holder(
        client_id=view.client_id,
        pid=view.pid,
        namespace=view.namespace,
        pod=view.pod,
        container=view.container,
        pid_namespace=view.pid_namespace,
        process_start_ticks=view.process_start_ticks,
    )


_NOTHING = WorkContext()
# Only ever put into other messages, which copies it.
_NOTHING_MESSAGE = lease_pb2.WorkContext()


def work_context(view: WorkContext) -> lease_pb2.WorkContext:
    """Who and what the work belongs to."""
    if view == _NOTHING:
        return _NOTHING_MESSAGE
    return lease_pb2.WorkContext(
        job_id=view.job_id,
        session_id=view.session_id,
        utterance_index=view.utterance_index,
        stage=view.stage,
        attributes=dict(view.attributes),
    )


def released(effect: fx.Released) -> gpu_arbiter_pb2.ReleaseResponse:
    """The answer to Release."""
    return gpu_arbiter_pb2.ReleaseResponse(
        reason=number(effect.reason),
        held=duration(effect.held),
        already_ended=effect.already_ended,
        memory_verdict=number(effect.memory_verdict),
        memory_peak_bytes=effect.memory_peak_bytes,
    )


def renewed(effect: fx.Renewed) -> gpu_arbiter_pb2.RenewResponse:
    """The answer to Renew."""
    message = gpu_arbiter_pb2.RenewResponse()
    if effect.ttl_remaining is not None:
        message.ttl_remaining.CopyFrom(duration(effect.ttl_remaining))
    if effect.hold_remaining is not None:
        message.hold_remaining.CopyFrom(duration(effect.hold_remaining))
    if effect.pending_yield is not None:
        message.pending_yield.CopyFrom(_yield_requested(effect.pending_yield))
    return message


def fence_checked(effect: fx.FenceChecked) -> gpu_arbiter_pb2.CheckFenceResponse:
    """The answer to CheckFence."""
    return gpu_arbiter_pb2.CheckFenceResponse(current=effect.current, newest_token=effect.newest_token)


def history_event(event: HistoryEvent) -> admin_pb2.ListEventsResponse:
    """An entry of the audit trail."""
    recorded = event.recorded
    return admin_pb2.ListEventsResponse(
        sequence=event.sequence,
        event_time=timestamp(event.time),
        type=number(recorded.type),
        lease_id=recorded.lease_id,
        request_id=recorded.request_id,
        task_type=recorded.task_type,
        holder=holder(recorded.holder) if recorded.holder else None,
        gpus=recorded.gpus,
        fencing_token=recorded.fencing_token,
        detail=_detail(recorded),
    )


def _detail(recorded: fx.Recorded) -> str:
    """What is known of an event beyond its fields: why, and what people are told."""
    why = [reason.name for reason in (recorded.end_reason, recorded.yield_reason) if reason]
    return ": ".join(text for text in (" after ".join(why), recorded.detail) if text)


def _blockers(views: Iterable[BlockerView]) -> list[lease_pb2.Blocker]:
    return [
        lease_pb2.Blocker(
            lease_id=view.lease_id,
            task_type=view.task_type,
            client_id=view.client_id,
            gpu=view.gpu,
            held=duration(view.held),
        )
        for view in views
    ]


def _queued(effect: fx.Queued) -> gpu_arbiter_pb2.Queued:
    message = gpu_arbiter_pb2.Queued(
        request_id=effect.request_id,
        position=effect.position,
        queue_length=effect.queue_length,
        reason=number(effect.reason),
        detail=effect.detail,
        blockers=_blockers(effect.blockers),
    )
    if effect.estimated_wait is not None:
        message.estimated_wait.CopyFrom(duration(effect.estimated_wait))
    return message


def _declined(effect: fx.Declined) -> gpu_arbiter_pb2.Declined:
    message = gpu_arbiter_pb2.Declined(
        decision=number(effect.decision),
        reason=number(effect.reason),
        waited=duration(effect.waited),
        detail=effect.detail,
        blockers=_blockers(effect.blockers),
    )
    if effect.retry_after is not None:
        message.retry_after.CopyFrom(duration(effect.retry_after))
    return message


def _yield_requested(effect: fx.YieldRequested | fx.PendingYield) -> gpu_arbiter_pb2.YieldRequested:
    message = gpu_arbiter_pb2.YieldRequested(reason=number(effect.reason), detail=effect.detail)
    if effect.grace is not None:
        message.grace.CopyFrom(duration(effect.grace))
    return message


def _ended(effect: fx.Ended) -> gpu_arbiter_pb2.Ended:
    return gpu_arbiter_pb2.Ended(
        reason=number(effect.reason),
        held=duration(effect.held),
        detail=effect.detail,
        cause=number(effect.cause),
        memory_verdict=number(effect.memory_verdict),
        memory_peak_bytes=effect.memory_peak_bytes,
    )


def _grant(view: GrantView) -> lease_pb2.GpuGrant:
    return lease_pb2.GpuGrant(
        key=view.spec.key,
        uuid=view.spec.uuid,
        index=view.spec.index,
        declared_bytes=view.declared_bytes,
        committed_bytes=view.committed_bytes,
        observed_bytes=view.observed_bytes,
        observed_peak_bytes=view.observed_peak_bytes,
    )


def _visible_devices(grants: Iterable[GrantView]) -> str:
    """Ready for CUDA_VISIBLE_DEVICES: UUIDs, or indices where a UUID is not known."""
    specs = [grant.spec for grant in grants]
    if all(spec.uuid for spec in specs):
        return ",".join(spec.uuid for spec in specs)
    return ",".join(str(spec.index) for spec in specs)
