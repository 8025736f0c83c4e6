"""What the operator decides: defaults and limits per task type, and for the arbiter as a whole.

Law: a policy is checked when it is built; nothing downstream meets an impossible one. All times are
seconds, all memory is bytes. These defaults are the only ones: configuration, help and docs read
them here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from gpuarbiter_server.core.model import BusyPolicy, Placement, Sharing

MIB = 1024**2
MAX_PRIORITY = 100


class PolicyError(ValueError):
    """A setting is out of its range; the message names it, its value and what is allowed."""

    def __init__(self, key: str, value: object, allowed: str) -> None:
        super().__init__(f"{key}: {value!r} is not allowed; {allowed}")
        self.key = key
        self.value = value
        self.allowed = allowed


def _require(condition: bool, key: str, value: object, allowed: str) -> None:
    if not condition:
        raise PolicyError(key, value, allowed)


@dataclass(frozen=True, slots=True)
class Watchdog:
    """What happens at max_hold: a warning, a yield request, and after the grace period the end."""

    warn: bool = True
    yield_: bool = True
    grace: float = 5.0
    revoke: bool = False

    def __post_init__(self) -> None:
        """Refuses a negative grace period."""
        _require(self.grace >= 0, "watchdog.grace", self.grace, "0s or longer")


@dataclass(frozen=True, slots=True)
class Policy:
    """How requests of one task type are treated where they do not say it themselves."""

    priority: int = 50
    # Requests above it are lowered to it.
    max_priority: int = MAX_PRIORITY
    # None: without limit.
    max_wait: float | None = 3.0
    # 0: without limit.
    max_hold: float = 8.0
    # The most that a request or a renewal can ask for; 0: without limit.
    max_hold_limit: float = 0.0
    # The longest ttl; what is asked beyond it is lowered to it.
    ttl_limit: float = 3600.0
    disconnect_grace: float = 5.0
    busy_policy: BusyPolicy = BusyPolicy.WAIT
    sharing: Sharing = Sharing.EXCLUSIVE
    # The declared peak when a request names none; 0: none.
    memory_bytes: int = 0
    # Whether who ran out of memory declares at least 1.25 times its peak from then on.
    raise_after_out_of_memory: bool = False
    # 0: without limit.
    max_concurrent_leases: int = 0
    watchdog: Watchdog = field(default_factory=Watchdog)

    def __post_init__(self) -> None:
        """Refuses what could never work."""
        levels = f"0 to {MAX_PRIORITY}"
        _require(0 <= self.priority <= MAX_PRIORITY, "priority", self.priority, levels)
        _require(0 <= self.max_priority <= MAX_PRIORITY, "max_priority", self.max_priority, levels)
        _require(self.priority <= self.max_priority, "priority", self.priority, "at most max_priority")
        _require(self.max_wait is None or self.max_wait >= 0, "max_wait", self.max_wait, "0s or longer")
        _require(self.max_hold >= 0, "max_hold", self.max_hold, "0s (without limit) or longer")
        _require(self.max_hold_limit >= 0, "max_hold_limit", self.max_hold_limit, "0s (without limit) or longer")
        _require(self.ttl_limit > 0, "ttl_limit", self.ttl_limit, "longer than 0s")
        _require(self.disconnect_grace >= 0, "disconnect_grace", self.disconnect_grace, "0s or longer")
        _require(self.busy_policy is not BusyPolicy.UNSPECIFIED, "busy_policy", "", "WAIT, SKIP or FALLBACK_CPU")
        _require(self.sharing is not Sharing.UNSPECIFIED, "sharing", "", "EXCLUSIVE or SHARED")
        _require(self.memory_bytes >= 0, "memory", self.memory_bytes, "0 (none declared) or more")
        _require(self.max_concurrent_leases >= 0, "max_concurrent_leases", self.max_concurrent_leases, "0 or more")

    def bounded_hold(self, wanted: float) -> float:
        """The max_hold that a wanted one comes to under max_hold_limit; 0 is without limit."""
        if not self.max_hold_limit:
            return wanted
        return min(wanted, self.max_hold_limit) if wanted else self.max_hold_limit


# Waits and holds without limit: what `gpu-arbiter run` asks for unless told otherwise.
RUN_POLICY = Policy(max_wait=None, max_hold=0.0)


@dataclass(frozen=True, slots=True)
class Memory:
    """How memory is counted."""

    # None: max(512 MiB, 2 % of the total). The driver's own memory comes on top of it.
    headroom_bytes: int | None = None
    # A reading older than this is stale.
    stale_after: float = 2.0
    # Without a fresh reading: grant by declarations, or not at all.
    refuse_when_stale: bool = False
    # A lease whose memory is not back after this long is no longer waited for by name.
    recovery_limit: float = 10.0

    def __post_init__(self) -> None:
        """Refuses negative figures."""
        headroom = self.headroom_bytes
        _require(headroom is None or headroom >= 0, "memory.headroom", headroom, "auto, 0 or more")
        _require(self.stale_after > 0, "memory.stale_after", self.stale_after, "longer than 0s")
        _require(self.recovery_limit >= 0, "memory.recovery_limit", self.recovery_limit, "0s or longer")


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the core goes by."""

    enabled: bool = True
    # Tickets that may wait for one GPU.
    queue_limit: int = 8
    # Limits of one client: waiting requests and leases; 0: without limit.
    waiting_per_client: int = 1024
    leases_per_client: int = 1024
    cooldown: float = 15.0
    # After a restart: how long leases that live by their stream wait to be joined again.
    recovery_grace: float = 10.0
    # Seconds of waiting that are worth one level of priority; 0: no aging.
    aging: float = 1.0
    placement: Placement = Placement.LEAST_LOADED
    memory: Memory = field(default_factory=Memory)
    default_policy: Policy = field(default_factory=Policy)
    policies: Mapping[str, Policy] = field(default_factory=lambda: MappingProxyType({"RUN": RUN_POLICY}))

    def __post_init__(self) -> None:
        """Refuses negative figures."""
        _require(self.queue_limit >= 0, "queue_limit", self.queue_limit, "0 or more")
        _require(self.waiting_per_client >= 0, "limits.waiting_per_client", self.waiting_per_client, "0 or more")
        _require(self.leases_per_client >= 0, "limits.leases_per_client", self.leases_per_client, "0 or more")
        _require(self.cooldown >= 0, "cooldown", self.cooldown, "0s (off) or longer")
        _require(self.recovery_grace >= 0, "recovery_grace", self.recovery_grace, "0s or longer")
        _require(self.aging >= 0, "aging", self.aging, "0s (off) or longer")
        _require(self.placement is not Placement.UNSPECIFIED, "placement", "", "a placement by name")

    def policy(self, task_type: str) -> Policy:
        """The policy of a task type: its own, or the default."""
        return self.policies.get(task_type, self.default_policy)
