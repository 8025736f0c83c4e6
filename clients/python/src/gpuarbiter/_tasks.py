"""`@gpu_task("ASR")`: a function that runs under a lease of its own.

Law: what is wrong with the way it is used is a TypeError where it is written, not at the first call. The function
keeps its name, its types and its signature, but for `lease`, which is filled in.
"""

import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, Unpack, overload

from gpuarbiter._consistency import ConsistencyCheck
from gpuarbiter._current import running_under
from gpuarbiter._defaults import default_arbiter, default_async_arbiter
from gpuarbiter._options import RequestOptions, refuse_unknown

if TYPE_CHECKING:
    from gpuarbiter._aio.arbiter import AsyncArbiter
    from gpuarbiter._sync.arbiter import Arbiter

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])
C = TypeVar("C")
S = TypeVar("S")
E_co = TypeVar("E_co", covariant=True)

_NOT_GIVEN: Any = object()
_LEASE = "lease"


class TaskOptions(RequestOptions, total=False):
    """Every keyword of `lease` and `acquire`; the callbacks get a Lease, or an AsyncLease in a coroutine function."""

    on_queued: Callable[[Any], Any] | None
    """Called while waiting, whenever the arbiter says where the request stands."""
    on_yield: Callable[[Any, Any], Any] | None
    """Called with the lease and the YieldRequest when the arbiter asks for the GPU."""
    on_lost: Callable[[Any], Any] | None
    """Called with the lease when it is lost."""


class Task(Protocol):
    """What `gpu_task` returns: a decorator that changes no types."""

    def __call__(self, function: F, /) -> F:
        """Decorates."""


class SyncTask(Protocol, Generic[E_co]):
    """The decorator of a function that may return something else instead."""

    def __call__(self, function: Callable[P, R], /) -> Callable[P, R | E_co]:
        """Decorates."""


class AsyncTask(Protocol, Generic[E_co]):
    """The decorator of a coroutine function that may return something else instead."""

    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> Callable[P, Coroutine[Any, Any, R | E_co]]:
        """Decorates."""


class EitherTask(Protocol, Generic[E_co]):
    """The decorator of either."""

    @overload
    def __call__(
        self, function: Callable[P, Coroutine[Any, Any, R]], /
    ) -> Callable[P, Coroutine[Any, Any, R | E_co]]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Callable[P, R | E_co]: ...


@overload
def gpu_task(
    task_type: str, *, arbiter: "Arbiter | AsyncArbiter | None" = None, **options: Unpack[TaskOptions]
) -> Task: ...
@overload
def gpu_task(
    task_type: str,
    *,
    on_skip: S,
    arbiter: "Arbiter | AsyncArbiter | None" = None,
    **options: Unpack[TaskOptions],
) -> EitherTask[S]: ...
@overload
def gpu_task(  # type: ignore[overload-overlap]  # an awaitable result of a plain function is no case
    task_type: str,
    *,
    cpu: Callable[..., Awaitable[C]],
    consistency: ConsistencyCheck | None = None,
    arbiter: "AsyncArbiter | None" = None,
    **options: Unpack[TaskOptions],
) -> AsyncTask[C]: ...
@overload
def gpu_task(  # type: ignore[overload-overlap]  # an awaitable result of a plain function is no case
    task_type: str,
    *,
    cpu: Callable[..., Awaitable[C]],
    on_skip: S,
    consistency: ConsistencyCheck | None = None,
    arbiter: "AsyncArbiter | None" = None,
    **options: Unpack[TaskOptions],
) -> AsyncTask[C | S]: ...
@overload
def gpu_task(
    task_type: str,
    *,
    cpu: Callable[..., C],
    consistency: ConsistencyCheck | None = None,
    arbiter: "Arbiter | None" = None,
    **options: Unpack[TaskOptions],
) -> SyncTask[C]: ...
@overload
def gpu_task(
    task_type: str,
    *,
    cpu: Callable[..., C],
    on_skip: S,
    consistency: ConsistencyCheck | None = None,
    arbiter: "Arbiter | None" = None,
    **options: Unpack[TaskOptions],
) -> SyncTask[C | S]: ...
def gpu_task(
    task_type: str,
    *,
    cpu: Callable[..., Any] | None = None,
    on_skip: Any = _NOT_GIVEN,
    consistency: ConsistencyCheck | None = None,
    arbiter: "Arbiter | AsyncArbiter | None" = None,
    **options: Unpack[TaskOptions],
) -> Any:
    """Runs each call of the decorated function, method or coroutine function under a lease of its own.

    The lease is `current_lease()`; a function with a parameter `lease` gets it there. Who calls it with a lease,
    `transcribe(audio, lease=mine)`, has it run under that one, and none is asked for.

    Args:
        task_type: as for `Arbiter.lease`, as are all other keywords.
        cpu: called instead, with the same arguments but the lease, when the answer is FALLBACK_CPU; the arbiter is
            told of it. A coroutine function (or what returns an awaitable) for a coroutine function.
        on_skip: returned when the answer is SKIP, which is raised otherwise.
        consistency: compares with `cpu` now and then.
        arbiter: an Arbiter, or for coroutine functions an AsyncArbiter; otherwise that of the process.

    Raises:
        TypeError, ValueError: it cannot be used so.
    """
    refuse_unknown(options, TaskOptions)
    if consistency is not None and cpu is None:
        raise ValueError("consistency needs a cpu function to compare with")
    more: dict[str, Any] = {**options, "consistency": consistency}
    if on_skip is not _NOT_GIVEN:
        more["on_skip"] = on_skip

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        is_async = _refuse_what_cannot_be_held(function)
        # Not by isinstance: neither client is imported for the sake of the other.
        if arbiter is not None and inspect.iscoroutinefunction(arbiter.acquire) is not is_async:
            wanted = "a coroutine function needs an AsyncArbiter" if is_async else "a plain function needs an Arbiter"
            raise TypeError(f"{wanted}, not {type(arbiter).__name__}")
        wrap = _asynchronous if is_async else _synchronous
        return _dressed(wrap(_Call(function, cpu, task_type, more), arbiter), function)

    return decorate


def _refuse_what_cannot_be_held(function: Any) -> bool:
    """Whether it is a coroutine function; a TypeError for what a lease cannot span."""
    if not callable(function):
        raise TypeError(f"gpu_task decorates functions, not {function!r}; write it below @classmethod or @staticmethod")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function) or inspect.isclass(function):
        raise TypeError(f"gpu_task cannot hold a lease while {function!r} is used; use `with arbiter.lease(…)` in it")
    called = type(function).__call__
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(called)


def _dressed(wrapper: Callable[..., Any], function: Callable[..., Any]) -> Callable[..., Any]:
    functools.update_wrapper(wrapper, function)
    # Frameworks that fill in parameters by their names must not look for a lease of theirs.
    signature = inspect.signature(function)
    kept = [each for each in signature.parameters.values() if each.name != _LEASE]
    wrapper.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    return wrapper


def _synchronous(call: "_Call", arbiter: Any) -> Callable[..., Any]:
    def task(*args: Any, **kwargs: Any) -> Any:
        mine, gpu, cpu = call.bound(args, kwargs)
        if mine is not None:
            with running_under(mine):
                return gpu(mine)
        chosen: Any = arbiter or default_arbiter()
        return chosen.run(call.task_type, gpu, cpu=cpu, **call.options)

    return task


def _asynchronous(call: "_Call", arbiter: Any) -> Callable[..., Any]:
    async def task(*args: Any, **kwargs: Any) -> Any:
        mine, gpu, cpu = call.bound(args, kwargs)
        if mine is not None:
            with running_under(mine):
                return await gpu(mine)
        chosen: Any = arbiter or default_async_arbiter()
        return await chosen.run(call.task_type, gpu, cpu=cpu, **call.options)

    return task


class _Call:
    """How the decorated function is called, on the GPU and on the CPU."""

    def __init__(
        self, function: Callable[..., Any], cpu: Callable[..., Any] | None, task_type: str, options: dict[str, Any]
    ) -> None:
        self._function = function
        self._cpu = cpu
        parameter = inspect.signature(function).parameters.get(_LEASE)
        by_name = {inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY}
        self._takes_lease = parameter is not None and parameter.kind in by_name
        self.task_type = task_type
        self.options = options

    def bound(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, Callable[[Any], Any], Callable[[], Any] | None]:
        """The lease that the caller brought, the work with a lease, and the work without."""
        if not self._takes_lease:
            mine = None
            gpu = self._without_lease(args, kwargs)
        else:
            mine = kwargs.pop(_LEASE, None)
            gpu = functools.partial(self._with_lease, args, kwargs)
        return mine, gpu, None if self._cpu is None else functools.partial(self._cpu, *args, **kwargs)

    def _with_lease(self, args: tuple[Any, ...], kwargs: dict[str, Any], lease: Any) -> Any:
        return self._function(*args, **kwargs, **{_LEASE: lease})

    def _without_lease(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[[Any], Any]:
        return lambda _lease: self._function(*args, **kwargs)
