"""What must hold in any world after every event, checked from outside as far as that goes.

The world itself checks that calls get one last answer, that nobody who is gone is spoken to, and that
tokens rise.
"""

from collections.abc import Iterable
from dataclasses import replace

from core.naive import Wish, first_grantable, in_order
from core.world import World
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.leases import Lease
from gpuarbiter_server.core.ledger import Gpu
from gpuarbiter_server.core.model import RequestKey, Sharing, WaitReason
from gpuarbiter_server.core.records import SavedGpu, SavedLease
from gpuarbiter_server.core.saving import saved_gpu, saved_lease
from gpuarbiter_server.core.share import PEAK_MARGIN, Share
from gpuarbiter_server.core.ticket import Ticket
from gpuarbiter_server.core.timers import Clock

# What rounding down may lose for each lease.
_CRUMBS = 4
_EPSILON = 1e-9
_PLAIN = tuple(name for name in SavedLease.__slots__ if name != "shares")


class Invariants:
    """Looks at a world after each event, and remembers what it needs to judge the next."""

    def __init__(self, world: World) -> None:
        self._granted_before: set[str] = set()
        # When the last sign of life of a lease without a stream was.
        self._alone_since: dict[str, float] = {}
        self._told_at: dict[int, float] = {}
        # Of leases whose holders were not heard of since a restart: by when they end at the latest.
        self._recover_by: dict[str, float] = {}
        # What was offered and is live, as it was last seen.
        self._held: dict[str, SavedLease] = {}
        self._gpus: dict[str, SavedGpu] = {}
        self._ended: set[str | RequestKey] = set()
        self._nothing_pending = True
        self._started_at = world.now
        world.watchers.append(self.check)

    def check(self, world: World, event: ev.Event) -> None:
        """Everything that holds after every event."""
        if isinstance(event, ev.Recover):
            self._check_recovery(world, event)
        elif isinstance(event, ev.ReadingTaken):
            assert world.state.gpus[event.gpu].lost is None, "it is there: it was read"
        check_exclusive(world)
        if not isinstance(event, ev.Recover):  # What comes back counts in full, whatever the settings are now.
            self._check_committed(world)
        self._check_names(world)
        self._check_streams(world)
        self._check_admission(world, event)
        self._check_bounds(world, event)
        self._check_deadlines(world, event)
        self._check_notices(world)
        check_timers(world)
        if len(world.state.queue):
            check_work_conserving(world)
            check_reasons(world)
        check_journal(world)
        live = world.state.leases.live
        self._granted_before = set(live)
        if world.disk is not None:
            self._nothing_pending = world.disk.taking and not world.disk.pending
            self._gpus |= {gpu.spec.uuid: saved_gpu(gpu) for gpu in world.state.gpus.values()}
            if isinstance(event, ev.Recover) or (isinstance(event, ev.JournalWritten) and self._nothing_pending):
                self._ended = ended_names(world)
            self._held = {lease_id: saved_lease(lease) for lease_id, lease in live.items() if lease.offered}

    def _check_kept(self, world: World, event: ev.Recover) -> None:
        """Cordons, cooldowns, tokens and what ended are as they were, also of GPUs that were away."""
        assert ended_names(world) >= self._ended
        for gpu in world.state.gpus.values():
            before, now = self._gpus.get(gpu.spec.uuid), saved_gpu(gpu)
            if before is None:
                continue
            assert (now.cordon, now.newest_token) == (before.cordon, before.newest_token)
            if before.cooldown is not None and event.same_boot:
                assert now.cooldown is not None
                assert now.cooldown.until >= before.cooldown.until

    def _check_recovery(self, world: World, event: ev.Recover) -> None:
        """Every lease that was offered and not known to be over is back as it was; after a reboot none is."""
        live = world.state.leases.live
        over = {record.lease_id for record in event.saved.ended}
        there = {gpu.uuid for gpu in world.specs}
        for lease_id, held in self._held.items():
            if lease_id in over or not event.same_boot or any(share.uuid not in there for share in held.shares):
                assert lease_id not in live
            elif self._nothing_pending:
                now = saved_lease(live[lease_id])
                assert timeless(now) == timeless(held, event.same_pids), "it is not what it was"
            else:
                assert lease_id in live
        assert event.same_boot or not live
        self._started_at = world.now
        if self._nothing_pending:
            self._check_kept(world, event)
        else:
            # What was on its way to the disk may be lost. Of GPUs that are away it cannot be seen what was known.
            self._gpus.clear()
        if not event.same_boot:
            # No process of before is left, on whatever GPU.
            self._gpus = {uuid: replace(gpu, cooldown=None) for uuid, gpu in self._gpus.items()}
            self._alone_since.clear()
            self._told_at.clear()
            self._recover_by.clear()
        grace = world.arbiter.settings.recovery_grace
        for lease_id, lease in live.items():
            self._alone_since.pop(lease_id, None)
            before = next(saved.recover_until for saved in event.saved.leases if saved.lease_id == lease_id)
            self._recover_by.setdefault(lease_id, before or world.now + (lease.terms.ttl or grace))

    def _check_committed(self, world: World) -> None:
        """What is promised fits when something is promised, wherever readings or declarations can tell."""
        for gpu in world.state.gpus.values():
            assert gpu.unleased >= 0
            fresh = [share for share in gpu.shares.values() if share.lease_id not in self._granted_before]
            blind = gpu.spec.monitored and (gpu.stale or gpu.reading is None)
            if not fresh or blind or any(not share.declared for share in fresh):
                continue
            promised = sum(_needed(share) if share in fresh else share.committed for share in gpu.shares.values())
            assert promised <= gpu.capacity + _CRUMBS * len(gpu.shares), f"{gpu.key}: {promised} of {gpu.capacity}"

    def _check_names(self, world: World) -> None:
        """A request_id has at most one ticket or lease of its identity."""
        state = world.state
        tickets = [ticket.key for ticket in state.queue.in_order()]
        leases = [lease.ticket.key for lease in state.leases.live.values()]
        assert len(set(tickets + leases)) == len(tickets) + len(leases)
        assert all(state.requests.get(key) is not None for key in tickets + leases)

    def _check_streams(self, world: World) -> None:
        """Every open stream belongs to a ticket or a lease that knows of it, and nobody else does."""
        calls = world.state.calls
        open_ = {stream.call for stream in world.streams.values() if stream.open}
        detached = {call for call, of in calls.items() if isinstance(of, Lease) and of.listener is None and of.offered}
        assert open_ == set(calls) - detached
        for call, subject in calls.items():
            assert subject.call == call
            if isinstance(subject, Ticket):
                assert subject.entry is not None
            else:
                assert world.state.leases.live[subject.lease_id] is subject

    def _check_admission(self, world: World, event: ev.Event) -> None:
        """Nobody new waits beyond the limit of a queue or of a client."""
        if not isinstance(event, ev.Acquire):
            return
        subject = world.state.calls.get(event.call)
        joined = any(isinstance(e, fx.Recorded) and e.type.name == "JOINED" for e in world.effects)
        if joined or not isinstance(subject, Ticket):
            return
        state, limits = world.state, world.arbiter.settings
        below = sum(state.queue.length(gpu.key) <= limits.queue_limit for gpu in subject.gpus)
        assert below >= subject.request.gpu.count
        assert not limits.waiting_per_client or state.waiting[subject.key.identity] <= limits.waiting_per_client

    def _check_bounds(self, world: World, event: ev.Event) -> None:
        """Whoever has a bound is gone by it; whoever's process is dead is gone at once."""
        if isinstance(event, ev.ProcessExited):
            held = [lease.ticket for lease in world.state.leases.live.values()]
            assert all(t.process != event.process for t in [*held, *world.state.queue.in_order()])
        live = world.state.leases.live
        self._alone_since = {lease_id: since for lease_id, since in self._alone_since.items() if lease_id in live}
        renewed = event.lease_id if isinstance(event, ev.Renew) and world.count(fx.Renewed) else None
        offered = {effect.lease.lease_id for effect in world.effects if isinstance(effect, fx.Granted)}
        self._recover_by = {
            lease_id: by
            for lease_id, by in self._recover_by.items()
            if lease_id in live and live[lease_id].recover_until is not None
        }
        for lease_id, lease in live.items():
            if lease.listener is not None:
                self._alone_since.pop(lease_id, None)
                continue
            if lease.recover_until is not None:
                assert lease.recover_until <= self._recover_by[lease_id] + _EPSILON
                assert not isinstance(event, ev.Tick) or world.now < lease.recover_until
                continue
            if not lease.patience:
                # Nameless, it came back with a restart and was renewed: it ends when it would have anyway.
                assert world.state.timers.when((Clock.PATIENCE, lease)) is not None
                continue
            if lease_id == renewed or lease_id in offered:
                self._alone_since[lease_id] = world.now
            since = self._alone_since.setdefault(lease_id, world.now)
            assert world.now <= since + lease.patience + _EPSILON
            assert lease.patience

    def _check_deadlines(self, world: World, event: ev.Event) -> None:
        """Whoever is to be gone at a time is gone when that has come."""
        if not isinstance(event, ev.Tick):
            return
        for lease in world.state.leases.live.values():
            dog = lease.terms.watchdog
            if dog.revoke and lease.hold_until is not None:
                assert world.now <= max(lease.hold_until, self._started_at) + dog.grace + _EPSILON
        for ticket in world.state.queue.in_order():
            if ticket.deadline is not None:
                assert world.now < ticket.deadline + _EPSILON

    def _check_notices(self, world: World) -> None:
        """At most four notices a second for a stream, and one every ten seconds at the latest."""
        for effect in world.effects:
            if isinstance(effect, fx.Queued):
                told_at = self._told_at.get(effect.call)
                assert told_at is None or world.now - told_at >= 0.25 - _EPSILON
                self._told_at[effect.call] = world.now
        for call, subject in world.state.calls.items():
            if isinstance(subject, Ticket):
                assert world.now - self._told_at[call] <= 10.0 + _EPSILON


def ended_names(world: World) -> set[str | RequestKey]:
    """What is known to have ended, by its lease id and by its request; of one request the newest end counts."""
    records = world.state.leases.all_ended()
    return {record.lease_id for record in records if record.lease_id} | {record.key for record in records}


def timeless(lease: SavedLease, same_pids: bool = True) -> SavedLease:
    """What a restart must not change: not what readings moved, nor keys, nor the wait for its holder that it begins."""
    shares = tuple(replace(share, gpu="", committed=0, peak=None, baseline=()) for share in lease.shares)
    holder = lease.request.holder if same_pids else replace(lease.request.holder, process=None)
    return replace(lease, shares=shares, recover_until=None, request=replace(lease.request, holder=holder))


def check_journal(world: World) -> None:
    """Replaying what was saved gives the state; nothing is offered that is not written."""
    disk, state = world.disk, world.state
    if disk is None:
        return
    journal = state.journal
    assert not journal.leases
    assert not journal.gpus
    assert journal.open == disk.taking
    waiting = set(journal.offers)
    for lease_id, lease in state.leases.live.items():
        assert lease.offered != (lease in waiting)
        assert lease.token <= journal.tokens_until
        if lease.offered and journal.fault is None:
            assert lease_id in disk.written.leases
    for effect in world.effects:
        if isinstance(effect, fx.Granted):
            # Of one that is back the shell waits for the word that it is.
            assert effect.lease.lease_id in disk.written.leases or journal.fault is not None, "it is not written"
        assert not (isinstance(effect, fx.Resized) and journal.fault is not None)
    if not disk.taking:
        assert not waiting
        return
    assert state.leases.live.keys() == disk.coming.leases.keys()
    for lease_id, lease in state.leases.live.items():
        assert facts(saved_lease(lease)) == facts(disk.coming.leases[lease_id]), lease_id
    for gpu in state.gpus.values():
        kept = disk.coming.gpus.get(gpu.spec.uuid or gpu.key, SavedGpu(gpu.key, gpu.spec.uuid, 0, None, None))
        here = saved_gpu(gpu)
        assert (kept.cordon, kept.cooldown) == (here.cordon, here.cooldown)
        tokens = [lease.token for lease in state.leases.live.values() if gpu.key in lease.gpu_keys]
        assert max([kept.newest_token, *tokens]) == here.newest_token


def facts(lease: SavedLease) -> list[object]:
    """All but what readings move: that is saved with the next change only, and seen anew after a restart."""
    shares = [(s.gpu, s.uuid, s.declared, s.resident, s.used_before, s.baseline) for s in lease.shares]
    return [getattr(lease, name) for name in _PLAIN] + shares


def _needed(share: Share) -> int:
    """What a new lease was let in for: its declaration, or what its holder held already if that is more."""
    return share.declared if share.committed <= share.declared else int(share.committed / PEAK_MARGIN)


def check_timers(world: World) -> None:
    """No timer outlives its subject, none is missing a place in the heap, and the heap is bounded."""
    state = world.state
    timers = state.timers
    assert len(timers._heap) <= 2 * len(timers._when) + 64
    assert set(timers._when.items()) <= {(timer, (when, count)) for when, count, timer in timers._heap}
    for _, subject in timers._when:
        alive = (
            subject is None
            or isinstance(subject, Gpu)
            or (isinstance(subject, Ticket) and subject.entry is not None)
            or (isinstance(subject, Lease) and subject.lease_id in state.leases.live)
        )
        assert alive, f"a timer of {subject} is left"
    bound = 3 * (len(state.queue) + len(state.leases.live) + len(state.gpus)) + 1
    assert len(timers) <= bound
    for gpu in state.gpus.values():
        assert (gpu.cooldown is not None) == (timers.when((Clock.COOLDOWN, gpu)) is not None)


def wishes_of(tickets: Iterable[Ticket]) -> list[Wish]:
    """The waiting requests for the plainest rule of order; the number names the ticket."""
    return [
        Wish(
            name=str(ticket.number),
            number=ticket.number,
            arrived_at=ticket.enqueued_at,
            priority=ticket.terms.priority,
            candidates=tuple(gpu.key for gpu in ticket.gpus),
            count=ticket.request.gpu.count,
            present=ticket.call is not None,
        )
        for ticket in tickets
    ]


def check_work_conserving(world: World) -> None:
    """Nobody waits who is ungated, fits, and is not held back by anyone ahead; and the order is the order."""
    state = world.state
    tickets = {str(ticket.number): ticket for ticket in state.queue.in_order()}
    ordered = in_order(wishes_of(tickets.values()), world.now, world.arbiter.settings.aging)
    assert [wish.name for wish in ordered] == list(tickets)
    idle = first_grantable(
        ordered,
        gated=lambda wish: is_gated(world, tickets[wish.name], tickets.values()),
        fits=lambda wish, key: has_room(world, tickets[wish.name], key),
    )
    assert idle is None, f"{tickets[idle[0].name].key} waits for nothing: {idle[1]} are free"


def is_gated(world: World, ticket: Ticket, waiting: Iterable[Ticket]) -> bool:
    """Whether anything but room keeps a ticket back; waiting: all tickets."""
    state, limits = world.state, world.arbiter.settings
    request = ticket.request
    in_service = sum(gpu.lost is None and gpu.cordon is None for gpu in ticket.gpus)
    holders = [lease.ticket for lease in state.leases.live.values()]
    task_limit = limits.policy(request.task_type).max_concurrent_leases
    tasks = sum(holder.request.task_type == request.task_type for holder in holders)
    own = sum(holder.key.identity == ticket.key.identity for holder in holders)
    return (
        ticket.call is None
        or in_service < request.gpu.count
        or any(_goes_before(other, ticket) for other in [*holders, *waiting])
        or 0 < task_limit <= tasks
        or 0 < limits.leases_per_client <= own
    )


def _goes_before(other: Ticket, ticket: Ticket) -> bool:
    theirs, ours = other.request.sequence, ticket.request.sequence
    if theirs is None or ours is None or theirs.group != ours.group:
        return False
    same = (other.key.identity, other.request.task_type) == (ticket.key.identity, ticket.request.task_type)
    return same and theirs.index < ours.index


def has_room(world: World, ticket: Ticket, key: str) -> bool:
    """Whether a GPU could take a ticket: by who is on it, by what holds it back, and by its ledger."""
    gpu = world.state.gpus[key]
    here = [lease for lease in world.state.leases.live.values() if key in lease.gpu_keys]
    if gpu.lost is not None or gpu.cordon is not None or gpu.cooldown is not None or gpu.awaiting_first:
        return False
    if world.arbiter.settings.memory.refuse_when_stale and gpu.stale:
        return False
    if world.state.journal.fault is not None:
        return False
    if any(lease.sharing is Sharing.EXCLUSIVE for lease in here) or (here and ticket.terms.exclusive):
        return False
    declared, stand_in = ticket.terms.memory_bytes, ticket.request.gpu.resident_bytes
    if not declared:
        return True
    room = gpu.room(gpu.resident_of(ticket.process, stand_in))
    return gpu.need_of(ticket.process, stand_in, declared) <= room


def check_exclusive(world: World) -> None:
    """At most one exclusive holder on a GPU, and nobody beside it."""
    here: dict[str, list[Lease]] = {}
    for lease in world.state.leases.live.values():
        for key in lease.gpu_keys:
            here.setdefault(key, []).append(lease)
    for key, leases in here.items():
        exclusive = any(lease.sharing is Sharing.EXCLUSIVE for lease in leases)
        assert not exclusive or len(leases) == 1, f"{key}: {[lease.lease_id for lease in leases]}"


def check_reasons(world: World) -> None:
    """Who is gated is told a gate, and who is not is told what is in the way."""
    gates = {
        WaitReason.UNSPECIFIED,
        WaitReason.SEQUENCE,
        WaitReason.CONCURRENCY_LIMIT,
        WaitReason.DRAINING,
        WaitReason.GPU_UNHEALTHY,
    }
    tickets = list(world.state.queue.in_order())
    # One GPU will do: what is looked at are tickets.
    shown = world.snapshot(world.specs[0].key, max_tickets=10**6).queue
    for ticket, view in zip(tickets, shown, strict=True):
        assert (view.reason in gates) == is_gated(world, ticket, tickets), view


def check_empty(world: World) -> None:
    """Nothing is left when every client is gone and time has passed."""
    state = world.state
    assert world.arbiter.idle
    assert not state.queue.lanes
    assert not state.calls
    assert not state.waiting
    assert not state.requests._by_name
    gates = state.gates
    assert [gates._tasks, gates._clients, gates._groups] == [{}, {}, {}]
    assert gates.absent.empty
    assert gates.draining.empty
    assert gates.unhealthy.empty
    assert not state.owners._holders
    assert not state._interest
    assert not world.watched
    assert world.fast == frozenset()
    for gpu in state.gpus.values():
        assert [gpu.shares, gpu.departed, gpu.recovering] == [{}, {}, {}]
        assert gpu.cooldown is None
    assert world.arbiter.next_deadline() is None
    assert not any(stream.open for stream in world.streams.values())
