"""The scheduling pass: who of the waiting gets which GPUs, in the order of the queue.

The first ungated ticket that lacks capacity holds back everything behind it on its candidates, so that
large requests collect the GPUs that come free. A lane's head stands for its lane: once it is held back,
so is all behind it.
"""

import heapq

from gpuarbiter_server.core.admission import choose, preference
from gpuarbiter_server.core.clocks import start_hold
from gpuarbiter_server.core.effects import GrantedMemory, Refresh, SampleFast
from gpuarbiter_server.core.explain import wait_reason
from gpuarbiter_server.core.ledger import Gpu
from gpuarbiter_server.core.model import EventType, WaitReason
from gpuarbiter_server.core.offering import offer
from gpuarbiter_server.core.queueing import leave_queue
from gpuarbiter_server.core.share import Share
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.ticket import Lane, Ticket

_MEMORY_REASONS = (WaitReason.MEMORY, WaitReason.MEMORY_RECOVERY)


def schedule(state: State, now: float) -> None:
    """Grants whatever can be granted now."""
    state.notices_due = True
    if state.journal.fault is not None or state.shutting_down:
        _tell_sampler(state, frozenset())
        return
    if not state.settings.enabled:
        _grant_all(state, now)
    while _walk(state, now):
        pass


def _walk(state: State, now: float) -> bool:
    """Goes down the queue; returns whether it has to begin again.

    A grant can reach a limit that gates one of those ahead: then that one holds nobody back any more.
    """
    keeping: list[Ticket] = []
    held: set[str] = set()
    waits_on_memory: set[str] = set()
    heads = [(lane.ready.first(), number, lane) for number, lane in enumerate(state.queue.lanes) if lane.ready]
    heapq.heapify(heads)
    while heads and len(held) < len(state.gpus):
        entry, number, lane = heads[0]
        ticket = entry[2]
        if _pass_or_grant(state, ticket, held, now):
            granted = ticket.entry is None
            if granted and any(state.gates.closed(other, state.settings) for other in keeping):
                return True
            _advance(heads, lane, number)
            continue
        heapq.heappop(heads)
        held |= lane.keys
        keeping.append(ticket)
        reason = wait_reason(state, ticket)
        if reason in _MEMORY_REASONS:
            waits_on_memory |= lane.keys
        if reason is WaitReason.MEMORY_RECOVERY:
            _await_recovery(state, ticket.gpus)
    _tell_sampler(state, frozenset(waits_on_memory))
    return False


def grant(state: State, ticket: Ticket, gpus: list[Gpu], now: float) -> None:
    """Turns a ticket into a lease on these GPUs, and offers it, once it is durable where that is asked for."""
    call = ticket.call
    assert call is not None, "nobody is there to be granted anything"
    leave_queue(state, ticket)
    lease = state.new_lease(ticket, now)
    terms = ticket.terms
    admissible = min(gpu.admissible for gpu in gpus)
    shares = []
    for gpu in gpus:
        share = Share(lease.lease_id, terms.memory_bytes, ticket.process, ticket.request.gpu.resident_bytes, now)
        gpu.add(share, exclusive=terms.exclusive)
        gpu.newest_token = lease.token
        gpu.stats.waited(lease.queue_wait)
        shares.append((gpu, share))
    lease.shares = tuple(shares)
    state.turn = gpus[-1].number + 1
    state.gates.granted(ticket)
    state.requests.put(ticket.key, lease)
    start_hold(state, lease, now)
    state.calls[call] = lease
    memory = GrantedMemory(terms.memory_bytes, max(share.committed for _, share in shares), admissible)
    # Told when it is decided: what is granted in which order is not the journal's business.
    state.record(EventType.GRANTED, lease, waited=lease.queue_wait, outcome="granted", memory=memory)
    if lease.offered:
        offer(state, lease, now)
    state.changed = True


def _grant_all(state: State, now: float) -> None:
    """The arbiter is disabled: everyone who is there gets whatever their placement prefers."""
    for ticket in [ticket for ticket in state.queue.in_order() if ticket.call is not None]:
        gpus = sorted(ticket.gpus, key=preference(ticket.terms.placement, state.turn))
        grant(state, ticket, gpus[: ticket.request.gpu.count], now)


def _pass_or_grant(state: State, ticket: Ticket, held: set[str], now: float) -> bool:
    """Whether the ticket is out of the way: parked at its gate, or granted."""
    gate = state.gates.closed(ticket, state.settings)
    if gate is not None:
        state.queue.park(ticket, gate)
        for follower in state.gates.passed_over(ticket, state.settings):
            state.queue.unpark(follower)
        return True
    usable = [gpu for gpu in ticket.gpus if gpu.key not in held] if held else ticket.gpus
    refuse = state.settings.memory.refuse_when_stale
    gpus = choose(usable, ticket, state.turn, refuse_when_stale=refuse)
    if gpus is None:
        return False
    grant(state, ticket, gpus, now)
    return True


def _advance(heads: list[tuple[tuple[float, int, Ticket], int, Lane]], lane: Lane, number: int) -> None:
    """Puts the next ticket of a lane in the place of the one that is out of the way."""
    if lane.ready:
        heapq.heapreplace(heads, (lane.ready.first(), number, lane))
    else:
        heapq.heappop(heads)


def _await_recovery(state: State, gpus: tuple[Gpu, ...]) -> None:
    """Someone waits for memory to come back: look at once whether it has."""
    unseen = frozenset(gpu.key for gpu in gpus if gpu.departed and not gpu.reading_asked)
    for gpu in gpus:
        gpu.recovery_awaited = True
        gpu.reading_asked = gpu.reading_asked or gpu.key in unseen
    if unseen:
        state.emit(Refresh(unseen))


def _tell_sampler(state: State, wanted: frozenset[str]) -> None:
    """Has the GPUs that someone waits on for memory read often, and no others."""
    if wanted != state.wanted_memory:
        state.wanted_memory = wanted
        state.emit(SampleFast(wanted))
