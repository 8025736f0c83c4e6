"""One request under one lease.

Law: the application runs only with a lease (or, where its route says so, knowingly without), and the lease is held
until it has sent its answer or has ended, whichever is first. A client that goes while it waits is taken out of the
queue.
"""

import asyncio
import logging
from typing import Any

from gpuarbiter._aio import backend
from gpuarbiter._aio.arbiter import AsyncArbiter
from gpuarbiter._aio.lease import AsyncLease
from gpuarbiter._asgi.inbox import Inbox
from gpuarbiter._asgi.interruption import Interruption
from gpuarbiter._asgi.messages import ASGIApp, Receive, Scope, Send
from gpuarbiter._asgi.outbox import Outbox, stems_from_client
from gpuarbiter._asgi.refusals import refusal_of, refuse
from gpuarbiter._asgi.routes import GpuRoute
from gpuarbiter._current import running_under
from gpuarbiter._errors import ArbiterError, LeaseLost
from gpuarbiter._outcomes import FallbackToCpu, Skipped

logger = logging.getLogger("gpuarbiter")

STATE = "gpu_lease"


class Serving:
    """A request that matched a route."""

    def __init__(self, app: ASGIApp, route: GpuRoute, scope: Scope, send: Send, *, detailed: bool) -> None:
        self._app = app
        self._route = route
        self._scope = scope
        self._send = send
        self._detailed = detailed
        self._options = route.options(scope)
        self._working = Interruption()

    async def run(self, arbiter: AsyncArbiter, receive: Receive, buffer_bytes: int) -> None:
        """From the first message to the end of the answer."""
        async with Inbox(receive, buffer_bytes) as inbox:
            outcome = await self._ask(arbiter, inbox)
            if isinstance(outcome, AsyncLease):
                await self._with(outcome, inbox)
            elif isinstance(outcome, FallbackToCpu) and self._route.cpu_fallback:
                await self._on_cpu(arbiter, inbox)
            elif outcome is not None:
                await self._refuse(outcome)

    async def _ask(self, arbiter: AsyncArbiter, inbox: Inbox) -> AsyncLease | ArbiterError | None:
        """The lease, or why there is none; None when nobody waits for it any more."""
        outcome: AsyncLease | Skipped | FallbackToCpu | ArbiterError | None = None
        options = self._options.copy()
        options["on_lost"] = self._lost
        waiting = Interruption()
        inbox.on_gone = lambda: waiting.interrupt("gone")
        with waiting:
            try:
                outcome = await arbiter.acquire(self._route.task_type, **options)
            except ArbiterError as failure:
                outcome = failure
        if not inbox.gone:
            return outcome
        logger.info("%s: the client went while it waited for a GPU", self._name)
        if isinstance(outcome, AsyncLease):  # that came in the same moment
            await outcome.__aexit__(None, asyncio.CancelledError(), None)
        return None

    async def _with(self, lease: AsyncLease, inbox: Inbox) -> None:
        async def sent() -> None:
            await lease.__aexit__(None, None, None)

        outbox = Outbox(self._send, inbox, sent)
        if self._route.cancel_on_disconnect:
            inbox.on_gone = lambda: self._working.interrupt("gone")
        error: BaseException | None = None
        try:
            with self._working, running_under(lease):
                await self._call_app(lease, inbox, outbox)
            if self._working.cause is not None:
                error = asyncio.CancelledError()
            elif outbox.failed:
                error = RuntimeError("the application answered with a server error")
        except BaseException as raised:
            error = asyncio.CancelledError() if stems_from_client(raised) else raised
            if error is raised:
                raise
        finally:
            await lease.__aexit__(None, error, None)
        if self._working.cause == "lost":
            await self._say_lost(lease, outbox)

    async def _on_cpu(self, arbiter: AsyncArbiter, inbox: Inbox) -> None:
        async def sent() -> None: ...

        async def work() -> None:
            await self._call_app(None, inbox, Outbox(self._send, inbox, sent))

        try:
            await arbiter._on_cpu(self._route.task_type, work, self._options.get("context"))  # noqa: SLF001 -- of this library
        except BaseException as raised:
            if not stems_from_client(raised):
                raise

    async def _call_app(self, lease: AsyncLease | None, inbox: Inbox, outbox: Outbox) -> None:
        # In place, as frameworks do it: what stands above finds there what stands below has put in.
        self._scope["state"] = {**(self._scope.get("state") or {}), STATE: lease}
        await self._app(self._scope, inbox.receive, outbox.send)

    async def _lost(self, lease: AsyncLease) -> None:
        if self._route.cancel_when_lost:
            self._working.interrupt("lost")
        on_lost: Any = self._options.get("on_lost")
        if on_lost is not None:
            await backend.call_back(on_lost, lease)

    async def _say_lost(self, lease: AsyncLease, outbox: Outbox) -> None:
        failure = LeaseLost(f"the GPU was taken away: {lease.lost_reason}", reason="LEASE_LOST")
        if outbox.started and self._scope["type"] == "http":
            raise failure  # half an answer is not to look like a whole one
        await self._refuse(failure, accepted=outbox.started)

    async def _refuse(self, failure: ArbiterError, *, accepted: bool = False) -> None:
        refusal = refusal_of(failure)
        logger.info("%s: refused: %s", self._name, failure)
        await refuse(self._scope, self._send, refusal, detailed=self._detailed, accepted=accepted)

    @property
    def _name(self) -> str:
        return f"{self._route.task_type} {self._scope['path']}"
