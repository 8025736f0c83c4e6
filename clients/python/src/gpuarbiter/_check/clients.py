"""What an arbiter shows of its clients: none, one, two, and none again.

Law: a figure of the page is held against the arbiter's own snapshot of the same moment, so that leases of
others do not make it wrong; what cannot be looked at because others use the arbiter is skipped, never failed.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import NamedTuple

from gpuarbiter import Arbiter, Lease
from gpuarbiter._check.lines import Line, Status, judged, listed
from gpuarbiter._check.page import Page, Unreadable
from gpuarbiter._check.site import Site
from gpuarbiter._check.trial import BUSY, MEMORY, TASK, WAIT_SECONDS
from gpuarbiter._errors import ArbiterError
from gpuarbiter._units import format_bytes
from gpuarbiter.v1 import snapshot_pb2

# For the second lease: meanwhile the first one holds others up.
SECOND_WAIT_SECONDS = 0.5
# How often a page is looked at until nothing changed around it.
_LOOKS = 20

_NO_LEASES = "idle: no lease above 0"
_NO_WAITERS = "idle: no waiter above 0"
_ONE = "one client: one lease"
_MEMORY = "one client: memory committed"
_RECEIVED = "one client: its request is counted"
_SENT = "one client: the grant is counted"
_TWO = "two clients: two leases"
_RELEASED = "released: none of them left"
_CHECKS = (_NO_LEASES, _NO_WAITERS, _ONE, _MEMORY, _RECEIVED, _SENT, _TWO, _RELEASED)


class _Look(NamedTuple):
    """A page, and the snapshot of the same moment; without `steady` there was no such moment."""

    page: Page
    snapshot: snapshot_pb2.ArbiterSnapshot
    steady: bool


class Clients:
    """The lines that need clients; `connect` makes one by its client id."""

    def __init__(self, site: Site, connect: Callable[[str], Arbiter]) -> None:
        self._site = site
        self._connect = connect

    def lines(self) -> Iterator[Line]:
        """Every line, whatever goes wrong on the way."""
        left = list(_CHECKS)
        try:
            for line in self._lines():
                left.remove(line.check)
                yield line
        except BUSY as busy:
            failure = (Status.SKIP, f"others use the arbiter: {busy}")
        except ArbiterError as error:
            failure = (Status.FAIL, str(error) + (f" [{error.reason}]" if error.reason else ""))
        except Unreadable as why:
            failure = (Status.FAIL, f"the page of metrics: {why}")
        for check in left:
            yield Line(check, *failure)

    def _lines(self) -> Iterator[Line]:
        with ExitStack() as stack:
            first, second = (stack.enter_context(self._connect(f"{TASK}-{number}")) for number in (1, 2))
            before = self._look(first)
            yield from _idle(before)
            with first.lease(TASK, shared=True, memory=MEMORY, busy_policy="WAIT", max_wait=WAIT_SECONDS) as one:
                look = self._look(first)
                yield _leases(_ONE, look, one)
                yield _memory(look, one)
                yield _counted(_RECEIVED, before, look, "received", "AcquireRequest", "SessionRequest.acquire")
                yield _counted(_SENT, before, look, "sent", "AcquireResponse.granted", "SessionResponse.acquire")
                beside = one.gpus[0].key
                with second.lease(
                    TASK, shared=True, memory=MEMORY, gpus=beside, busy_policy="WAIT", max_wait=SECOND_WAIT_SECONDS
                ) as two:
                    yield _leases(_TWO, self._look(first), one, two)
            for lease in (one, two):
                lease.release()  # it is; this waits until the arbiter has said so
            yield _leases(_RELEASED, self._look(first), gone=(one, two))

    def _look(self, arbiter: Arbiter) -> _Look:
        for _ in range(_LOOKS):
            before = arbiter.snapshot()
            answer = self._site.ask("/metrics")
            after = arbiter.snapshot()
            if (before.epoch, before.revision) == (after.epoch, after.revision):
                return _Look(_page(answer.body, answer.status, answer.said), after, steady=True)
        return _Look(_page(answer.body, answer.status, answer.said), after, steady=False)


def _page(body: bytes, status: int, said: str) -> Page:
    if status != 200:  # noqa: PLR2004 -- OK
        raise Unreadable(said)
    return Page(body)


def _unsteady(check: str) -> Line:
    return Line(check, Status.SKIP, "others use the arbiter: it never stood still for a look")


def _idle(look: _Look) -> Iterator[Line]:
    for check, name, there in (
        (_NO_LEASES, "leases", len(look.snapshot.leases)),
        (_NO_WAITERS, "waiters", look.snapshot.queue_length),
    ):
        if not look.steady:
            yield _unsteady(check)
        elif there:
            yield Line(check, Status.SKIP, f"others use the arbiter: {name}: {there}")
        elif look.page.total(name) is None:
            yield Line(check, Status.FAIL, f"no series of {name}, where every one should be 0")
        else:
            above = look.page.above_zero(name)
            yield judged(check, not above, listed(above) or "every series is 0")


def _leases(check: str, look: _Look, *ours: Lease, gone: tuple[Lease, ...] = ()) -> Line:
    """Every GPU shows as many leases as it has: ours among them, and none of those that are gone."""
    if not look.steady:
        return _unsteady(check)
    held = Counter(gpu.key for lease in look.snapshot.leases for gpu in lease.gpus)
    shown = {gpu.key: look.page.total("leases", gpu=gpu.key) or 0 for gpu in look.snapshot.gpus}
    alive = {lease.lease_id for lease in look.snapshot.leases}
    lives = [lease.lease_id in alive for lease in ours], [lease.lease_id in alive for lease in gone]
    others = held.total() - sum(map(sum, lives))
    found = f"{sum(shown.values()):g} shown, {held.total()} held" + (f", {others} by others" if others else "")
    as_held = all(shown[key] == held[key] for key in shown)
    return judged(check, as_held and all(lives[0]) and not any(lives[1]), found)


def _memory(look: _Look, ours: Lease) -> Line:
    if not look.steady:
        return _unsteady(_MEMORY)
    key = ours.gpus[0].key
    promised = next((gpu.memory.committed_bytes for gpu in look.snapshot.gpus if gpu.key == key), 0)
    shown = look.page.total("memory_committed_bytes", gpu=key)
    found = "no series" if shown is None else f"{format_bytes(int(shown))} shown, {format_bytes(promised)} promised"
    return judged(_MEMORY, shown == promised >= MEMORY, f"{key}: {found}")


def _counted(check: str, before: _Look, after: _Look, direction: str, *types: str) -> Line:
    """By a call of its own or in a session: of which type the message is, is the client library's business."""
    flat: list[str] = []
    for kind in types:
        earlier, later = (
            look.page.total("rpc_messages_total", direction=direction, type=kind) for look in (before, after)
        )
        if earlier is None or later is None:
            continue
        found = f"{kind}: {earlier:g}, then {later:g}"
        if later > earlier:
            return Line(check, Status.PASS, found)
        flat.append(found)
    return Line(check, Status.FAIL, "; ".join(flat) or f"no series of {types[0]}")
