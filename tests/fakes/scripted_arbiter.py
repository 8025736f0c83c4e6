"""A real gRPC server on loopback that speaks the contract as a test's script tells it to.

An Acquire runs the next script (or, without one, grants and holds until it is released); the unary calls
answer from `answers`, and everything that arrives is kept for the test to look at. It decides nothing:
what it cannot show is whether an arbiter is right, only whether a client copes.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent import futures
from datetime import timedelta
from typing import Any, NoReturn

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from fakes.polling import until
from fakes.scripted_session import ScriptedSession
from gpuarbiter.v1 import admin_pb2, admin_pb2_grpc, lease_pb2, snapshot_pb2
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import gpu_arbiter_pb2_grpc as rpc

GATE_SECONDS = 20.0
CALLS = tuple(
    method.name
    for service in (
        pb.DESCRIPTOR.services_by_name["GpuArbiter"],
        admin_pb2.DESCRIPTOR.services_by_name["GpuArbiterAdmin"],
    )
    for method in service.methods
)
UUID = "GPU-00000000-0000-0000-0000-000000000001"


def seconds(value: float) -> Duration:
    """A Duration message."""
    message = Duration()
    message.FromTimedelta(timedelta(seconds=value))
    return message


def refuse(
    context: Any,
    code: grpc.StatusCode,
    reason: str,
    message: str = "no",
    *,
    metadata: dict[str, str] | None = None,
    retry_after: float | None = None,
    violations: tuple[tuple[str, str], ...] = (),
) -> NoReturn:
    """Ends a call as the contract says an arbiter does: a status with google.rpc details."""
    status = status_pb2.Status(code=code.value[0], message=message)
    details: list[Any] = [
        error_details_pb2.ErrorInfo(reason=reason, domain="gpuarbiter", metadata=metadata or {}),
    ]
    if retry_after is not None:
        details.append(error_details_pb2.RetryInfo(retry_delay=seconds(retry_after)))
    if violations:
        fields = [error_details_pb2.BadRequest.FieldViolation(field=name, description=why) for name, why in violations]
        details.append(error_details_pb2.BadRequest(field_violations=fields))
    for detail in details:
        status.details.add().Pack(detail)
    context.abort_with_status(rpc_status.to_status(status))
    raise AssertionError("abort_with_status raises")


class Call:
    """One Acquire, as its script sees it."""

    def __init__(self, arbiter: "ScriptedArbiter", request: pb.AcquireRequest, context: grpc.ServicerContext) -> None:
        self.arbiter = arbiter
        self.request = request
        self.context = context
        self.closed = threading.Event()
        context.add_callback(self.closed.set)

    def queued(self, position: int = 1, reason: str = "GPU_BUSY", **fields: Any) -> pb.AcquireResponse:
        """A place in the queue."""
        number = lease_pb2.WaitReason.Value(f"WAIT_REASON_{reason}")
        return pb.AcquireResponse(
            queued=pb.Queued(
                request_id=self.request.request_id, position=position, queue_length=position, reason=number, **fields
            )
        )

    def granted(self, **fields: Any) -> pb.AcquireResponse:
        """The grant of lease-1 on one GPU; `fields` of the Lease message take precedence."""
        ttl = self.request.ttl if self.request.HasField("ttl") else None
        gpu = lease_pb2.GpuGrant(key="gpu:0", uuid=UUID, declared_bytes=self.request.gpu.memory_bytes)
        facts: dict[str, Any] = {
            "lease_id": "lease-1",
            "fencing_token": 7,
            "request_id": self.request.request_id,
            "task_type": self.request.task_type,
            "holder": self.request.holder,
            "gpus": [gpu],
            "sharing": self.request.gpu.sharing or lease_pb2.SHARING_EXCLUSIVE,
            "visible_devices": UUID,
            "node": "node-1",
            "ttl": ttl,
            "ttl_remaining": ttl,
        }
        return pb.AcquireResponse(granted=pb.Granted(lease=lease_pb2.Lease(**facts | fields)))

    @staticmethod
    def yield_requested(reason: str = "PREEMPTED", grace: float | None = None) -> pb.AcquireResponse:
        """A request to give the GPU back."""
        number = lease_pb2.YieldReason.Value(f"YIELD_REASON_{reason}")
        message = pb.YieldRequested(reason=number, grace=None if grace is None else seconds(grace), detail="please")
        return pb.AcquireResponse(yield_requested=message)

    @staticmethod
    def ended(reason: str = "RELEASED", **fields: Any) -> pb.AcquireResponse:
        """The end of the lease."""
        number = lease_pb2.EndReason.Value(f"END_REASON_{reason}")
        return pb.AcquireResponse(ended=pb.Ended(reason=number, held=seconds(1.5), **fields))

    @staticmethod
    def declined(decision: str = "SKIP", reason: str = "GPU_BUSY", **fields: Any) -> pb.AcquireResponse:
        """No GPU."""
        return pb.AcquireResponse(
            declined=pb.Declined(
                decision=lease_pb2.BusyPolicy.Value(f"BUSY_POLICY_{decision}"),
                reason=lease_pb2.WaitReason.Value(f"WAIT_REASON_{reason}"),
                **fields,
            )
        )

    def wait(self, gate: str) -> bool:
        """Waits until the test opens the gate; False when the stream ended first."""
        opened = self.arbiter.gate(gate)
        for _ in range(int(GATE_SECONDS / 0.01)):
            if opened.wait(0.01):
                return True
            if self.closed.is_set():
                return False
        return False

    def hold(self) -> Iterator[pb.AcquireResponse]:
        """Until it is released (then it ends so), or the stream ends."""
        if self.wait(f"released {self.request.request_id}"):
            yield self.ended()


Script = Callable[[Call], Iterator[pb.AcquireResponse]]


def grant_and_hold(call: Call) -> Iterator[pb.AcquireResponse]:
    """What an idle arbiter does."""
    yield call.granted()
    yield from call.hold()


class ScriptedArbiter(rpc.GpuArbiterServicer):
    """The server; `start` and `stop` as often as needed, on one port."""

    def __init__(self) -> None:
        self.scripts: deque[Script] = deque()
        self._gates: dict[str, threading.Event] = {}
        self._gates_lock = threading.Lock()
        # Everything that arrived, by the name of the call: requests, and call metadata.
        self.seen: dict[str, list[Any]] = {name: [] for name in (*CALLS, "CancelAcquire")}
        self.metadata: list[dict[str, str | bytes]] = []
        self.arrived: list[str] = []
        self.answers: dict[str, Callable[[Any, Any], Any]] = {}
        self.refuse_session: Callable[[Any], Any] | None = None
        self.snapshots: list[snapshot_pb2.ArbiterSnapshot] = [snapshot_pb2.ArbiterSnapshot(revision=1)]
        self.calls: list[Call] = []
        self.port = 0
        self._server: grpc.Server | None = None

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self.port}"

    def start(self, address: str | None = None) -> None:
        """Listens, on the port of the last time (or on `address`)."""
        # As the arbiter, it lets clients ping every second.
        options = (("grpc.so_reuseport", 0), ("grpc.http2.min_ping_interval_without_data_ms", 500))
        self._server = grpc.server(futures.ThreadPoolExecutor(max_workers=32), options=options)
        rpc.add_GpuArbiterServicer_to_server(self, self._server)
        admin_pb2_grpc.add_GpuArbiterAdminServicer_to_server(ScriptedAdmin(self), self._server)
        port = self._server.add_insecure_port(address or self.address)
        self.port = self.port if address else port
        self._server.start()

    def stop(self) -> None:
        """Breaks every stream, and is gone."""
        if self._server is not None:
            self._server.stop(None).wait()
            self._server = None

    def releases(self, number: int) -> list[pb.ReleaseRequest]:
        """Those that arrived, once they are so many: who leaves a block does not wait for that."""
        until(lambda: len(self.seen["Release"]) >= number, f"for {number} releases")
        return list(self.seen["Release"])

    def gate(self, name: str) -> threading.Event:
        """A gate: the same one for a test and for the scripts that wait there, whoever comes first."""
        with self._gates_lock:
            return self._gates.setdefault(name, threading.Event())

    def open(self, gate: str) -> None:
        """Lets the scripts that wait there go on."""
        self.gate(gate).set()

    def note(self, name: str, request: Any, context: Any) -> None:
        """Keeps what arrived."""
        self.metadata.append(dict(context.invocation_metadata()))
        self.seen[name].append(request)

    def Acquire(self, request: pb.AcquireRequest, context: Any) -> Iterator[pb.AcquireResponse]:  # noqa: N802
        """Runs the next script."""
        script = self.scripts.popleft() if self.scripts else grant_and_hold
        call = Call(self, request, context)
        self.calls.append(call)
        self.note("Acquire", request, context)
        yield from script(call)

    def Session(self, requests: Iterator[pb.SessionRequest], context: Any) -> Iterator[pb.SessionResponse]:  # noqa: N802
        """All of it over one stream."""
        yield from ScriptedSession(self, requests, context).run()

    def Snapshot(self, request: pb.SnapshotRequest, context: Any) -> Iterator[pb.SnapshotResponse]:  # noqa: N802
        """Sends the snapshots, or, not asked to watch, the first."""
        self.note("Snapshot", request, context)
        for snapshot in self.snapshots if request.watch else self.snapshots[:1]:
            yield pb.SnapshotResponse(snapshot=snapshot)

    def _answer(self, name: str, request: Any, context: Any, otherwise: Callable[[], Any]) -> Any:
        self.note(name, request, context)
        answer = self.answers.get(name)
        return otherwise() if answer is None else answer(request, context)

    def Release(self, request: pb.ReleaseRequest, context: Any) -> Any:  # noqa: N802
        """Lets the holding script end."""

        def released() -> pb.ReleaseResponse:
            for call in self.calls:
                if request.lease_id or call.request.request_id == request.request_id:
                    self.open(f"released {call.request.request_id}")
                if not request.lease_id and call.request.request_id == request.request_id:
                    call.closed.set()
            return pb.ReleaseResponse(reason=lease_pb2.END_REASON_RELEASED, held=seconds(1.5))

        return self._answer("Release", request, context, released)

    def Renew(self, request: pb.RenewRequest, context: Any) -> Any:  # noqa: N802
        """Renews for a minute."""
        return self._answer("Renew", request, context, lambda: pb.RenewResponse(ttl_remaining=seconds(60)))

    def Resize(self, request: pb.ResizeRequest, context: Any) -> Any:  # noqa: N802
        """Answers with the lease as asked for."""
        gpu = lease_pb2.GpuGrant(key="gpu:0", uuid=UUID, committed_bytes=request.memory_bytes)
        lease = lease_pb2.Lease(
            lease_id=request.lease_id, fencing_token=request.fencing_token, gpus=[gpu], sharing=request.sharing
        )
        return self._answer("Resize", request, context, lambda: pb.ResizeResponse(lease=lease))

    def CheckFence(self, request: pb.CheckFenceRequest, context: Any) -> Any:  # noqa: N802
        """Knows the token 7."""
        return self._answer(
            "CheckFence",
            request,
            context,
            lambda: pb.CheckFenceResponse(current=request.fencing_token == 7, newest_token=7),
        )

    def ReportWork(self, request: pb.ReportWorkRequest, context: Any) -> Any:  # noqa: N802
        """Takes note."""
        return self._answer("ReportWork", request, context, pb.ReportWorkResponse)


class ScriptedAdmin(admin_pb2_grpc.GpuArbiterAdminServicer):
    """The operator's calls, over the same notes."""

    def __init__(self, arbiter: ScriptedArbiter) -> None:
        self._arbiter = arbiter

    def Drain(self, request: admin_pb2.DrainRequest, context: Any) -> Any:  # noqa: N802
        """Leaves two leases."""
        return self._arbiter._answer("Drain", request, context, lambda: admin_pb2.DrainResponse(leases_left=2))

    def Resume(self, request: admin_pb2.ResumeRequest, context: Any) -> Any:  # noqa: N802
        """Takes it back."""
        return self._arbiter._answer("Resume", request, context, admin_pb2.ResumeResponse)

    def Revoke(self, request: admin_pb2.RevokeRequest, context: Any) -> Any:  # noqa: N802
        """Revokes."""
        return self._arbiter._answer("Revoke", request, context, admin_pb2.RevokeResponse)

    def GetConfig(self, request: admin_pb2.GetConfigRequest, context: Any) -> Any:  # noqa: N802
        """A small configuration."""
        answer = admin_pb2.GetConfigResponse(config_yaml="enabled: true\n", revision=3)
        return self._arbiter._answer("GetConfig", request, context, lambda: answer)

    def UpdateConfig(self, request: admin_pb2.UpdateConfigRequest, context: Any) -> Any:  # noqa: N802
        """The patch, as the new configuration."""
        answer = admin_pb2.UpdateConfigResponse(config_yaml=request.patch_yaml, revision=4, restart_needed=["listen"])
        return self._arbiter._answer("UpdateConfig", request, context, lambda: answer)

    def ListEvents(  # noqa: N802
        self, request: admin_pb2.ListEventsRequest, context: Any
    ) -> Iterator[admin_pb2.ListEventsResponse]:
        """Two events."""
        self._arbiter.note("ListEvents", request, context)
        for sequence, kind in ((1, admin_pb2.EVENT_TYPE_QUEUED), (2, admin_pb2.EVENT_TYPE_GRANTED)):
            event = admin_pb2.ListEventsResponse(sequence=sequence, type=kind, task_type="ASR", gpus=["gpu:0"])
            event.event_time.FromSeconds(1_700_000_000)
            yield event
