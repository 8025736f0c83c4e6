"""The lease table: who holds what, and what ended lately.

A lease id carries its fencing token and a keyed hash of it, so that an id of ours can be told from a
made-up one for as long as the key lives, even when the details are long forgotten.
"""

from collections import OrderedDict
from hashlib import blake2b
from hmac import compare_digest
from math import inf
from typing import Generic, TypeVar

from gpuarbiter_server.core.events import Call
from gpuarbiter_server.core.ledger import Gpu
from gpuarbiter_server.core.model import EndReason, Identity, LeaseState, MemoryVerdict, RequestKey, YieldReason
from gpuarbiter_server.core.records import EndedRecord
from gpuarbiter_server.core.share import Share
from gpuarbiter_server.core.terms import Terms
from gpuarbiter_server.core.ticket import Ticket

# Details of ended leases and requests are kept this long, and so many at the most.
KEPT_SECONDS = 3600.0
KEPT_RECORDS = 100_000

# Ticket, Lease or EndedRecord.
S = TypeVar("S")


class PendingYield:
    """A yield request that stands until the lease ends."""

    __slots__ = ("asked", "detail", "end_reason", "until")

    def __init__(self, detail: str, until: float | None, end_reason: EndReason, *, asked: bool = True) -> None:
        self.detail = detail
        # When the lease is ended if it is still held; None: it is only asked.
        self.until = until
        self.end_reason = end_reason
        # False where the policy ends a lease without asking: then its holder hears nothing of it.
        self.asked = asked


class Lease:
    """A lease from its grant to its end. It goes by the terms of the ticket that it was granted to."""

    __slots__ = (
        "call",
        "granted_at",
        "hold_passed",
        "hold_until",
        "joined",
        "lease_id",
        "offered",
        "queue_wait",
        "recover_until",
        "shares",
        "sharing",
        "ticket",
        "token",
        "yields",
    )

    def __init__(self, lease_id: str, token: int, ticket: Ticket, now: float) -> None:
        self.lease_id = lease_id
        self.token = token
        self.ticket = ticket
        # The stream that carries it; None: none does.
        self.call: Call | None = ticket.call
        # Whether another stream has taken it over: its holder may know of it, whatever that one's Granted came to.
        self.joined = False
        self.granted_at = now
        self.queue_wait = now - ticket.enqueued_at
        # Whether its Granted has been handed out; until then nobody knows of it.
        self.offered = True
        # Since a restart after which nothing was heard of its holder: when it ends. None: it was heard of.
        self.recover_until: float | None = None
        # None: without limit.
        self.hold_until: float | None = None
        # Whether that moment has come, and the watchdog has acted.
        self.hold_passed = False
        self.shares: tuple[tuple[Gpu, Share], ...] = ()
        self.sharing = ticket.terms.sharing
        self.yields: dict[YieldReason, PendingYield] = {}

    @property
    def terms(self) -> Terms:
        """What was agreed."""
        return self.ticket.terms

    @property
    def gpu_keys(self) -> tuple[str, ...]:
        """The GPUs it has."""
        return tuple(gpu.key for gpu, _ in self.shares)

    @property
    def listener(self) -> Call | None:
        """The stream that hears of it; a detached one had its last answer with the grant."""
        return None if self.ticket.request.detached and self.offered else self.call

    @property
    def state(self) -> LeaseState:
        """Where it is in its life."""
        if self.recover_until is not None:
            return LeaseState.RECOVERING
        if self.pending_yield is not None:
            return LeaseState.YIELDING
        return LeaseState.DETACHED if self.listener is None else LeaseState.HELD

    @property
    def patience(self) -> float:
        """How long it lives without a stream or a renewal."""
        if self.terms.ttl:
            return self.terms.ttl
        return self.terms.disconnect_grace if self.ticket.named else 0.0

    @property
    def pending_yield(self) -> tuple[YieldReason, PendingYield] | None:
        """The yield request that ends it soonest; one that only asks comes last."""
        asked = [item for item in self.yields.items() if item[1].asked]
        return min(asked, key=_soonest, default=None)

    @property
    def threat(self) -> tuple[YieldReason, PendingYield] | None:
        """What ends it soonest if it is still held then, asked for or not."""
        ends = [item for item in self.yields.items() if item[1].until is not None]
        return min(ends, key=_soonest, default=None)

    def peak_bytes(self) -> int | None:
        """The highest observed peak on any of its GPUs."""
        peaks = [share.peak for _, share in self.shares if share.peak is not None]
        return max(peaks) if peaks else None

    def verdict(self) -> MemoryVerdict:
        """How its declarations compared with its observed peaks; the worst GPU counts."""
        pairs = [(share.declared, share.peak) for _, share in self.shares]
        if any(not declared or peak is None for declared, peak in pairs):
            return MemoryVerdict.UNSPECIFIED
        if any(peak is not None and peak > declared for declared, peak in pairs):
            return MemoryVerdict.OVER
        under = all(peak is not None and 2 * peak < declared for declared, peak in pairs)
        return MemoryVerdict.UNDER if under else MemoryVerdict.WITHIN


def _soonest(item: tuple[YieldReason, PendingYield]) -> float:
    until = item[1].until
    return inf if until is None else until


class LeaseTable:
    """Live leases by id, the newest token, and the memory of what ended."""

    def __init__(self, *, first_token: int, id_key: bytes) -> None:
        self._id_key = id_key
        self._last_token = first_token - 1
        self.live: dict[str, Lease] = {}
        self._ended: OrderedDict[str, EndedRecord] = OrderedDict()
        self._ended_requests: OrderedDict[RequestKey, EndedRecord] = OrderedDict()
        self._ended_names: RequestIndex[EndedRecord] = RequestIndex()

    def new(self, ticket: Ticket, now: float) -> Lease:
        """Makes a lease with the next fencing token."""
        self._last_token += 1
        lease = Lease(self._id_of(self._last_token), self._last_token, ticket, now)
        self.live[lease.lease_id] = lease
        return lease

    def restore(self, lease: Lease) -> None:
        """Takes a lease of an earlier start back."""
        self.live[lease.lease_id] = lease

    def close(self, record: EndedRecord) -> None:
        """Moves a lease, or a named request, to what has ended."""
        if record.lease_id:
            self.live.pop(record.lease_id, None)
            self._ended[record.lease_id] = record
        self._ended_requests[record.key] = record
        self._ended_requests.move_to_end(record.key)
        self._ended_names.put(record.key, record)
        self._forget(record.ended_at)

    def all_ended(self) -> tuple[EndedRecord, ...]:
        """Everything that is known of what ended, in the order in which it did."""
        records = {id(record): record for record in (*self._ended.values(), *self._ended_requests.values())}
        return tuple(sorted(records.values(), key=lambda record: record.ended_at))

    def ended(self, lease_id: str) -> EndedRecord | None:
        """What is known of an ended lease."""
        return self._ended.get(lease_id)

    def ended_request(self, principal: str, client_id: str, request_id: str) -> EndedRecord | None:
        """What is known of an ended request; an empty client_id: of any client of the principal."""
        if client_id:
            return self._ended_requests.get(RequestKey(Identity(principal, client_id), request_id))
        return next(iter(self._ended_names.of_principal(principal, request_id)), None)

    def issued(self, lease_id: str) -> bool:
        """Whether this id was given out here, however long ago."""
        digits = lease_id.partition("-")[0]
        try:
            token = int(digits, 16)
        except ValueError:
            return False
        return token <= self._last_token and compare_digest(self._id_of(token).encode(), lease_id.encode())

    def _id_of(self, token: int) -> str:
        mark = blake2b(token.to_bytes(16, "big"), key=self._id_key, digest_size=8).hexdigest()
        return f"{token:x}-{mark}"

    def _forget(self, now: float) -> None:
        while self._ended and self._expired(next(iter(self._ended.values())), len(self._ended), now):
            self._ended.popitem(last=False)
        requests = self._ended_requests
        while requests and self._expired(next(iter(requests.values())), len(requests), now):
            self._ended_names.remove(requests.popitem(last=False)[0])

    def _expired(self, record: EndedRecord, count: int, now: float) -> bool:
        return count > KEPT_RECORDS or now - record.ended_at > KEPT_SECONDS


class RequestIndex(Generic[S]):
    """Requests by what their callers call them."""

    def __init__(self) -> None:
        self._by_name: dict[tuple[str, str], dict[str, S]] = {}

    def get(self, key: RequestKey) -> S | None:
        """The request of exactly this identity."""
        return self._by_name.get((key.identity.principal, key.request_id), {}).get(key.identity.client_id)

    def of_principal(self, principal: str, request_id: str) -> list[S]:
        """The requests of this name of all clients of a principal."""
        return list(self._by_name.get((principal, request_id), {}).values())

    def put(self, key: RequestKey, subject: S) -> None:
        """Names a request, or passes its name on from ticket to lease."""
        self._by_name.setdefault((key.identity.principal, key.request_id), {})[key.identity.client_id] = subject

    def remove(self, key: RequestKey) -> None:
        """The request is done with."""
        name = (key.identity.principal, key.request_id)
        del self._by_name[name][key.identity.client_id]
        if not self._by_name[name]:
            del self._by_name[name]
