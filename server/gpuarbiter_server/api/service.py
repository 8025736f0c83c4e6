"""The service GpuArbiter, RPC by RPC. Sessions have a module of their own."""

import asyncio
from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter_server.api import convert_in, convert_out
from gpuarbiter_server.api.acquiring import Outbox, carry
from gpuarbiter_server.api.auth import caller_of
from gpuarbiter_server.api.calls import Intake
from gpuarbiter_server.api.convert_out import Converter
from gpuarbiter_server.api.session import Session
from gpuarbiter_server.api.snapshots import Snapshots
from gpuarbiter_server.api.status import Context, abort
from gpuarbiter_server.api.trace_context import trace_context_of
from gpuarbiter_server.api.wire import Undecodable, checked
from gpuarbiter_server.core.errors import ArbiterError
from gpuarbiter_server.core.events import Call, Caller, Event
from gpuarbiter_server.runtime.about import About
from gpuarbiter_server.runtime.runtime import Runtime

_DEFAULT_INTERVAL = 0.25

Request = Any  # The message of the RPC, or an Undecodable.
Make = Callable[[Call, Any, Caller], Event]


class GpuArbiterService:
    """Handlers of the RPCs; their names are those of the contract in snake case."""

    def __init__(self, runtime: Runtime, intake: Intake, convert: Converter, about: About) -> None:
        self._runtime = runtime
        self._intake = intake
        self._convert = convert
        self._about = about
        self._snapshots = Snapshots(runtime, convert, about)

    async def acquire(self, message: Request, context: Context) -> None:
        """Asks for a lease and follows it to its end."""
        request = await _checked(message, context)
        outbox = Outbox()
        call = self._runtime.open(outbox.put)
        who = self._intake.holder(request)
        self._runtime.submit(
            self._intake.acquire(call, request, who, caller_of(context).principal, trace_context_of(context))
        )
        await carry(context, self._runtime, call, outbox, self._convert)

    async def release(self, message: Request, context: Context) -> pb.ReleaseResponse:
        """Ends a lease, or takes a waiting request back."""
        return convert_out.released(await self._ask(message, context, self._intake.release))

    async def renew(self, message: Request, context: Context) -> pb.RenewResponse:
        """Shows that the holder is alive."""
        return convert_out.renewed(await self._ask(message, context, self._intake.renew))

    async def resize(self, message: Request, context: Context) -> pb.ResizeResponse:
        """Changes what a lease has committed."""
        return self._convert.resized(await self._ask(message, context, self._intake.resize))

    async def check_fence(self, message: Request, context: Context) -> pb.CheckFenceResponse:
        """Whether a live lease on a GPU has a token."""
        return convert_out.fence_checked(await self._ask(message, context, self._intake.check_fence))

    async def report_work(self, message: Request, context: Context) -> pb.ReportWorkResponse:
        """Tells of work that had no lease."""
        await self._ask(message, context, self._intake.report_work)
        return pb.ReportWorkResponse()

    async def session(self, _requests: Any, context: Context) -> None:
        """Everything above over one stream."""
        await Session(context, self._runtime, self._intake, self._convert, self._about, caller_of(context)).run()

    async def snapshot(self, message: Request, context: Context) -> None:
        """The state of the arbiter, once or whenever it changes; a slow reader skips to the newest."""
        request: pb.SnapshotRequest = await _checked(message, context)
        interval = convert_in.optional_seconds(request, "min_interval") or _DEFAULT_INTERVAL
        wanted = self._snapshots.wanted(request, caller_of(context))
        seen: int | None = None
        while True:
            try:
                rendered = self._snapshots.render(wanted, after=seen)
            except ArbiterError as error:
                await abort(context, error)
            await context.write(rendered.message)
            if not request.watch:
                return
            seen = rendered.revision
            await asyncio.sleep(interval)
            await self._runtime.changed_since(seen)
            await self._snapshots.turn()

    async def _ask(self, message: Request, context: Context, make: Make) -> Any:
        """Has the core answer a unary call."""
        request = await _checked(message, context)
        caller = caller_of(context)
        try:
            return await self._runtime.ask(lambda call: make(call, request, caller))
        except ArbiterError as error:
            await abort(context, error)


async def _checked(message: "Message | Undecodable", context: Context) -> Any:
    """The request, within all limits; otherwise the call ends here."""
    try:
        return checked(message)
    except ArbiterError as error:
        await abort(context, error)
