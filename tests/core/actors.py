"""Everything that clients, operators, GPUs and processes do to an arbiter, at random.

Each method is one thing that happens; `chance` decides the rest. What an act needs and is not there makes
it do nothing.
"""

import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from core.world import GIB, Stream, World, pid
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.errors import ArbiterError
from gpuarbiter_server.core.model import (
    BusyPolicy,
    GpuSpec,
    Holder,
    Placement,
    ProcessId,
    Sharing,
    WorkReport,
    WorkResult,
)
from gpuarbiter_server.core.policy import Memory, Policy, Settings, Watchdog

TASKS = ("ASR", "NMT", "LLM", "ONE")
CLIENTS = ("a", "b", "c")
# What the runtime waits for a commit.
STALL_SECONDS = 2.0
_TIMES = (0.0, 0.0625, 0.25, 0.5, 1.0, 2.0, 5.0, 20.0)


def random_specs(chance: random.Random) -> list[GpuSpec]:
    """One to three GPUs, monitored or not."""
    return [
        GpuSpec(f"gpu:{n}", n, chance.choice((8, 16, 24)) * GIB, f"GPU-{n}", monitored=chance.random() < 0.6)
        for n in range(chance.randint(1, 3))
    ]


def random_policy(chance: random.Random) -> Policy:
    """A policy with clocks of all kinds."""
    return Policy(
        priority=chance.choice((20, 50, 80)),
        max_priority=chance.choice((80, 100)),
        max_wait=chance.choice((None, None, 3.0, 0.5, 0.0)),
        max_hold=chance.choice((0.0, 2.0, 8.0)),
        max_hold_limit=chance.choice((0.0, 0.0, 4.0)),
        ttl_limit=chance.choice((3600.0, 3.0)),
        disconnect_grace=chance.choice((5.0, 5.0, 1.0, 0.0)),
        busy_policy=chance.choice((BusyPolicy.WAIT, BusyPolicy.WAIT, BusyPolicy.SKIP, BusyPolicy.FALLBACK_CPU)),
        sharing=chance.choice((Sharing.EXCLUSIVE, Sharing.SHARED)),
        memory_bytes=chance.choice((0, 0, 2 * GIB)),
        raise_after_out_of_memory=chance.random() < 0.3,
        max_concurrent_leases=chance.choice((0, 0, 1, 2)),
        watchdog=Watchdog(
            warn=chance.random() < 0.8,
            yield_=chance.random() < 0.7,
            grace=chance.choice((0.0, 1.0, 5.0)),
            revoke=chance.random() < 0.5,
        ),
    )


def random_settings(chance: random.Random) -> Settings:
    """Settings that make things happen."""
    return Settings(
        queue_limit=chance.choice((0, 1, 3, 8)),
        waiting_per_client=chance.choice((0, 2, 5)),
        leases_per_client=chance.choice((0, 0, 2)),
        cooldown=chance.choice((0.0, 3.0, 15.0)),
        recovery_grace=chance.choice((0.0, 2.0, 10.0)),
        aging=chance.choice((0.0, 0.5, 1.0, 2.0)),
        placement=chance.choice(list(Placement)[1:]),
        memory=Memory(
            headroom_bytes=chance.choice((None, 0, GIB)),
            refuse_when_stale=chance.random() < 0.2,
            recovery_limit=chance.choice((0.0, 1.0, 10.0)),
        ),
        default_policy=random_policy(chance),
        policies={
            "NMT": random_policy(chance),
            "LLM": random_policy(chance),
            "ONE": replace(random_policy(chance), max_concurrent_leases=1),
        },
    )


class Actors:
    """Who lives in a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._streams: list[Stream] = []
        self._requests = 0
        self._next_pid = 10
        self._processes: dict[str, ProcessId] = {}
        self.refusals = 0
        self._all_specs = world.specs
        # Leases whose holder has shown that it knows of them.
        self._known: set[str] = set()

    # -- clients --

    def acquire(self, chance: random.Random) -> None:
        """Someone asks for a lease, in any shape."""
        world = self.world
        client = chance.choice(CLIENTS)
        keys = [spec.key for spec in world.specs]
        self._requests += 1
        named = chance.random() < 0.6
        ttl = chance.choice((0.0, 0.0, 2.0, 10.0))
        stream = world.acquire(
            chance.choice(TASKS),
            client,
            request_id=f"r{self._requests}" if named else "",
            candidates=tuple(chance.sample(keys, chance.randint(1, len(keys)))) if chance.random() < 0.5 else (),
            count=chance.choice((1, 1, 1, 2)),
            memory=chance.choice((0, 1, 4, 7, 12, 20)) * GIB,
            sharing=chance.choice((Sharing.UNSPECIFIED, Sharing.SHARED, Sharing.SHARED, Sharing.EXCLUSIVE)),
            resident=chance.choice((0, 0, 0, 3)) * GIB,
            priority=chance.choice((None, None, 0, 50, 51, 100)),
            busy=chance.choice(list(BusyPolicy)),
            max_wait=chance.choice((None, None, 0.0, 1.0, 20.0)),
            max_hold=chance.choice((None, None, 0.0, 3.0)),
            ttl=ttl,
            detached=named and ttl > 0 and chance.random() < 0.3,
            sequence=(chance.choice("xy"), chance.randint(0, 3)) if chance.random() < 0.25 else None,
            process=self._process_of(client, chance) if chance.random() < 0.6 else None,
        )
        self._streams.append(stream)

    def join(self, chance: random.Random) -> None:
        """Someone comes back with a request_id, or takes its own request over."""
        streams = [stream for stream in self._streams if stream.request.request_id]
        if not streams:
            return
        stream = chance.choice(streams[-12:])
        changes: dict[str, Any] = {}
        if chance.random() < 0.2:
            changes["task_type"] = chance.choice(TASKS)
        if chance.random() < 0.3:
            changes["priority"] = chance.choice((0, 50, 100))
        if chance.random() < 0.3:
            changes["max_hold"] = chance.choice((None, 0.0, 1.0, 6.0))
        if chance.random() < 0.3:
            changes["max_wait"] = chance.choice((None, 0.0, 2.0))
        if chance.random() < 0.3:
            client = stream.request.holder.client_id
            process = chance.choice((None, self._process_of(client, chance)))
            changes["holder"] = Holder(client, process=process)
        again = self.world.again(stream, **changes)
        self._streams.append(again)
        if again.granted:
            self._known.add(again.lease_id)

    def hang_up(self, chance: random.Random) -> None:
        """A stream breaks, perhaps before its Granted was written."""
        stream = self._pick(chance, lambda s: s.open)
        if stream is not None:
            self._break(stream, chance)

    def written(self, chance: random.Random) -> None:
        """The runtime says that a detached Granted was written, or could not be."""
        stream = self._pick(chance, lambda s: s.last is not None and s.granted and not s.broken)
        if stream is not None and stream.request.detached:
            self._break(stream, chance)

    def cancel(self, chance: random.Random) -> None:
        """An acquire of a session is taken back, late perhaps."""
        stream = self._pick(chance, lambda s: s.open or chance.random() < 0.1)
        if stream is not None:
            self.world.cancel(stream)

    def release(self, chance: random.Random) -> None:
        """A lease or request is released, by any of its names, once or twice."""
        stream = self._pick(chance, lambda s: s.open or chance.random() < 0.2)
        if stream is None:
            return
        caller = ev.Caller("local", client_id=stream.request.holder.client_id)
        result = chance.choice((WorkResult.OK, WorkResult.OUT_OF_MEMORY))
        report = chance.choice((None, WorkReport(result, peak_memory_bytes=5 * GIB)))
        if stream.granted and chance.random() < 0.7:
            token = chance.choice((0, stream.lease.fencing_token, 1))
            self._try(lambda: self.world.release(lease_id=stream.lease_id, token=token, report=report))
        elif stream.request.request_id:
            self._try(lambda: self.world.release(request_id=stream.request.request_id, caller=caller))

    def renew(self, chance: random.Random) -> None:
        """A holder shows that it is alive, late perhaps."""
        stream = self._pick(chance, lambda s: s.granted)
        if stream is not None:
            self._known.add(stream.lease_id)
            self._try(lambda: self.world.renew(stream.lease_id, extend=chance.choice((None, None, 1.0, 30.0))))

    def resize(self, chance: random.Random) -> None:
        """A holder wants more, less, or another way of sharing."""
        stream = self._pick(chance, lambda s: s.granted)
        if stream is not None:
            self._known.add(stream.lease_id)
            memory = chance.choice((None, 0, GIB, 6 * GIB, 15 * GIB))
            self._try(lambda: self.world.resize(stream.lease_id, memory, chance.choice(list(Sharing))))

    def check_fence(self, chance: random.Random) -> None:
        """Something protected asks for a token."""
        key = chance.choice(self.world.specs).key
        answer = self.world.check_fence(key, chance.randint(100, 120))
        assert not answer.current or answer.newest_token >= 100

    # -- processes --

    def die(self, chance: random.Random) -> None:
        """A process dies, and its streams break, before or after the kernel's word."""
        if not self._processes:
            return
        client = chance.choice(list(self._processes))
        process = self._processes.pop(client)
        streams = [s for s in self._streams if s.open and s.request.holder.process == process]
        if chance.random() < 0.5:
            for stream in streams:
                self._break(stream, chance)
        self.world.die(process)
        for stream in streams:
            if stream.open:
                self._break(stream, chance)

    def spawn(self, chance: random.Random) -> None:
        """A holder, or what is waited for after its end, has descendants; some of those die."""
        watched = sorted(self.world.watched)
        if not watched:
            return
        process = chance.choice(watched)
        self._next_pid += 1
        self.world.spawn(process, pid(self._next_pid))
        if chance.random() < 0.5:
            self.world.die(pid(self._next_pid))

    # -- GPUs --

    def look(self, chance: random.Random) -> None:
        """A reading: what it shows jumps, lacks, lies, or is old."""
        monitored = [spec for spec in self.world.specs if spec.monitored]
        if not monitored:
            return
        spec = chance.choice(monitored)
        known = sorted({*self.world.watched, *self._processes.values(), pid(1), pid(2)})
        listed = chance.sample(known, min(len(known), chance.randint(0, 3)))
        unknown = 0.05
        processes = {
            process: None if chance.random() < unknown else chance.choice((1, 3, 6, 25)) * GIB // 2
            for process in listed
        }
        used = sum(size or 0 for size in processes.values())
        if chance.random() < 0.3:
            used = chance.choice((0, GIB, spec.total_bytes, 2 * spec.total_bytes))
        self.world.read(
            spec.key,
            None if chance.random() < unknown else used,
            None if chance.random() < 0.2 else processes,
            at=self.world.now - chance.choice((0.0, 0.0, 0.0, 0.25, 1.0, 3.0)),
        )

    def lose(self, chance: random.Random) -> None:
        """A GPU falls off the bus; a reading brings it back."""
        self.world.lose(chance.choice(self.world.specs).key)

    def find(self, chance: random.Random) -> None:
        """A lost GPU is there again."""
        lost = [gpu.key for gpu in self.world.state.gpus.values() if gpu.lost is not None]
        if lost:
            self.world.read(chance.choice(lost), 0, {})

    # -- operators --

    def drain(self, chance: random.Random) -> None:
        """A GPU is cordoned."""
        key = chance.choice(self.world.specs).key
        self._try(lambda: self.world.drain(key, grace=chance.choice((None, None, 0.0, 2.0))))

    def resume(self, _chance: random.Random) -> None:
        """All GPUs are back in service."""
        self._try(self.world.resume)

    def revoke(self, chance: random.Random) -> None:
        """An operator ends a lease."""
        stream = self._pick(chance, lambda s: s.granted)
        if stream is not None:
            self.world.revoke(stream.lease_id, grace=chance.choice((0.0, 1.0)))

    def ask_to_yield(self, chance: random.Random) -> None:
        """The GPUs of a lease do no work, or that of one which is over by now."""
        stream = self._pick(chance, lambda s: s.granted)
        if stream is None:
            return
        before = self.world.state.leases.live.get(stream.lease_id)
        ends = None if before is None else before.threat
        asking = self.world.ask_to_yield(stream.lease_id, if_awaited=chance.random() < 0.5)
        after = self.world.state.leases.live.get(stream.lease_id)
        assert after is before, "it is asked, and not ended"
        assert (after is None) == (asking is fx.Asking.GONE)
        assert after is None or after.threat == ends, "no end follows"

    def configure(self, chance: random.Random) -> None:
        """The settings change as a whole."""
        self.world.send(ev.Configure(random_settings(chance)))

    # -- the journal --

    def write(self, chance: random.Random) -> None:
        """What is on its way is written, or the first of it."""
        disk = self.world.disk
        if disk is not None and disk.pending:
            self.world.write(chance.choice((None, None, 1)))

    def break_journal(self, chance: random.Random) -> None:
        """The disk is full, or fails."""
        disk = self.world.disk
        if disk is not None and disk.taking:
            self.world.break_journal(chance.choice((0, 0, 1, 100)))

    def mend_journal(self, _chance: random.Random) -> None:
        """The disk has room again."""
        disk = self.world.disk
        if disk is not None and not disk.taking:
            self.world.mend_journal()

    def crash(self, chance: random.Random) -> None:
        """The arbiter dies, or all of the machine; it starts again, perhaps without a GPU that was there."""
        world = self.world
        if world.disk is None:
            return
        same_boot = chance.random() < 0.85
        if not same_boot:
            self._processes.clear()
        world.crash(
            chance.choice((0, 1, 2, 100)),
            same_boot=same_boot,
            same_pids=chance.random() < 0.9,
            specs=self._found(chance),
            away=chance.choice((0.0, 0.0, 1.0, 12.0)),
        )
        dead = [client for client in sorted(self._processes) if chance.random() < 0.2]
        for client in dead:
            process = self._processes.pop(client)
            if process in world.watched:
                world.die(process)

    # -- time --

    def wait(self, chance: random.Random) -> None:
        """Time passes; what is on its way does not take longer than it may."""
        world = self.world
        until = world.now + chance.choice(_TIMES)
        while True:
            disk = world.disk
            if disk is None or not disk.taking:
                world.advance(until - world.now)
                return
            if disk.pending and world.now >= disk.pending_since + STALL_SECONDS:
                chance.choice((world.write, world.write, world.write, world.break_journal))()
            if world.now >= until:
                return
            world.advance(min(until - world.now, STALL_SECONDS / 2))

    # -- the end --

    def leave(self, chance: random.Random) -> None:
        """Every client goes, one way or another, and time passes until nothing is left."""
        world = self.world
        self.mend_journal(chance)
        if world.disk is not None:
            world.write()
        if chance.random() < 0.2:
            world.shut_down()
        for stream in self._streams:
            if stream.open:
                self._break(stream, chance)
        # Whatever is detached lives by its ttl, and cooldowns by their time.
        world.advance(3600)
        world.advance(60)
        if world.disk is not None:
            world.write()
            assert not world.disk.written.leases

    # -- inside --

    def _found(self, chance: random.Random) -> tuple[GpuSpec, ...] | None:
        """The GPUs that a start finds: as before, or others; keys go by the place, UUIDs stay."""
        if chance.random() < 0.8:
            return None
        there = [spec for spec in self._all_specs if chance.random() < 0.8] or self._all_specs[:1]
        return tuple(replace(spec, key=f"gpu:{n}", index=n) for n, spec in enumerate(there))

    def _process_of(self, client: str, chance: random.Random) -> ProcessId:
        if client not in self._processes or chance.random() < 0.1:
            self._next_pid += 1
            self._processes[client] = pid(self._next_pid)
        return self._processes[client]

    def _pick(self, chance: random.Random, suits: Callable[[Stream], bool]) -> Stream | None:
        streams = [stream for stream in self._streams[-40:] if suits(stream)]
        return chance.choice(streams) if streams else None

    def _break(self, stream: Stream, chance: random.Random) -> None:
        known = stream.granted and stream.lease_id in self._known
        delivered = stream.granted and (known or chance.random() < 0.7)
        if delivered:
            self._known.add(stream.lease_id)
        self.world.hang_up(stream, delivered=delivered)

    def _try(self, call: Callable[[], object]) -> None:
        """A call that may be refused; a refusal changes nothing."""
        before = self.world.arbiter.revision
        try:
            call()
        except ArbiterError:
            self.refusals += 1
        else:
            return
        assert self.world.arbiter.revision == before


ACTS: dict[Callable[[Actors, random.Random], None], int] = {
    Actors.acquire: 20,
    Actors.wait: 16,
    Actors.look: 16,
    Actors.release: 10,
    Actors.join: 8,
    Actors.hang_up: 6,
    Actors.renew: 4,
    Actors.resize: 4,
    Actors.cancel: 3,
    Actors.written: 4,
    Actors.die: 2,
    Actors.spawn: 2,
    Actors.find: 2,
    Actors.lose: 2,
    Actors.drain: 2,
    Actors.resume: 4,
    Actors.revoke: 2,
    Actors.ask_to_yield: 2,
    Actors.configure: 2,
    Actors.check_fence: 1,
    Actors.write: 30,
    Actors.break_journal: 1,
    Actors.mend_journal: 8,
    Actors.crash: 1,
}
