"""What one lease has of one GPU, and what it can leave behind: a cooldown. Data with hardly any rules."""

from math import inf

from gpuarbiter_server.core.model import ProcessId

# What a lease that outgrew its declaration is counted at, over its observed peak.
PEAK_MARGIN = 1.1


class Share:
    """What one lease has of one GPU, in bytes."""

    __slots__ = (
        "baseline",
        "begun_at",
        "committed",
        "declared",
        "ended_at",
        "exclusive",
        "lease_id",
        "members",
        "observed",
        "peak",
        "process",
        "remaining",
        "resident",
        "stand_in",
        "unclaimed",
        "used_before",
    )

    def __init__(self, lease_id: str, declared: int, process: ProcessId | None, stand_in: int, begun_at: float) -> None:
        self.lease_id = lease_id
        self.begun_at = begun_at
        self.declared = declared
        self.committed = declared
        self.exclusive = False
        # Whether its lease is from before a restart, and nothing was heard of its holder since.
        self.unclaimed = False
        # The holder, when the arbiter has proof of its pid.
        self.process = process
        # The request's resident_bytes, for holders without one.
        self.stand_in = stand_in
        # By readings that were taken while it was held.
        self.observed: int | None = None
        self.peak: int | None = None
        # Every process that was ever attributed to this share.
        self.members: set[ProcessId] = set()
        # What was on the GPU when the lease was granted: all processes, this holder's memory, all use.
        self.baseline: frozenset[ProcessId] = frozenset()
        self.resident = 0
        self.used_before = 0
        # Once the lease has ended: when, and how much of it is still there.
        self.ended_at = inf
        self.remaining = 0

    def observe(self, observed: int, at: float) -> None:
        """Takes in what the driver showed for this share at a time."""
        if observed > self.declared:
            self.committed = max(self.committed, int(observed * PEAK_MARGIN))
        if at >= self.begun_at:
            self.observed = observed
            self.peak = max(self.peak or 0, observed)


class Cooldown:
    """A cooldown that runs on one GPU."""

    __slots__ = ("announced", "baseline", "by_reading", "family", "holder_known", "lease_id", "since", "until")

    def __init__(self, lease_id: str, since: float, until: float, baseline: frozenset[ProcessId]) -> None:
        self.lease_id = lease_id
        self.since = since
        self.until = until
        self.baseline = baseline
        # Whether readings can prove its end; otherwise the family can, where the holder is known.
        self.by_reading = False
        self.holder_known = False
        # The processes of the holder that are not known to be dead.
        self.family: set[ProcessId] = set()
        self.announced = False

    @property
    def proved(self) -> bool:
        """Whether the kernel has told of the death of every process that is known of."""
        return self.holder_known and not self.family

    def remaining(self, now: float) -> float | None:
        """Seconds until it ends by itself; None while it is only being checked."""
        return max(0.0, self.until - now) if self.announced else None
