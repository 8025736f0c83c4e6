"""A client that speaks the bare contract, so that tests see every message and every status as it comes."""

import asyncio
from collections.abc import Iterable
from typing import Any

import grpc

from e2e.harness.waiting import PATIENCE_SECONDS, eventually
from gpuarbiter.v1 import admin_pb2, admin_pb2_grpc, gpu_arbiter_pb2_grpc, lease_pb2, snapshot_pb2
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from support import messages
from support.refusals import Refusal, read

_EOF: Any = grpc.aio.EOF  # type: ignore[attr-defined]


def acquire_request(
    task_type: str = "TASK",
    client: str | lease_pb2.Holder = "test",
    *,
    memory: int = 0,
    shared: bool = False,
    count: int = 0,
    candidates: Iterable[str] = (),
    resident: int = 0,
    busy_policy: str = "UNSPECIFIED",
    sequence: tuple[str, int] | None = None,
    **fields: Any,
) -> pb.AcquireRequest:
    """An AcquireRequest in a line: exclusive, and waiting for half a minute unless told; times in seconds."""
    return messages.acquire(
        task_type=task_type,
        holder=messages.holder(client) if isinstance(client, str) else client,
        gpu=lease_pb2.GpuRequest(
            candidates=candidates,
            count=count,
            memory_bytes=memory,
            sharing=lease_pb2.SHARING_SHARED if shared else lease_pb2.SHARING_EXCLUSIVE,
            resident_bytes=resident,
        ),
        busy_policy=lease_pb2.BusyPolicy.Value(f"BUSY_POLICY_{busy_policy}"),
        sequence=None if sequence is None else lease_pb2.Sequence(group=sequence[0], index=sequence[1]),
        **{"max_wait": 30.0} | fields,
    )


class Acquiring:
    """The stream of one Acquire."""

    def __init__(self, call: Any) -> None:
        self._call = call

    async def read(self) -> pb.AcquireResponse | None:
        """The next message, or None at the end of the stream; raises grpc.RpcError for a status other than OK."""
        # Not wait_for, which on 3.11 can swallow a cancel: who is to end would go on.
        async with asyncio.timeout(PATIENCE_SECONDS):
            message = await self._call.read()
        return None if message is _EOF else message

    async def next(self, kind: str) -> Any:
        """The next message, which is to be of this kind."""
        message = await self.read()
        assert message is not None, f"the stream ended instead of {kind}"
        assert message.WhichOneof("event") == kind, message
        return getattr(message, kind)

    async def until(self, kind: str) -> Any:
        """The next message of this kind; Queued ones before it are passed over."""
        while True:
            message = await self.read()
            assert message is not None, f"the stream ended instead of {kind}"
            found = message.WhichOneof("event")
            if found == kind:
                return getattr(message, kind)
            assert found == "queued", message

    async def granted(self) -> lease_pb2.Lease:
        """The lease, however long it had to wait."""
        lease: lease_pb2.Lease = (await self.until("granted")).lease
        return lease

    async def waits_for(self, reason: str) -> pb.Queued:
        """A Queued with this reason; Queued ones with others before it are passed over."""
        number = lease_pb2.WaitReason.Value(f"WAIT_REASON_{reason}")
        while (queued := await self.next("queued")).reason != number:
            pass
        message: pb.Queued = queued
        return message

    async def refusal(self) -> Refusal:
        """How the stream fails; Queued messages before that are passed over."""
        try:
            while (message := await self.read()) is not None:
                assert message.WhichOneof("event") == "queued", message
        except grpc.RpcError as error:
            return read(error)
        raise AssertionError("the stream ended well")

    async def ends(self) -> None:
        """The stream is to end here, with OK."""
        assert await self.read() is None

    def cancel(self) -> None:
        self._call.cancel()


class Client:
    """Both services of one arbiter, over a connection of its own."""

    def __init__(self, target: str) -> None:
        self._channel = grpc.aio.insecure_channel(target, options=(("grpc.use_local_subchannel_pool", 1),))
        self._stub: Any = gpu_arbiter_pb2_grpc.GpuArbiterStub(self._channel)
        self._admin: Any = admin_pb2_grpc.GpuArbiterAdminStub(self._channel)

    def acquire(self, *positional: Any, **fields: Any) -> Acquiring:
        """Asks for a lease; the arguments are those of `acquire_request`."""
        return Acquiring(self._stub.Acquire(acquire_request(*positional, **fields)))

    def session(self) -> Any:
        """The bare stream of a session."""
        return self._stub.Session()

    async def release(self, lease: lease_pb2.Lease | None = None, **fields: Any) -> pb.ReleaseResponse:
        if lease is not None:
            fields = {"lease_id": lease.lease_id, "fencing_token": lease.fencing_token} | fields
        response: pb.ReleaseResponse = await self._stub.Release(pb.ReleaseRequest(**fields), timeout=PATIENCE_SECONDS)
        return response

    async def renew(self, lease: lease_pb2.Lease, extend_hold: float | None = None) -> pb.RenewResponse:
        request = pb.RenewRequest(
            lease_id=lease.lease_id,
            fencing_token=lease.fencing_token,
            extend_hold=None if extend_hold is None else messages.seconds(extend_hold),
        )
        response: pb.RenewResponse = await self._stub.Renew(request, timeout=PATIENCE_SECONDS)
        return response

    async def resize(self, lease: lease_pb2.Lease, **fields: Any) -> lease_pb2.Lease:
        request = pb.ResizeRequest(lease_id=lease.lease_id, fencing_token=lease.fencing_token, **fields)
        resized: lease_pb2.Lease = (await self._stub.Resize(request, timeout=PATIENCE_SECONDS)).lease
        return resized

    async def snapshot(self, **fields: Any) -> snapshot_pb2.ArbiterSnapshot:
        call = self._stub.Snapshot(pb.SnapshotRequest(**fields))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                message = await call.read()
        finally:
            call.cancel()
        snapshot: snapshot_pb2.ArbiterSnapshot = message.snapshot
        return snapshot

    async def gpu(self, key: str = "gpu:0", **fields: Any) -> snapshot_pb2.GpuSnapshot:
        """One GPU's part of the snapshot."""
        snapshot = await self.snapshot(gpus=[key], **fields)
        return snapshot.gpus[0]

    async def events(self, *types: str, lease_id: str = "") -> list[admin_pb2.ListEventsResponse]:
        """What the audit trail holds, of these types (or all) and of this lease (or any)."""
        numbers = [admin_pb2.EventType.Value(f"EVENT_TYPE_{name}") for name in types]
        return [
            event
            async for event in self._admin.ListEvents(admin_pb2.ListEventsRequest())
            if (not numbers or event.type in numbers) and (not lease_id or event.lease_id == lease_id)
        ]

    async def happens(self, kind: str, lease_id: str = "") -> admin_pb2.ListEventsResponse:
        """Waits for an event of this type."""
        events = await eventually(lambda: self.events(kind, lease_id=lease_id), f"an event {kind}")
        return events[-1]

    async def config(self) -> admin_pb2.GetConfigResponse:
        """The configuration in force."""
        response: admin_pb2.GetConfigResponse = await self._admin.GetConfig(admin_pb2.GetConfigRequest())
        return response

    async def close(self) -> None:
        await self._channel.close()


def event_names(events: Iterable[admin_pb2.ListEventsResponse]) -> list[str]:
    """The types of events, such as GRANTED."""
    return [admin_pb2.EventType.Name(event.type).removeprefix("EVENT_TYPE_") for event in events]
