"""What a request for a lease can ask for, by keyword."""

from collections.abc import Iterable, Mapping
from typing import TypedDict

from gpuarbiter._units import Duration, Size
from gpuarbiter._values import BusyPolicy, Placement, WorkContext


class RequestOptions(TypedDict, total=False):
    """Every keyword of `lease` and `acquire` that the arbiter sees. What is left out, its policy decides."""

    memory: Size | None
    """Peak device memory per GPU, what is loaded already included: bytes, or "6GiB"."""
    count: int
    """How many distinct GPUs, all together or not at all; 1 unless told."""
    gpus: Iterable[str] | str
    """Keys ("gpu:0"), indices ("0") or UUIDs of the GPUs it may run on; empty: any."""
    shared: bool | None
    """True: beside other shared leases; False: alone on each GPU."""
    priority: int | None
    """0 to 100, higher first."""
    max_wait: Duration | None
    """How long to wait for a grant; 0: not at all."""
    max_hold: Duration | None
    """How long the lease is meant to be held; 0: without limit."""
    ttl: Duration | None
    """The lease outlives its stream for so long; this library renews it in the background."""
    detached: bool
    """The lease lives by its ttl and its renewals alone, without a stream; needs `ttl`."""
    busy_policy: BusyPolicy | None
    """What to do when no GPU can be had at once: "WAIT", "SKIP" or "FALLBACK_CPU"."""
    placement: Placement | None
    """How GPUs are picked: "LEAST_LOADED", "BEST_FIT" or "ROUND_ROBIN"."""
    resident: Size | None
    """What this process holds on the GPU already, where the arbiter cannot see its pid."""
    sequence: tuple[str, int] | None
    """(group, index): granted after the lower indices of the group."""
    context: WorkContext | None
    """Who and what the lease belongs to, for logs and traces."""
    request_id: str | None
    """The idempotency key, at most 64 characters; a fresh UUID unless told."""


def refuse_unknown(options: Mapping[str, object], known: type) -> None:
    """Refuses a keyword that is none, as a plain signature would.

    Raises:
        TypeError: naming the keyword.
    """
    for name in options.keys() - known.__annotations__.keys() - RequestOptions.__annotations__.keys():
        raise TypeError(f"unexpected keyword argument {name!r}; allowed are {', '.join(sorted(known.__annotations__))}")
