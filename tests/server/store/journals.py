"""Records to journal, what a journal has to make of them, and a life that has seen much of it."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from gpuarbiter_server.core.leases import KEPT_SECONDS
from gpuarbiter_server.core.model import (
    AcquireRequest,
    BusyPolicy,
    EndReason,
    GpuRequest,
    Holder,
    Identity,
    MemoryVerdict,
    Placement,
    ProcessId,
    RequestKey,
    Sharing,
    WorkContext,
    YieldReason,
)
from gpuarbiter_server.core.policy import Watchdog
from gpuarbiter_server.core.records import (
    Change,
    Closed,
    EndedRecord,
    GpuSaved,
    LeaseDropped,
    LeaseSaved,
    Rewritten,
    Saved,
    SavedCooldown,
    SavedGpu,
    SavedLease,
    SavedShare,
    SavedYield,
    TokensReserved,
)
from gpuarbiter_server.core.terms import Terms
from gpuarbiter_server.store.journal import Journal

GIB = 1024**3


def key(name: str, client: str = "client-1") -> RequestKey:
    return RequestKey(Identity("local", client), name)


def lease(token: int, *, name: str = "", gpu: str = "gpu:0", granted_at: float = 100.25) -> SavedLease:
    name = name or f"request-{token}"
    process = ProcessId(4711, 123456)
    return SavedLease(
        lease_id=f"{token:x}-mark",
        token=token,
        key=key(name),
        named=True,
        request=AcquireRequest(
            "ASR",
            Holder("client-1", pid=4711, process=process),
            request_id=name,
            gpu=GpuRequest(candidates=(gpu,), memory_bytes=6 * GIB),
            context=WorkContext("job", "session", 3, "decode", (("language", "日本語"),)),
        ),
        terms=Terms(
            priority=50,
            busy_policy=BusyPolicy.WAIT,
            max_wait=None,
            max_hold=8.0,
            max_hold_limit=0.0,
            ttl=0.0,
            disconnect_grace=5.0,
            memory_bytes=6 * GIB,
            sharing=Sharing.EXCLUSIVE,
            placement=Placement.LEAST_LOADED,
            watchdog=Watchdog(),
        ),
        sharing=Sharing.EXCLUSIVE,
        enqueued_at=granted_at - 0.1,
        granted_at=granted_at,
        hold_until=granted_at + 8.0,
        hold_passed=False,
        yields=(SavedYield(YieldReason.QUOTA, "others wait", granted_at + 5.0, EndReason.YIELDED, asked=True),),
        shares=(SavedShare(gpu, "GPU-1", 6 * GIB, 6 * GIB, None, 0, GIB, (process, ProcessId(1, 2))),),
        recover_until=None,
    )


def ended(token: int, *, name: str = "", at: float = 200.5) -> EndedRecord:
    return EndedRecord(
        lease_id=f"{token:x}-mark",
        key=key(name or f"request-{token}"),
        token=token,
        reason=EndReason.RELEASED,
        held=at - 100.25,
        ended_at=at,
        verdict=MemoryVerdict.WITHIN,
        peak=5 * GIB,
    )


def never_a_lease(name: str, *, at: float = 200.5) -> EndedRecord:
    return EndedRecord("", key(name), 0, EndReason.CANCELLED, 0.0, at, "the caller gave up")


def gpu(name: str, token: int, *, cordon: str | None = None, cooldown: SavedCooldown | None = None) -> SavedGpu:
    return SavedGpu(name, f"GPU-of-{name}", token, cordon, cooldown)


def cooldown(token: int, at: float) -> SavedCooldown:
    return SavedCooldown(
        f"{token:x}-mark", at, at + 15.0, (ProcessId(7, 8),), holder_known=True, family=(ProcessId(4711, 123456),)
    )


def unsynced(folder: Path) -> Journal:
    """A journal that never waits for the disk, which takes most of the time and shows nothing here."""
    journal = Journal.open(folder, durability="full")
    journal._connection.execute("PRAGMA synchronous = OFF")
    return journal


@dataclass
class Told:
    """What a journal was told, and so has to give back."""

    epoch: int = 0
    boot_id: str = ""
    pid_namespace: int = 0
    tokens_until: int = 0
    leases: dict[str, SavedLease] = field(default_factory=dict)
    ended: list[EndedRecord] = field(default_factory=list)
    gpus: dict[str, SavedGpu] = field(default_factory=dict)
    coming: tuple[str, int] | None = None

    def begin(self, *, epoch: int, boot_id: str, pid_namespace: int, tokens_until: int) -> None:
        self.epoch = epoch
        self.tokens_until = max(self.tokens_until, tokens_until)
        self.ended = self._kept()
        self.coming = boot_id, pid_namespace
        if not (self.leases or self.ended or self.gpus):
            self.boot_id, self.pid_namespace = self.coming

    def commit(self, changes: Sequence[Change]) -> None:
        if self.coming:
            if self.coming[0] != self.boot_id:
                self.ended = [replace(record, ended_at=0.0) for record in self.ended]
            self.boot_id, self.pid_namespace = self.coming
            self.coming = None
        for change in changes:
            self._apply(change)

    def _apply(self, change: Change) -> None:
        match change:
            case LeaseSaved(saved):
                self.leases[saved.lease_id] = saved
            case LeaseDropped(lease_id):
                self.leases.pop(lease_id, None)
            case Closed(record):
                self.leases.pop(record.lease_id, None)
                self.ended = [each for each in self.ended if each.lease_id or each.key != record.key]
                self.ended.append(record)
            case GpuSaved(saved_gpu):
                self.gpus[saved_gpu.key] = saved_gpu
            case TokensReserved(until):
                self.tokens_until = max(self.tokens_until, until)
            case Rewritten(saved_all, until):
                self.leases = {each.lease_id: each for each in saved_all.leases}
                self.ended = list(saved_all.ended)
                self.gpus = {each.key: each for each in saved_all.gpus}
                self.tokens_until = max(self.tokens_until, until)

    def _kept(self) -> list[EndedRecord]:
        newest = max((record.ended_at for record in self.ended), default=0.0)
        return [record for record in self.ended if newest - record.ended_at <= KEPT_SECONDS]

    @property
    def saved(self) -> Saved:
        by_token = sorted(self.leases.values(), key=lambda each: each.token)
        return Saved(tuple(by_token), tuple(self._kept()), tuple(self.gpus.values()))


class Life:
    """Changes such as an arbiter makes, without end, from a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.now = 50.0
        self._token = 1 << 40
        self._live: list[SavedLease] = []
        self._dice: list[tuple[int, str]] = [
            (40, "grant"), (34, "end"), (6, "drop"), (6, "touch"), (6, "refuse"), (4, "gpu"), (2, "tokens"), (2, "all")
        ]  # fmt: skip

    def changes(self, told: Told) -> list[Change]:
        """Those of one commit."""
        self.now += self._random.expovariate(1 / 20.0)
        made: list[Change] = []
        for _ in range(self._random.choice((1, 1, 1, 2, 5))):
            weights, names = zip(*self._dice, strict=True)
            name = self._random.choices(names, weights)[0]
            made += getattr(self, f"_{name}")(told)
        return made or self._grant(told)

    def _grant(self, _told: Told) -> list[Change]:
        self._token += self._random.choice((1, 1, 1, 7))
        granted = lease(self._token, name=f"request-{self._random.randrange(40)}", granted_at=self.now)
        self._live.append(granted)
        return [LeaseSaved(granted)]

    def _end(self, _told: Told) -> list[Change]:
        if not self._live:
            return []
        over = self._live.pop(self._random.randrange(len(self._live)))
        record = replace(
            ended(over.token, name=over.key.request_id, at=self.now), detail="x" * self._random.randrange(99)
        )
        cool = cooldown(over.token, self.now) if self._random.random() < 0.3 else None
        return [Closed(record), GpuSaved(gpu("gpu:0", over.token, cooldown=cool))]

    def _drop(self, _told: Told) -> list[Change]:
        return [LeaseDropped(self._live.pop().lease_id)] if self._live else []

    def _touch(self, _told: Told) -> list[Change]:
        if not self._live:
            return []
        index = self._random.randrange(len(self._live))
        self._live[index] = replace(self._live[index], recover_until=self.now, hold_passed=True)
        return [LeaseSaved(self._live[index])]

    def _refuse(self, _told: Told) -> list[Change]:
        return [Closed(never_a_lease(f"request-{self._random.randrange(40)}", at=self.now))]

    def _gpu(self, _told: Told) -> list[Change]:
        name = f"gpu:{self._random.randrange(3)}"
        return [GpuSaved(gpu(name, self._token, cordon=self._random.choice((None, "maintenance"))))]

    def _tokens(self, _told: Told) -> list[Change]:
        return [TokensReserved(self._token + (1 << 16))]

    def _all(self, told: Told) -> list[Change]:
        # Comes first in its commit or after others; what is in memory then is what was told and what is live.
        saved = Saved(tuple(self._live), tuple(record for record in told.saved.ended), told.saved.gpus)
        return [Rewritten(saved, self._token + (1 << 16))]
