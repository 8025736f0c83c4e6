"""What operators can ask of the arbiter; needs the admin role where roles are configured."""

from collections.abc import AsyncIterator, Iterable
from datetime import datetime

from gpuarbiter import _convert
from gpuarbiter._aio.connection import AsyncConnection
from gpuarbiter._units import Duration
from gpuarbiter.v1 import admin_pb2


class AsyncAdmin:
    """The operator's calls; `AsyncArbiter.admin`. Each raises ArbiterError when it fails."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def drain(
        self, gpus: Iterable[str] = (), *, all_gpus: bool = False, reason: str = "", grace: Duration | None = None
    ) -> int:
        """Cordons GPUs; with `grace`, their holders are asked to yield. How many leases are left there."""
        request = admin_pb2.DrainRequest(gpus=gpus, all=all_gpus, reason=reason, grace=_convert.duration(grace))
        reply = await self._connection.unary("Drain", request, admin=True)
        left: int = reply.leases_left
        return left

    async def resume(self, gpus: Iterable[str] = (), *, all_gpus: bool = False) -> None:
        """Takes a drain back."""
        await self._connection.unary("Resume", admin_pb2.ResumeRequest(gpus=gpus, all=all_gpus), admin=True)

    async def revoke(self, lease_id: str, *, grace: Duration | None = None, reason: str = "") -> None:
        """Asks the holder to yield, and ends the lease when the grace period is over."""
        request = admin_pb2.RevokeRequest(lease_id=lease_id, grace=_convert.duration(grace), reason=reason)
        await self._connection.unary("Revoke", request, admin=True)

    async def get_config(self) -> admin_pb2.GetConfigResponse:
        """The configuration in force, as YAML, and its revision."""
        reply: admin_pb2.GetConfigResponse = await self._connection.unary(
            "GetConfig", admin_pb2.GetConfigRequest(), admin=True
        )
        return reply

    async def update_config(
        self, patch_yaml: str, *, revision: int | None = None, dry_run: bool = False
    ) -> admin_pb2.UpdateConfigResponse:
        """Applies a YAML merge patch as a whole, or refuses it as a whole; `revision`: only if it is still that."""
        request = admin_pb2.UpdateConfigRequest(patch_yaml=patch_yaml, revision=revision, dry_run=dry_run)
        reply: admin_pb2.UpdateConfigResponse = await self._connection.unary("UpdateConfig", request, admin=True)
        return reply

    async def events(
        self, *, after_sequence: int = 0, since: datetime | None = None, follow: bool = False, limit: int = 0
    ) -> AsyncIterator[admin_pb2.ListEventsResponse]:
        """Past events, oldest first, and with `follow` the new ones as they happen."""
        request = admin_pb2.ListEventsRequest(after_sequence=after_sequence, since=since, follow=follow, limit=limit)
        stream = self._connection.stream("ListEvents", request, admin=True)
        try:
            while (event := await stream.read()) is not None:
                yield event
        finally:
            stream.cancel()
