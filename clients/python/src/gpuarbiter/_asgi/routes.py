"""Which requests run under a lease, and under what kind of lease.

Law: what is wrong with a route is a ValueError or TypeError where it is written, not at the first request.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Unpack, cast

from gpuarbiter import _convert
from gpuarbiter._aio.options import AsyncLeaseOptions
from gpuarbiter._asgi.messages import WEBSOCKET, Scope
from gpuarbiter._options import refuse_unknown

# What a path is made of: "{name}" or "{name:converter}", "*", and plain text.
_PARTS = re.compile(r"\{([A-Za-z_]\w*)(?::(\w+))?\}|(\*)|([^{}*]+)|(.)")
# A browser's question before the request, which does no work.
_PREFLIGHT = "OPTIONS"
# Two requests with one of these would be one and the same to the arbiter.
_PER_REQUEST_ONLY = frozenset({"request_id", "sequence"})


class GpuRoute:
    """Requests that run under a lease.

    Args:
        task_type: the kind of work, whose policy the arbiter applies.
        path: as the application's own routes see it, without root_path: "/transcribe", "/jobs/{id}/run" (one segment),
            "/v1/*" (whatever follows). Every path unless told.
        methods: such as ["POST"]; every one but OPTIONS unless told.
        when: asked last, with the scope; only requests for which it is true.
        websocket: for WebSocket connections, instead of HTTP requests: a lease for as long as each is open.
        per_request: further options, made from the scope of each request.
        cpu_fallback: when the answer is FALLBACK_CPU the application runs without a lease, and the arbiter is told of
            its work. Otherwise that is refused as everything else.
        cancel_on_disconnect: the application is cancelled when its client goes. Not for handlers that run in
            threads: those cannot be stopped, and would go on without the lease.
        cancel_when_lost: the application is cancelled when the lease is lost.
        options: every keyword of `AsyncArbiter.lease`.

    Raises:
        ValueError, TypeError: it cannot be meant so.
    """

    def __init__(
        self,
        task_type: str,
        path: str | None = None,
        *,
        methods: Iterable[str] | None = None,
        when: Callable[[Scope], bool] | None = None,
        websocket: bool = False,
        per_request: Callable[[Scope], Mapping[str, Any]] | None = None,
        cpu_fallback: bool = False,
        cancel_on_disconnect: bool = False,
        cancel_when_lost: bool = True,
        **options: Unpack[AsyncLeaseOptions],
    ) -> None:
        if not isinstance(task_type, str) or not task_type:
            raise ValueError(f"a GpuRoute begins with its task type, such as 'ASR', not {task_type!r}")
        if isinstance(methods, str):
            raise TypeError(f"methods is a list, such as [{methods!r}]")
        if websocket and methods is not None:
            raise ValueError("a WebSocket has no methods")
        refuse_unknown(options, AsyncLeaseOptions)
        for name in sorted(_PER_REQUEST_ONLY & options.keys()):
            raise ValueError(f"{name} is another one for each request: let per_request make it")
        _convert.acquire_request(task_type, options)
        self.task_type = task_type
        self.cpu_fallback = cpu_fallback
        self.cancel_on_disconnect = cancel_on_disconnect
        self.cancel_when_lost = cancel_when_lost
        self._path = None if path is None else _pattern(path)
        self._methods = None if methods is None else frozenset(each.upper() for each in methods)
        self._when = when
        self._scope_type = WEBSOCKET if websocket else "http"
        self._per_request = per_request
        self._options = options

    def matches(self, scope: Scope) -> bool:
        """Whether a request is one of these."""
        return (
            scope["type"] == self._scope_type
            and self._has_method(scope)
            and (self._path is None or self._path.fullmatch(_route_path(scope)) is not None)
            and (self._when is None or bool(self._when(scope)))
        )

    def options(self, scope: Scope) -> AsyncLeaseOptions:
        """What a request asks the arbiter for."""
        if self._per_request is None:
            return self._options
        return cast("AsyncLeaseOptions", {**self._options, **self._per_request(scope)})

    def _has_method(self, scope: Scope) -> bool:
        method = scope.get("method", "")
        return method != _PREFLIGHT if self._methods is None else method in self._methods


def _route_path(scope: Scope) -> str:
    """The path below where the application is mounted; servers and frameworks put both into one."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "").rstrip("/")
    return path[len(root) :] if path == root or path.startswith(f"{root}/") else path


def _pattern(path: str) -> re.Pattern[str]:
    if not path.startswith(("/", "*")):
        raise ValueError(f"a path begins with '/': {path!r}")
    pattern = ""
    for name, converter, star, text, stray in _PARTS.findall(path):
        if stray:
            raise ValueError(f"{stray!r} in {path!r}: allowed are plain text, {{name}}, {{name:path}} and *")
        if star or converter == "path":
            pattern += ".*"
        else:
            pattern += "[^/]+" if name else re.escape(text)
    return re.compile(pattern, re.DOTALL)
