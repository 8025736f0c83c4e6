"""What an operator can do from the console: drain and resume GPUs, revoke leases.

Law: it is the core that does it, in the same way as for the admin API, with the same events; who asks has the admin
token and comes from here, see `guard`. What is asked for is checked as a whole before anything is done.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.effects import Drained
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.runtime.runtime import Runtime
from gpuarbiter_server.web.guard import Guard

_DAY = 86_400
_STATUSES = {
    ErrorReason.INVALID_REQUEST: 422,
    ErrorReason.UNKNOWN_GPU: 404,
    ErrorReason.UNKNOWN_LEASE: 404,
    ErrorReason.NOT_PERMITTED: 403,
}

# The limits are those of the admin API.
_Gpu = Annotated[str, Field(min_length=1, max_length=128)]
_Reason = Annotated[str, Field(max_length=1024)]
_Grace = Annotated[float, Field(ge=0, le=_DAY, allow_inf_nan=False)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Gpus(_Asked):
    """Which GPUs."""

    gpus: Annotated[list[_Gpu], Field(max_length=64)] = []
    all: bool = False

    @model_validator(mode="after")
    def _one_of_both(self) -> "_Gpus":
        if bool(self.gpus) == self.all:
            raise ValueError("either gpus or all must be given, not both")
        return self

    def named(self) -> str:
        return "every GPU" if self.all else ", ".join(self.gpus)

    def verb(self) -> str:
        return "are" if len(self.gpus) > 1 else "is"


class _Drain(_Gpus):
    reason: _Reason = ""
    # None: holders are left alone.
    grace_seconds: _Grace | None = None


class _Revoke(_Asked):
    lease_id: Annotated[str, Field(min_length=1, max_length=64)]
    reason: _Reason = ""
    # 0: at once.
    grace_seconds: _Grace = 0.0


Act = Callable[[Mapping[str, Any]], Awaitable[str]]


class Actions:
    """Does it, and says in words what came of it."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    async def drain(self, said: Mapping[str, Any]) -> str:
        """No new leases on these GPUs; with a grace, their holders are asked to yield, and then revoked."""
        asked = _Drain.model_validate(said)
        answer = await self._runtime.ask(
            lambda call: ev.Drain(call, tuple(asked.gpus), asked.all, asked.reason, asked.grace_seconds)
        )
        assert isinstance(answer, Drained)
        left = answer.leases_left
        if not left:
            then = "Nobody holds it."
        elif asked.grace_seconds is None:
            then = "1 lease goes on." if left == 1 else f"{left} leases go on."
        else:
            leases = "The holder of 1 lease is" if left == 1 else f"The holders of {left} leases are"
            then = f"{leases} asked to yield, and revoked after {asked.grace_seconds:g} s."
        return f"{asked.named()} {asked.verb()} drained: nothing new is granted there. {then}"

    async def resume(self, said: Mapping[str, Any]) -> str:
        """Takes a drain back."""
        asked = _Gpus.model_validate(said)
        await self._runtime.ask(lambda call: ev.Resume(call, tuple(asked.gpus), asked.all))
        return f"{asked.named()} {asked.verb()} in service again."

    async def revoke(self, said: Mapping[str, Any]) -> str:
        """Ends a lease, after its grace."""
        asked = _Revoke.model_validate(said)
        live = self._runtime.census().is_live(asked.lease_id)
        await self._runtime.ask(lambda call: ev.Revoke(call, asked.lease_id, asked.grace_seconds, asked.reason))
        if not live:
            return "The lease had ended already."
        if asked.grace_seconds:
            return f"The holder is asked to yield; the lease ends in {asked.grace_seconds:g} s at the latest."
        return "The lease is ended."

    async def sign_in(self, _said: Mapping[str, Any]) -> str:
        """Nothing but whether the token is right."""
        return "The token is right."

    def routes(self, path: str, guard: Guard, headers: Mapping[str, str]) -> list[BaseRoute]:
        """What answers below a path."""
        acts: dict[str, Act] = {
            "drain": self.drain,
            "resume": self.resume,
            "revoke": self.revoke,
            "sign-in": self.sign_in,
        }
        return [Route(f"{path}/{name}", _route(act, guard, headers), methods=["POST"]) for name, act in acts.items()]


def _route(act: Act, guard: Guard, headers: Mapping[str, str]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return JSONResponse({"message": await act(await guard.body(request))}, headers=headers)
        except HTTPException as error:
            status, why, more = error.status_code, error.detail, error.headers
        except ValidationError as error:
            status, why, more = 422, "; ".join(_problem(each) for each in error.errors()), None
        except ArbiterError as error:
            status, why, more = _STATUSES.get(error.reason, 503), error.message, None
        return JSONResponse({"error": why}, status, {**headers, **(more or {})})

    return answer


def _problem(error: Any) -> str:
    where = ".".join(str(part) for part in error["loc"])
    what = str(error["msg"]).removeprefix("Value error, ")
    return f"{where}: {what}" if where else what
