"""Everything the arbiter knows, in one place, for the modules that change it.

Law: only code that runs under `Arbiter.handle` touches this. What is done to the outside is appended
to `effects`; `dirty` asks for a scheduling pass, `changed` for a new revision.
"""

from collections import Counter
from collections.abc import Iterable

from gpuarbiter_server.core.appetite import Appetites
from gpuarbiter_server.core.effects import Effect, Recorded, Save, Unwatch, Watch
from gpuarbiter_server.core.errors import unknown_gpu
from gpuarbiter_server.core.events import Call
from gpuarbiter_server.core.gates import Gates
from gpuarbiter_server.core.journal import TOKEN_BLOCK, Journal
from gpuarbiter_server.core.leases import Lease, LeaseTable, RequestIndex
from gpuarbiter_server.core.ledger import Gpu
from gpuarbiter_server.core.model import EventType, GpuSpec, Identity, ProcessId
from gpuarbiter_server.core.owners import Owners
from gpuarbiter_server.core.policy import Settings
from gpuarbiter_server.core.records import Change, Closed, EndedRecord, LeaseDropped, SavedGpu, TokensReserved
from gpuarbiter_server.core.ticket import Ticket
from gpuarbiter_server.core.timers import Timers
from gpuarbiter_server.core.waitqueue import WaitQueue


class State:
    """The tables of the arbiter."""

    def __init__(
        self,
        specs: Iterable[GpuSpec],
        settings: Settings,
        *,
        first_token: int,
        id_key: bytes,
        instance_id: str,
        journal: Journal,
    ) -> None:
        self.settings = settings
        self.instance_id = instance_id
        self.owners = Owners()
        self.gpus = {spec.key: Gpu(spec, n, self.owners, settings.memory) for n, spec in enumerate(specs)}
        # What is kept of GPUs that were there at an earlier start, by their names.
        self.absent: dict[str, SavedGpu] = {}
        self._names = _names(self.gpus.values())
        self.queue = WaitQueue()
        self.gates = Gates()
        self.leases = LeaseTable(first_token=first_token, id_key=id_key)
        self.journal = journal
        self.appetites = Appetites()
        # Live requests, waiting or held.
        self.requests: RequestIndex[Ticket | Lease] = RequestIndex()
        # The acquire streams that are there.
        self.calls: dict[Call, Ticket | Lease] = {}
        # Waiting requests by client.
        self.waiting: Counter[Identity] = Counter()
        self.timers = Timers()
        self.nvml_up = False
        self.shutting_down = False
        # Whose turn it is under round-robin placement.
        self.turn = 0
        self.arrivals = 0
        self.revision = 0
        self.dirty = False
        self.changed = False
        self.effects: list[Effect] = []
        # GPUs whose memory someone at the head waits for; told to the sampler when it changes.
        self.wanted_memory: frozenset[str] = frozenset()
        # Whether waiting clients may have news, and when they were last told.
        self.notices_due = False
        self.published_at = float("-inf")
        self._interest: Counter[ProcessId] = Counter()

    def emit(self, effect: Effect) -> None:
        """Wants something done."""
        self.effects.append(effect)

    def gpu(self, name: str) -> Gpu:
        """A GPU by key, index or UUID; ArbiterError UNKNOWN_GPU when there is none."""
        found = self._names.get(name)
        if found is None:
            raise unknown_gpu(name, tuple(self.gpus))
        return found

    def pick(self, names: Iterable[str], *, everything: bool = False) -> tuple[Gpu, ...]:
        """The GPUs of these names, each once; all of them when none is named and everything is wanted."""
        if everything:
            return tuple(self.gpus.values())
        return tuple({gpu.key: gpu for gpu in map(self.gpu, names)}.values())

    def next_arrival(self) -> int:
        """Numbers a ticket."""
        self.arrivals += 1
        return self.arrivals

    def watch(self, process: ProcessId) -> None:
        """One more reason to know when this process is gone."""
        self._interest[process] += 1
        if self._interest[process] == 1:
            self.emit(Watch(process))

    def unwatch(self, process: ProcessId) -> None:
        """One reason less."""
        self._interest[process] -= 1
        if not self._interest[process]:
            del self._interest[process]
            self.emit(Unwatch(process))

    def adopt(self, process: ProcessId | None) -> None:
        """A request or lease has this holder."""
        if process is not None:
            self.owners.add(process)
            self.watch(process)

    def disown(self, process: ProcessId | None) -> None:
        """A request or lease no longer has this holder."""
        if process is not None:
            self.owners.drop(process)
            self.unwatch(process)

    def ready_again(self, tickets: Iterable[Ticket]) -> None:
        """These gated tickets may have a chance again."""
        for ticket in tickets:
            self.queue.unpark(ticket)
        self.dirty = True

    # -- what is to outlive the arbiter --

    def save(self, change: Change) -> None:
        """Has a change written."""
        if self.journal.open:
            self.journal.number += 1
            self.emit(Save(self.journal.number, change))

    def touch(self, lease: Lease) -> None:
        """A lease is no longer what was saved of it."""
        if self.journal.open:
            self.journal.leases[lease] = None

    def touch_gpu(self, gpu: Gpu) -> None:
        """A GPU is no longer what was saved of it."""
        if self.journal.open:
            self.journal.gpus[gpu] = None

    def new_lease(self, ticket: Ticket, now: float) -> Lease:
        """A lease with the next fencing token, reserved before it is granted."""
        lease = self.leases.new(ticket, now)
        if lease.token > self.journal.tokens_until:
            self.journal.tokens_until = lease.token + TOKEN_BLOCK
            self.save(TokensReserved(self.journal.tokens_until))
        lease.offered = not self.journal.enabled
        self.touch(lease)
        return lease

    def drop(self, lease: Lease) -> None:
        """A lease was taken back before its holder could know of it."""
        del self.leases.live[lease.lease_id]
        self.journal.offers.pop(lease, None)
        self.save(LeaseDropped(lease.lease_id))

    def close(self, record: EndedRecord) -> None:
        """A lease, or a named request, is over."""
        self.leases.close(record)
        self.save(Closed(record))

    def record(self, kind: EventType, subject: "Ticket | Lease", **facts: object) -> None:
        """Tells the observers what happened to a request or lease."""
        if isinstance(subject, Lease):
            ticket = subject.ticket
            facts |= {"lease_id": subject.lease_id, "gpus": subject.gpu_keys, "fencing_token": subject.token}
        else:
            ticket = subject
            facts.setdefault("gpus", tuple(gpu.key for gpu in ticket.gpus) if ticket.request.gpu.candidates else ())
        request = ticket.request
        self.emit(
            Recorded(
                kind,
                request_id=ticket.key.request_id,
                task_type=request.task_type,
                holder=request.holder,
                priority=ticket.terms.priority,
                sharing=ticket.terms.sharing,
                number=ticket.number,
                context=request.context,
                traceparent=request.traceparent,
                tracestate=request.tracestate,
                **facts,  # type: ignore[arg-type]
            )
        )


def _names(gpus: Iterable[Gpu]) -> dict[str, Gpu]:
    """Every name that a GPU goes by; keys win over indices, and a GPU over its MIG instances."""
    names: dict[str, Gpu] = {}
    listed = list(gpus)
    for gpu in listed:
        names[gpu.key] = gpu
    for gpu in listed:
        for name in (gpu.spec.uuid, "" if gpu.spec.parent_uuid else str(gpu.spec.index)):
            if name:
                names.setdefault(name, gpu)
    return names
