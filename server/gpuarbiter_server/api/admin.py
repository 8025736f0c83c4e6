"""The service GpuArbiterAdmin, RPC by RPC."""

from collections.abc import Callable
from contextlib import aclosing
from typing import Any

from gpuarbiter.v1 import admin_pb2 as pb
from gpuarbiter_server.api import convert_in, convert_out
from gpuarbiter_server.api.auth import caller_of
from gpuarbiter_server.api.status import Context, abort
from gpuarbiter_server.api.wire import checked
from gpuarbiter_server.config import ConfigError
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason, Violation, invalid
from gpuarbiter_server.runtime.live_config import LiveConfig, StaleRevisionError
from gpuarbiter_server.runtime.runtime import Runtime
from gpuarbiter_server.store.history import History

Request = Any  # The message of the RPC, or an Undecodable.


class GpuArbiterAdminService:
    """Handlers of the RPCs; their names are those of the contract in snake case."""

    def __init__(self, runtime: Runtime, live_config: LiveConfig, history: History) -> None:
        self._runtime = runtime
        self._config = live_config
        self._history = history

    async def drain(self, message: Request, context: Context) -> pb.DrainResponse:
        """Cordons GPUs."""
        request: pb.DrainRequest = await _admitted(message, context)
        grace = convert_in.optional_seconds(request, "grace")
        answer = await self._ask(
            context, lambda call: ev.Drain(call, tuple(request.gpus), request.all, request.reason, grace)
        )
        return pb.DrainResponse(leases_left=answer.leases_left)

    async def resume(self, message: Request, context: Context) -> pb.ResumeResponse:
        """Takes a drain back."""
        request: pb.ResumeRequest = await _admitted(message, context)
        await self._ask(context, lambda call: ev.Resume(call, tuple(request.gpus), request.all))
        return pb.ResumeResponse()

    async def revoke(self, message: Request, context: Context) -> pb.RevokeResponse:
        """Ends a lease, after its grace."""
        request: pb.RevokeRequest = await _admitted(message, context)
        grace = convert_in.optional_seconds(request, "grace") or 0.0
        await self._ask(context, lambda call: ev.Revoke(call, request.lease_id, grace, request.reason))
        return pb.RevokeResponse()

    async def get_config(self, message: Request, context: Context) -> pb.GetConfigResponse:
        """The configuration in force."""
        await _admitted(message, context)
        config_yaml, revision = await self._config.shown()
        return pb.GetConfigResponse(config_yaml=config_yaml, revision=revision)

    async def update_config(self, message: Request, context: Context) -> pb.UpdateConfigResponse:
        """Checks and applies a change as a whole, or refuses it as a whole."""
        request: pb.UpdateConfigRequest = await _admitted(message, context)
        revision = request.revision if request.HasField("revision") else None
        try:
            update = await self._config.update(request.patch_yaml, revision=revision, dry_run=request.dry_run)
        except StaleRevisionError as error:
            facts = {"revision": str(self._config.revision)}
            await abort(context, ArbiterError(ErrorReason.STALE_TOKEN, str(error), metadata=facts))
        except ConfigError as error:
            violations = [Violation(f"patch_yaml:{p.key}", str(p)) for p in error.problems]
            await abort(context, invalid(*violations))
        return pb.UpdateConfigResponse(
            config_yaml=update.config_yaml, revision=update.revision, restart_needed=update.restart_needed
        )

    async def list_events(self, message: Request, context: Context) -> None:
        """The audit trail: what is kept, then, with follow, what is to come."""
        request: pb.ListEventsRequest = await _admitted(message, context)
        since = request.since.ToNanoseconds() / 1e9 if request.HasField("since") else 0.0
        read = self._history.follow if request.follow else self._history.after
        async with aclosing(read(request.after_sequence, since=since, limit=request.limit)) as events:
            async for event in events:
                await context.write(convert_out.history_event(event))

    async def _ask(self, context: Context, make: Callable[[int], ev.Event]) -> Any:
        try:
            return await self._runtime.ask(make)
        except ArbiterError as error:
            await abort(context, error)


async def _admitted(message: Request, context: Context) -> Any:
    """The request of an admin, within all limits; otherwise the call ends here."""
    if not caller_of(context).admin:
        await abort(context, ArbiterError(ErrorReason.NOT_PERMITTED, "this call needs the admin role"))
    try:
        return checked(message)
    except ArbiterError as error:
        await abort(context, error)
