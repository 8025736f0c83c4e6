"""The way of an Acquire: into the queue or straight to its grant, joined, or broken off.

What is wrong with a request is found before anything is changed. A request that is new is put into the
queue and the scheduler runs; only if it was not granted at once does it need a place there.
"""

from dataclasses import replace

from gpuarbiter_server.core.admission import infeasible
from gpuarbiter_server.core.appetite import Eater
from gpuarbiter_server.core.clocks import claim, set_hold, start_patience, stop_patience
from gpuarbiter_server.core.effects import Failed, Granted
from gpuarbiter_server.core.ending import ended_effect, finish
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.core.events import Acquire, Call, StreamClosed
from gpuarbiter_server.core.explain import blockers_of, describe, facts_of, retry_after, wait_reason
from gpuarbiter_server.core.granting import schedule
from gpuarbiter_server.core.journaling import check_journal, unavailable
from gpuarbiter_server.core.leases import Lease
from gpuarbiter_server.core.ledger import Gpu
from gpuarbiter_server.core.model import AcquireRequest, EndReason, EventType, Identity, RequestKey, WaitReason
from gpuarbiter_server.core.notices import tell
from gpuarbiter_server.core.offering import take_back, tell_pending_yield
from gpuarbiter_server.core.queueing import enter_queue, leave_queue, start_wait
from gpuarbiter_server.core.snapshots import lease_view
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.terms import Terms, rejoined, terms_of
from gpuarbiter_server.core.ticket import Ticket
from gpuarbiter_server.core.timers import Clock
from gpuarbiter_server.core.withdrawal import expire_wait, give_up, refuse, remember, withdraw


def acquire(state: State, event: Acquire, now: float) -> None:
    """Grants, queues, refuses or joins."""
    request = event.request
    identity = Identity(request.principal, request.holder.client_id)
    if request.request_id:
        key = RequestKey(identity, request.request_id)
        current = state.requests.get(key)
        if current is not None:
            join(state, current, event, now)
            return
        ended = state.leases.ended_request(request.principal, identity.client_id, request.request_id)
        if ended is not None and ended.lease_id:
            state.emit(ended_effect(event.call, ended))
            return
    ticket = _ticket(state, event, identity, now)
    if not _refused_at_once(state, ticket, now):
        _enter(state, ticket, event.call, now)


def join(state: State, current: Ticket | Lease, event: Acquire, now: float) -> None:
    """A second stream takes a request or lease over; the newest wishes count where they may differ."""
    ticket = current if isinstance(current, Ticket) else current.ticket
    request = event.request
    _check_same(ticket.request, request)
    if isinstance(current, Lease) and current.recover_until is not None:
        check_journal(state)
    if current.call is not None:
        del state.calls[current.call]
    if current.listener is not None:
        error = ArbiterError(ErrorReason.SUPERSEDED, "another stream has joined this request")
        state.emit(Failed(current.listener, error))
    state.adopt(request.holder.process)
    state.disown(ticket.process)
    before = ticket.terms
    ticket.request, ticket.terms = request, rejoined(before, ticket.request, request, state.settings)
    ticket.named = True
    current.call = event.call
    state.calls[event.call] = current
    state.record(EventType.JOINED, current)
    if isinstance(current, Lease):
        _rejoin_lease(state, current, event.call, before.max_hold, now)
    else:
        _rejoin_queue(state, current, now)
    state.changed = True


def stream_closed(state: State, event: StreamClosed, now: float) -> None:
    """A stream broke: its request or lease stays for a while if someone can join it."""
    subject = state.calls.pop(event.call, None)
    if subject is None or subject.call != event.call:
        return
    subject.call = None
    if isinstance(subject, Lease):
        _lease_left_alone(state, subject, delivered=event.delivered, now=now)
    else:
        _ticket_left_alone(state, subject, now)
    state.changed = True


# -- a new request --


def _ticket(state: State, event: Acquire, identity: Identity, now: float) -> Ticket:
    """A ticket for a request; its candidates are those that it could ever fit on."""
    request = event.request
    candidates = state.pick(request.gpu.candidates, everything=not request.gpu.candidates)
    number = state.next_arrival()
    request_id = request.request_id or _unused_id(state, identity, number)
    terms = _terms(state, request, identity, candidates)
    ticket = Ticket(number, RequestKey(identity, request_id), request, terms, event.call, now)
    fitting = tuple(gpu for gpu in candidates if terms.memory_bytes <= gpu.capacity)
    # Without enough that fit it is refused; all are kept then, to say so.
    ticket.gpus = fitting if len(fitting) >= request.gpu.count else candidates
    return ticket


def _terms(state: State, request: AcquireRequest, identity: Identity, candidates: tuple[Gpu, ...]) -> Terms:
    """What was agreed; more memory than it declares, where it ran out of memory with that and the policy says so."""
    terms = terms_of(request, state.settings)
    least = min(state.appetites.least(Eater(identity, request.task_type)), max(gpu.capacity for gpu in candidates))
    raises = state.settings.policy(request.task_type).raise_after_out_of_memory
    return replace(terms, memory_bytes=least) if raises and 0 < terms.memory_bytes < least else terms


def _unused_id(state: State, identity: Identity, number: int) -> str:
    """A name for a request that has none: callers are told it and can join by it, or take it before its time."""
    name = f"{state.instance_id}-{number:x}"
    while state.requests.get(RequestKey(identity, name)) is not None:
        name += "x"
    return name


def _refused_at_once(state: State, ticket: Ticket, now: float) -> bool:
    """Refuses what waiting cannot help."""
    refusal = _refusal(state, ticket)
    if refusal is None:
        return False
    error, reason = refusal
    remember(state, ticket, now)
    refuse(state, ticket, error, reason, now)
    return True


def _refusal(state: State, ticket: Ticket) -> tuple[ArbiterError, WaitReason] | None:
    count = ticket.request.gpu.count
    if state.shutting_down:
        error = ArbiterError(ErrorReason.SHUTDOWN, "the arbiter is shutting down", retry_after=retry_after(()))
        return error, WaitReason.SHUTDOWN
    if count > len(ticket.gpus):
        message = f"{count} GPUs are wanted, and {len(ticket.gpus)} can be had"
        return ArbiterError(ErrorReason.INFEASIBLE, message, metadata={"count": str(count)}), WaitReason.INFEASIBLE
    refusal = _no_chance(state, ticket) if state.settings.enabled else None
    no_journal = unavailable(state)
    if refusal is None and no_journal is not None:
        return no_journal, WaitReason.JOURNAL
    return refusal


def _no_chance(state: State, ticket: Ticket) -> tuple[ArbiterError, WaitReason] | None:
    """Why a request could not be granted however long it waited, or may not ask for more."""
    too_large = infeasible(ticket)
    if too_large is not None:
        return too_large, WaitReason.INFEASIBLE
    if all(gpu.lost is not None for gpu in ticket.gpus):
        message = "; ".join(f"{gpu.key} is lost: {gpu.lost}" for gpu in ticket.gpus)
        return ArbiterError(ErrorReason.GPU_UNAVAILABLE, message), WaitReason.GPU_UNHEALTHY
    limit = state.settings.leases_per_client
    if limit and state.gates.leases_of(ticket.key.identity) >= limit:
        message = f"client {ticket.key.identity.client_id!r} holds {limit} leases already, its limit"
        error = ArbiterError(ErrorReason.CLIENT_LIMIT, message, metadata={"limit": str(limit), "of": "leases"})
        return error, WaitReason.CONCURRENCY_LIMIT
    return None


def _enter(state: State, ticket: Ticket, call: Call, now: float) -> None:
    """Lets a request take part, and sees what comes of it."""
    state.requests.put(ticket.key, ticket)
    state.calls[call] = ticket
    state.adopt(ticket.process)
    state.gates.enter(ticket)
    enter_queue(state, ticket)
    schedule(state, now)
    if ticket.entry is None:
        return
    refusal = _no_place(state, ticket, now)
    if refusal is not None:
        withdraw(state, ticket, now)
        refuse(state, ticket, *refusal, now)
    elif ticket.terms.max_wait == 0:
        expire_wait(state, ticket, now)
    else:
        start_wait(state, ticket, now)
        place = tell(state, ticket, now)
        state.record(EventType.QUEUED, ticket, detail=describe(place.reason, ()), place=place)


def _no_place(state: State, ticket: Ticket, now: float) -> tuple[ArbiterError, WaitReason] | None:
    """Why a request that cannot be granted at once may not wait either."""
    if ticket.terms.max_wait == 0:
        return None
    blockers = blockers_of(ticket.gpus, state, now)
    if ticket.terms.busy_policy.declines and wait_reason(state, ticket) is WaitReason.DRAINING:
        error = ArbiterError(ErrorReason.UNSPECIFIED, describe(WaitReason.DRAINING, ()), retry_after=retry_after(()))
        return error, WaitReason.DRAINING
    limit = state.settings.queue_limit
    # The ticket itself is in the queue already.
    below = sum(state.queue.length(gpu.key) <= limit for gpu in ticket.gpus)
    if below < ticket.request.gpu.count:
        facts = facts_of(wait_reason(state, ticket), blockers)
        facts |= {"queue_limit": str(limit), "queue_length": str(state.queue.position(ticket) - 1)}
        words = describe(wait_reason(state, ticket), blockers)
        error = ArbiterError(
            ErrorReason.QUEUE_FULL,
            f"the queue is at its limit of {limit} waiting requests a GPU; {words}",
            metadata=facts,
            retry_after=retry_after(ticket.gpus),
        )
        return error, WaitReason.QUEUE_FULL
    allowed = state.settings.waiting_per_client
    if allowed and state.waiting[ticket.key.identity] > allowed:
        message = f"client {ticket.key.identity.client_id!r} has {allowed} requests waiting already, its limit"
        error = ArbiterError(
            ErrorReason.CLIENT_LIMIT,
            message,
            metadata={"limit": str(allowed), "of": "waiting"},
            retry_after=retry_after(ticket.gpus),
        )
        return error, WaitReason.QUEUE_FULL
    return None


# -- joining --


def _check_same(before: AcquireRequest, now: AcquireRequest) -> None:
    """What a join may not change."""
    fields = ("task_type", "gpu", "sequence", "detached", "ttl")
    changed = [name for name in fields if getattr(before, name) != getattr(now, name)]
    if changed:
        raise ArbiterError(
            ErrorReason.REQUEST_ID_CONFLICT,
            f"request_id {now.request_id!r} is in use with another {', '.join(changed)}",
            metadata={"fields": ",".join(changed)},
        )


def _rejoin_queue(state: State, ticket: Ticket, now: float) -> None:
    """The wait goes on where it was, at the place that the newest priority gives."""
    leave_queue(state, ticket)
    state.ready_again(state.gates.stepped_back(ticket))
    enter_queue(state, ticket)
    start_wait(state, ticket, now)
    schedule(state, now)
    if ticket.entry is not None:
        tell(state, ticket, now)


def _rejoin_lease(state: State, lease: Lease, call: Call, hold_before: float, now: float) -> None:
    """The lease goes on; a ttl does not run while the stream carries it."""
    if lease.ticket.request.detached:
        if lease.offered:
            start_patience(state, lease, now)
    else:
        stop_patience(state, lease)
    lease.joined = True
    if lease.terms.max_hold != hold_before:
        _restart_hold(state, lease, now)
    for gpu, share in lease.shares:
        if share.process != lease.ticket.process:
            share.process = lease.ticket.process
            gpu.settle()
            state.dirty = True
    claims = claim(state, lease)
    state.touch(lease)
    if not lease.offered:
        # It hears of the lease as the stream before would have.
        return
    state.emit(Granted(call, lease_view(state, lease, now), lease.ticket.request.detached, claims))
    tell_pending_yield(state, lease, now)


def _restart_hold(state: State, lease: Lease, now: float) -> None:
    """Another max_hold counts, from the grant on."""
    until = lease.granted_at + lease.terms.max_hold
    set_hold(state, lease, max(now, until) if lease.terms.max_hold else None)


# -- a broken stream --


def _ticket_left_alone(state: State, ticket: Ticket, now: float) -> None:
    """Keeps the place of a request that can be joined and granted then; it is granted nothing meanwhile."""
    patience = ticket.terms.ttl or ticket.terms.disconnect_grace
    if not ticket.named or not patience or state.shutting_down:
        give_up(state, ticket, now)
        return
    state.timers.set((Clock.ABSENCE, ticket), now + patience)
    state.timers.cancel((Clock.NOTICE, ticket))
    state.record(EventType.DETACHED, ticket, detail=f"its stream is gone; can be joined for {patience:g} s")
    state.dirty = True


def _lease_left_alone(state: State, lease: Lease, *, delivered: bool, now: float) -> None:
    """Keeps a lease that can be joined or renewed; takes a grant back that never reached its holder."""
    if not lease.offered or not (delivered or lease.joined):
        _take_grant_back(state, lease, now)
    elif not lease.patience:
        finish(state, lease, EndReason.DISCONNECTED, now, detail="its stream broke, and nothing can join it")
    else:
        if not lease.ticket.request.detached:
            start_patience(state, lease, now)
        state.record(EventType.DETACHED, lease, detail=f"its stream is gone; lives for {lease.patience:g} s")


def _take_grant_back(state: State, lease: Lease, now: float) -> None:
    """The waiter was gone when its grant came: it never held anything, and waits again if it can."""
    ticket = lease.ticket
    if not ticket.named:
        finish(state, lease, EndReason.DISCONNECTED, now, detail="never taken", delivered=False)
        return
    take_back(state, lease, "its stream was gone", now)
    _ticket_left_alone(state, ticket, now)
