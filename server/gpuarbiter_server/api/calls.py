"""Requests of the contract as events of the core: one function for each, for RPCs and sessions alike."""

from dataclasses import dataclass

from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter_server.api import convert_in
from gpuarbiter_server.api.trace_context import TraceContext
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.events import Call, Caller
from gpuarbiter_server.core.model import Holder, Sharing


@dataclass(frozen=True, slots=True)
class Intake:
    """Makes events of checked requests; `prove` says whose process a holder's is."""

    prove: convert_in.Prove

    def holder(self, message: pb.AcquireRequest | pb.ReportWorkRequest | pb.SessionOpen) -> Holder:
        """The holder that a message names."""
        return convert_in.holder(message.holder, self.prove)

    def acquire(
        self, call: Call, message: pb.AcquireRequest, who: Holder, principal: str, trace: TraceContext
    ) -> ev.Acquire:
        """Acquire."""
        return ev.Acquire(call, convert_in.acquire_request(message, who, principal, trace))

    def release(self, call: Call, message: pb.ReleaseRequest, caller: Caller) -> ev.Release:
        """Release."""
        report = convert_in.work_report(message.report) if message.HasField("report") else None
        return ev.Release(call, caller, message.lease_id, message.request_id, message.fencing_token, report)

    def renew(self, call: Call, message: pb.RenewRequest, caller: Caller) -> ev.Renew:
        """Renew."""
        extend = convert_in.optional_seconds(message, "extend_hold")
        return ev.Renew(call, caller, message.lease_id, message.fencing_token, extend)

    def resize(self, call: Call, message: pb.ResizeRequest, caller: Caller) -> ev.Resize:
        """Resize."""
        memory = message.memory_bytes if message.HasField("memory_bytes") else None
        return ev.Resize(call, caller, message.lease_id, message.fencing_token, memory, Sharing(message.sharing))

    def check_fence(self, call: Call, message: pb.CheckFenceRequest, _caller: Caller) -> ev.CheckFence:
        """CheckFence."""
        return ev.CheckFence(call, message.gpu, message.fencing_token)

    def report_work(self, call: Call, message: pb.ReportWorkRequest, _caller: Caller) -> ev.ReportWork:
        """ReportWork."""
        return ev.ReportWork(
            call,
            message.task_type,
            self.holder(message),
            convert_in.work_report(message.report),
            convert_in.work_context(message.context),
        )
