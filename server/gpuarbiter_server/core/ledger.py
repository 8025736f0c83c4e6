"""The memory ledger of one GPU: what is promised, what is seen, and what is left to promise.

    admissible = total - headroom - unleased - sum of committed

`committed` of a lease is what it declared, or 1.1 times its observed peak once that lies above the
declaration. `unleased` is what the GPU has in use less what is attributed to leases: by the pids of
their holders where the driver tells memory per process, otherwise by what they declared. A lease
that ended counts on until a reading taken after its end has shown what it left behind.
"""

from gpuarbiter_server.core.model import GpuHealth, GpuReading, GpuSpec, ProcessId
from gpuarbiter_server.core.owners import Owners
from gpuarbiter_server.core.policy import MIB, Memory
from gpuarbiter_server.core.share import Cooldown, Share
from gpuarbiter_server.core.stats import GpuStats

# Memory below this is not worth waiting for: contexts of drivers and monitors come and go.
_NEGLIGIBLE = 64 * MIB
_LEAST_HEADROOM = 512 * MIB
_HEADROOM_RATIO = 0.02


class Gpu:
    """One GPU: who has it, and what its readings say."""

    def __init__(self, spec: GpuSpec, number: int, owners: Owners, memory: Memory) -> None:
        self.spec = spec
        # Its place among the GPUs of this arbiter; MIG instances share the index of their GPU.
        self.number = number
        self.key = spec.key
        self._owners = owners
        self.headroom = 0
        self.configure(memory)
        self.shares: dict[str, Share] = {}
        # Ended leases: until a reading taken after their end, then until their memory is back.
        self.departed: dict[str, Share] = {}
        self.recovering: dict[str, Share] = {}
        # Whether someone waits for that memory, and has asked for a reading since the last one.
        self.recovery_awaited = False
        self.reading_asked = False
        self.newest_token = 0
        self.reading: GpuReading | None = None
        self.unleased = 0
        # None: not cordoned.
        self.cordon: str | None = None
        # None: not lost.
        self.lost: str | None = None
        # Whether readings are overdue, or were never there; decided by a timer.
        self.stale = False
        # Before the first reading nothing is granted, until it is overdue.
        self.awaiting_first = spec.monitored
        self.cooldown: Cooldown | None = None
        self.stats = GpuStats()
        self._by_holder: dict[ProcessId, int] = {}
        self._attributed: tuple[GpuReading | None, int] = (None, -1)
        self._owner_of: dict[ProcessId, ProcessId] = {}

    def configure(self, memory: Memory) -> None:
        """Takes over the settings that concern memory."""
        extra = memory.headroom_bytes
        if extra is None:
            extra = max(_LEAST_HEADROOM, int(self.spec.total_bytes * _HEADROOM_RATIO))
        self.headroom = min(self.spec.total_bytes, self.spec.reserved_bytes + extra)

    # -- figures --

    @property
    def exclusive(self) -> bool:
        """Whether an exclusive lease is here."""
        for share in self.shares.values():  # noqa: SIM110 -- asked often, and a generator takes three times as long
            if share.exclusive:
                return True
        return False

    @property
    def waits_for_holders(self) -> bool:
        """Whether all leases here are of holders who have not come back since a restart."""
        for share in self.shares.values():  # noqa: SIM110 -- as above
            if not share.unclaimed:
                return False
        return True

    @property
    def capacity(self) -> int:
        """What a lease could declare on this GPU if nothing else was there."""
        return self.spec.total_bytes - self.headroom

    @property
    def committed(self) -> int:
        """What is promised to the leases here, and to those whose end no reading has shown yet."""
        return sum(share.committed for share in self.shares.values()) + sum(
            share.committed for share in self.departed.values()
        )

    @property
    def unclaimed(self) -> int:
        """What is promised to leases whose holders have not come back since a restart."""
        return sum(share.committed for share in self.shares.values() if share.unclaimed)

    @property
    def recoverable(self) -> int:
        """What ended leases still hold, or may hold until a reading shows otherwise."""
        return sum(share.committed for share in self.departed.values()) + sum(
            share.remaining for share in self.recovering.values()
        )

    def room(self, resident: int = 0) -> int:
        """What is left to promise to someone who holds `resident` bytes already; can be negative."""
        return self.capacity - (self.unleased - resident) - self.committed

    @property
    def admissible(self) -> int:
        """What a new lease could declare now, as far as memory goes."""
        return max(0, self.room())

    @property
    def health(self) -> GpuHealth:
        """Whether the arbiter can see the GPU."""
        if self.lost is not None:
            return GpuHealth.LOST
        if not self.spec.monitored:
            return GpuHealth.UNMONITORED
        return GpuHealth.STALE if self.stale or self.reading is None else GpuHealth.OK

    @property
    def sees_processes(self) -> bool:
        """Whether the latest reading can be trusted to list who is on the GPU."""
        fresh = self.reading is not None and not self.stale and self.lost is None
        return fresh and self.reading is not None and self.reading.processes is not None

    def processes_now(self) -> frozenset[ProcessId]:
        """Who the latest reading shows on the GPU."""
        if self.reading is None or self.reading.processes is None:
            return frozenset()
        return frozenset(seen.process for seen in self.reading.processes)

    def resident_of(self, process: ProcessId | None, stand_in: int) -> int:
        """Memory counted here already that a requester's own processes hold.

        stand_in: the request's resident_bytes, for holders whose pid is not known.
        """
        if process is None or not self._measures():
            return min(stand_in, self.unleased)
        # What it left a moment ago is still counted in full, whatever the reading shows.
        before = [share.committed for share in self.departed.values() if share.process == process]
        if before:
            return sum(before)
        if any(share.process == process for share in self.shares.values()):
            return 0
        self._attribute()
        return min(self._by_holder.get(process, 0), self.unleased)

    def need_of(self, process: ProcessId | None, stand_in: int, declared: int) -> int:
        """What a lease of this declaration needs: more than that, where its holder holds more already."""
        if process is None or not self._measures():
            return max(declared, min(stand_in, self.unleased))
        self._attribute()
        mates = sum(share.declared or 1 for share in self.shares.values() if share.process == process)
        return max(declared, self._by_holder.get(process, 0) * declared // (declared + mates))

    def owners(self) -> tuple[tuple[ProcessId, str], ...]:
        """The lease that each process on the GPU belongs to."""
        leases = {share.process: share.lease_id for share in self.shares.values() if share.process}
        self._attribute()
        return tuple((process, leases[holder]) for process, holder in self._owner_of.items() if holder in leases)

    # -- changes --

    def add(self, share: Share, *, exclusive: bool) -> None:
        """A lease begins here."""
        self._attribute()
        share.baseline = self.processes_now()
        share.resident = self._by_holder.get(share.process, 0) if share.process else share.stand_in
        for earlier in [s for s in self.departed.values() if s.process and s.process == share.process]:
            self._dismiss(earlier)
        share.used_before = (self.reading.memory_used_bytes or 0) if self.reading else 0
        if exclusive and not share.declared:
            share.committed = max(0, self.capacity - self.unleased)
        share.exclusive = exclusive
        self.shares[share.lease_id] = share
        self.settle()

    def restore(self, share: Share) -> None:
        """A lease of before a restart is here."""
        self.shares[share.lease_id] = share
        self.settle()

    def remove(self, lease_id: str, now: float, *, used: bool = True) -> None:
        """A lease is over here; if it was used, its memory counts on until a reading shows what is left of it."""
        share = self.shares.pop(lease_id)
        if used and self.spec.monitored and not self.stale and self.lost is None and self.reading is not None:
            share.ended_at = now
            self.reading_asked = False
            self.departed[lease_id] = share
            if share.process is not None:
                # What it still shows stays attributed to it.
                self._owners.add(share.process)
        self.settle()

    def take(self, reading: GpuReading) -> list[Share]:
        """Takes in a reading; returns the ended leases whose memory is back with it."""
        self.reading = reading
        self.stale = False
        self.awaiting_first = False
        self.reading_asked = False
        for share in [s for s in self.departed.values() if s.ended_at <= reading.time]:
            self._dismiss(share)
            self.recovering[share.lease_id] = share
        self.settle()
        for share in self.recovering.values():
            share.remaining = self._left_behind(share, reading)
        back = [share for share in self.recovering.values() if share.remaining <= _NEGLIGIBLE]
        for share in back:
            del self.recovering[share.lease_id]
        return back

    def give_up_recovery(self, now: float, limit: float) -> float | None:
        """What ended so long ago and is still there counts as unleased for good; returns when to ask again."""
        for share in [s for s in self.recovering.values() if s.ended_at + limit <= now]:
            del self.recovering[share.lease_id]
        return min((share.ended_at + limit for share in self.recovering.values()), default=None)

    def blind(self) -> None:
        """Readings are overdue: the last unleased figure stands, declarations decide the rest."""
        self.stale = True
        self.awaiting_first = False
        for share in list(self.departed.values()):
            self._dismiss(share)
        self.recovering.clear()

    def _dismiss(self, share: Share) -> None:
        """An ended lease does not count any more."""
        del self.departed[share.lease_id]
        if share.process is not None:
            self._owners.drop(share.process)

    # -- attribution --

    def settle(self) -> None:
        """Splits what the GPU has in use among the leases; the rest is unleased."""
        reading = self.reading
        used = reading.memory_used_bytes if reading else None
        if reading is None or used is None or self.stale:
            return
        here = [*self.shares.values(), *self.departed.values()]
        measured = self._measures()
        by_pid = [share for share in here if measured and share.process is not None]
        by_word = [share for share in here if not measured or share.process is None]
        self._attribute()
        rest = used - sum(self._observe(by_pid, reading.time).values())
        claimed = sum(share.declared or share.committed for share in by_word)
        outsiders = self._outsiders(here, by_word) if by_word else 0
        self.unleased = max(0, rest - min(claimed, max(0, rest - outsiders)))

    def _measures(self) -> bool:
        """Whether the driver tells memory per process."""
        reading = self.reading
        if reading is None or reading.processes is None:
            return False
        return all(seen.used_bytes is not None for seen in reading.processes)

    def _attribute(self) -> None:
        """Sums the memory on the GPU by holder; once for each reading and change of holders."""
        if self._attributed == (self.reading, self._owners.version):
            return
        self._by_holder = {}
        self._owner_of = {}
        for seen in (self.reading.processes if self.reading else None) or ():
            holder = self._owners.holder_of(seen)
            if holder is not None:
                self._owner_of[seen.process] = holder
                self._by_holder[holder] = self._by_holder.get(holder, 0) + (seen.used_bytes or 0)
        self._attributed = (self.reading, self._owners.version)

    def _observe(self, shares: list[Share], at: float) -> dict[ProcessId, int]:
        """Shows each share what its holder's processes use; several of one holder split it."""
        attributed: dict[ProcessId, int] = {}
        for share in shares:
            if share.process is None or share.process in attributed:
                continue
            mates = [mate for mate in shares if mate.process == share.process]
            total = self._by_holder.get(share.process, 0)
            attributed[share.process] = total
            weights = [mate.declared or 1 for mate in mates]
            members = {process for process, holder in self._owner_of.items() if holder == share.process}
            for mate, weight in zip(mates, weights, strict=True):
                mate.members |= members
                mate.observe(total * weight // sum(weights), at)
        return attributed

    def _outsiders(self, here: list[Share], by_word: list[Share]) -> int:
        """Memory of others that was here before every lease that has no pid to go by.

        Such a lease may claim what it declared, but not what was there before it came.
        """
        reading = self.reading
        if reading is None or reading.processes is None:
            return 0
        leased = {share.process for share in here if share.process is not None}
        before = frozenset.intersection(*(share.baseline for share in by_word))
        strangers = sum(
            seen.used_bytes or 0
            for seen in reading.processes
            if seen.process in before and self._owner_of.get(seen.process) not in leased
        )
        return max(0, strangers - sum(share.stand_in for share in by_word))

    def _left_behind(self, share: Share, reading: GpuReading) -> int:
        """What the latest reading still shows of an ended lease."""
        if reading.processes is None or not self._measures():
            return max(0, (reading.memory_used_bytes or 0) - share.used_before)
        if share.process is not None:
            mine = sum(seen.used_bytes or 0 for seen in reading.processes if seen.process in share.members)
            return max(0, mine - share.resident)
        return sum(
            seen.used_bytes or 0
            for seen in reading.processes
            if seen.process not in share.baseline and seen.process not in self._owner_of
        )
