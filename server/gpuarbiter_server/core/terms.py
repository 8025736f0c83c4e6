"""What a request comes to once its task type's policy has filled the gaps and drawn the limits.

What a request asks for beyond a limit of its policy is lowered to the limit; the answer shows it.
"""

from dataclasses import dataclass, replace

from gpuarbiter_server.core.model import AcquireRequest, BusyPolicy, Placement, Sharing
from gpuarbiter_server.core.policy import Settings, Watchdog


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds and bytes; fixed for a request until it is joined with other wishes."""

    priority: int
    busy_policy: BusyPolicy
    # None: without limit.
    max_wait: float | None
    # 0: without limit, for both.
    max_hold: float
    max_hold_limit: float
    # 0: bound to the stream.
    ttl: float
    disconnect_grace: float
    # 0: none declared.
    memory_bytes: int
    sharing: Sharing
    placement: Placement
    watchdog: Watchdog

    @property
    def exclusive(self) -> bool:
        """Whether the lease has its GPUs for itself."""
        return self.sharing is Sharing.EXCLUSIVE


def terms_of(request: AcquireRequest, settings: Settings) -> Terms:
    """The request under the settings in force."""
    policy = settings.policy(request.task_type)
    wanted = policy.priority if request.priority is None else request.priority
    hold = policy.max_hold if request.max_hold is None else request.max_hold
    return Terms(
        priority=min(wanted, policy.max_priority),
        busy_policy=request.busy_policy or policy.busy_policy,
        max_wait=policy.max_wait if request.max_wait is None else request.max_wait,
        max_hold=policy.bounded_hold(hold),
        max_hold_limit=policy.max_hold_limit,
        ttl=min(request.ttl, policy.ttl_limit),
        disconnect_grace=policy.disconnect_grace,
        memory_bytes=request.gpu.memory_bytes or policy.memory_bytes,
        sharing=request.gpu.sharing or policy.sharing,
        placement=request.gpu.placement or settings.placement,
        watchdog=policy.watchdog,
    )


# What a join may wish otherwise.
_WISHES = ("priority", "busy_policy", "max_wait", "max_hold")


def rejoined(before: Terms, asked: AcquireRequest, asks: AcquireRequest, settings: Settings) -> Terms:
    """The newest wishes where they are others than before; the rest stays as it was agreed.

    So a changed policy changes nothing for who merely comes back.
    """
    wanted = terms_of(asks, settings)
    changed = [name for name in _WISHES if getattr(asks, name) != getattr(asked, name)]
    return replace(before, **{name: getattr(wanted, name) for name in changed})
