"""Lines that go bad: while waiting, at the grant, while holding, at the release.

Nothing of a client whose line broke may stay beyond its grace, and the library goes on by itself, under the one lease
that it has. Each trial has a line, a client and a GPU of its own, so that all trials of a fault run at a time.
"""

import asyncio
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.harness.client import Acquiring, Client, event_names
from e2e.harness.leftovers import doubles, nothing_left
from e2e.harness.lines import LIBRARIES, Library
from e2e.harness.waiting import eventually
from fakes.fault_proxy import Fault, FaultProxy
from fakes.polling import async_until
from support.process import Arbiterd, running
from support.refusals import refusal
from support.soak import figures

GPUS = 12
MOMENTS = ("waiting", "grant", "holding", "release")
# How long an arbiter cannot be reached at all: less than its grace, counted from when it notices.
REFUSED_SECONDS = 0.7
OUTAGE_SECONDS = 2.5
NOTICED_SECONDS = 2.0


@pytest.fixture(scope="module")
def network() -> Iterator[Arbiterd]:
    """An arbiter with a GPU for each trial. Who speaks the bare contract has a short grace; the library's is whole."""
    settings = (
        f"gpus=sim:{GPUS}x24GiB",
        "cooldown=0s",
        "policies.BARE={disconnect_grace: 200ms}",
        "history.max_events=1000000",
        "shutdown_grace=0s",
        "log_level=warning",
    )
    with tempfile.TemporaryDirectory(prefix="gpu-arbiter-e2e-") as made, running(Path(made), *settings) as arbiter:
        yield arbiter
    assert "Traceback" not in arbiter.output, arbiter.output


@pytest.fixture
async def direct(network: Arbiterd) -> AsyncIterator[Client]:
    """A client whose line is sound."""
    client = Client(network.grpc)
    yield client
    await client.close()


# -- faults, and the moments at which they strike --

Strike = Callable[[FaultProxy, str], None]


def delayed(proxy: FaultProxy, _moment: str) -> None:
    proxy.become(Fault(delay=0.1))


def slow(proxy: FaultProxy, _moment: str) -> None:
    proxy.become(Fault(bytes_per_second=3000))


def cut(proxy: FaultProxy, moment: str, *, reset: bool = False) -> None:
    """In the midst of the message that this moment is about; at once where there is none."""
    up, down = proxy.carried[-1]
    if moment == "release":
        proxy.become(Fault(cut_after_up=up + 1, reset=reset))
    elif moment == "grant":
        proxy.become(Fault(cut_after_down=down + 1, reset=reset))
    elif reset:
        proxy.reset()
    else:
        proxy.cut()
    proxy.become(Fault(), existing=False)


def reset(proxy: FaultProxy, moment: str) -> None:
    cut(proxy, moment, reset=True)


def half_open(proxy: FaultProxy, _moment: str) -> None:
    proxy.become(Fault(black_hole=True))
    proxy.become(Fault(), existing=False)


def black_hole(proxy: FaultProxy, _moment: str) -> None:
    proxy.become(Fault(black_hole=True))
    proxy.heal(after=OUTAGE_SECONDS)


def refused(proxy: FaultProxy, _moment: str) -> None:
    proxy.refuse()
    proxy.cut()
    proxy.heal(after=REFUSED_SECONDS)


SURVIVED: tuple[Strike, ...] = (delayed, slow)
BREAKING: tuple[Strike, ...] = (cut, reset, half_open, black_hole, refused)


class Trial:
    """A line, a client at its end, and a GPU: at one of the moments the line goes bad."""

    def __init__(self, direct: Client, proxy: FaultProxy, gpu: str, strike: Strike, moment: str, who: str) -> None:
        self.direct = direct
        self.proxy = proxy
        self.gpu = gpu
        self.moment = moment
        self.breaks = strike in BREAKING
        self.request_id = f"{strike.__name__}-{moment}-{who}"
        self._strike = strike

    def strike(self) -> None:
        self._strike(self.proxy, self.moment)

    async def blocker(self) -> Any:
        """Somebody else's lease on the GPU."""
        return await self.direct.acquire("BARE", "in-the-way", candidates=[self.gpu], max_hold=0, ttl=60).granted()

    async def happened(self, *types: str) -> list[str]:
        """What the audit trail says of the request."""
        events = [event for event in await self.direct.events(*types) if event.request_id == self.request_id]
        return event_names(events)

    async def holds(self, lease_id: str) -> None:
        """Nobody but this lease is on the GPU."""
        assert list((await self.direct.gpu(self.gpu)).lease_ids) == [lease_id], self.request_id


async def library_trial(trial: Trial, library: Library) -> None:
    """The library has its lease in the end, and one only, whatever happened to the line."""
    queued = threading.Event()
    blocker = await trial.blocker() if trial.moment in {"waiting", "grant"} else None
    asking = asyncio.ensure_future(library.acquire(trial.gpu, trial.request_id, lambda _: queued.set()))
    if blocker is not None:
        await async_until(queued.is_set)
        trial.strike()
        if trial.moment == "waiting" and trial.breaks:
            await eventually(lambda: trial.happened("JOINED"), f"{trial.request_id} to be joined")
        await trial.direct.release(blocker)
    lease: Any = await asking
    if trial.moment == "holding":
        trial.strike()
        if trial.breaks:
            await async_until(lambda: lease.uncertain, f"for the library to notice that {trial.request_id} is cut off")
            await async_until(lambda: not lease.uncertain, f"for the library to join {trial.request_id} again")
        await library.renew(lease)
    elif trial.moment == "release":
        trial.strike()
    else:
        await trial.holds(lease.lease_id)
    assert not lease.lost, (trial.request_id, lease.lost_reason)
    assert (await library.release(lease)).reason == "RELEASED"
    await nothing_left(trial.direct, trial.gpu)
    if not trial.breaks:
        assert not await trial.happened("DETACHED", "JOINED")


async def bare_trial(trial: Trial, client: Client) -> None:
    """Who does nothing about a broken line has lost what it had, and nothing of it stays."""
    blocker = await trial.blocker() if trial.moment in {"waiting", "grant"} else None
    stream = client.acquire("BARE", candidates=[trial.gpu], max_hold=0, request_id=trial.request_id)
    if blocker is not None:
        await stream.waits_for("GPU_BUSY")
    else:
        lease = await stream.granted()
    trial.strike()
    if blocker is not None:
        if trial.moment == "waiting" and trial.breaks:
            await eventually(lambda: trial.happened("FAILED"), f"{trial.request_id} to be given up")
        await trial.direct.release(blocker)
        if not trial.breaks:
            lease = await stream.granted()
    if not trial.breaks:
        await client.release(lease)
        await stream.until("ended")
        assert not await trial.happened("DETACHED", "JOINED")
        await nothing_left(trial.direct, trial.gpu)
        return
    releasing = asyncio.ensure_future(client.release(lease)) if trial.moment == "release" else None
    await nothing_left(trial.direct, trial.gpu)
    if releasing is not None:
        # Whatever becomes of it: in a black hole it would wait for long.
        releasing.cancel()
        await asyncio.gather(releasing, return_exceptions=True)


@pytest.mark.parametrize("strike", [*SURVIVED, *BREAKING], ids=lambda strike: strike.__name__)
async def test_a_line_that_goes_bad_costs_the_library_no_lease_and_leaves_nothing(
    network: Arbiterd, direct: Client, strike: Strike
):
    async def attempt(gpu: str, moment: str, who: str) -> None:
        with FaultProxy(network.grpc) as proxy:
            trial = Trial(direct, proxy, gpu, strike, moment, who)
            client = Client(proxy.address) if who == "bare" else LIBRARIES[who](proxy.address, who)
            try:
                await (bare_trial(trial, client) if isinstance(client, Client) else library_trial(trial, client))
            finally:
                await client.close()

    trials = [(moment, who) for moment in MOMENTS for who in ("bare", *LIBRARIES)]
    async with asyncio.TaskGroup() as group:
        for number, (moment, who) in enumerate(trials):
            group.create_task(attempt(f"gpu:{number}", moment, who))
    assert not doubles(await direct.events())
    await nothing_left(direct)


async def test_both_sides_notice_a_half_open_line_in_two_seconds(
    network: Arbiterd, direct: Client, capsys: pytest.CaptureFixture[str]
):
    async def of_the_arbiter(number: int) -> float:
        """Seconds until the arbiter notices; its client never does."""
        with FaultProxy(network.grpc) as proxy:
            client = Client(proxy.address)
            lease = await client.acquire("BARE", candidates=[f"gpu:{number}"], request_id=f"mute-{number}").granted()
            begin = await _half_open_at(proxy, number)
            noticed = await direct.happens("DETACHED", lease_id=lease.lease_id)
            await client.close()
            return noticed.event_time.ToNanoseconds() / 1e9 - begin

    async def of_the_library(number: int) -> float:
        """Seconds until the library notices."""
        with FaultProxy(network.grpc) as proxy:
            library = LIBRARIES["asynchronous"](proxy.address, "half-open")
            lease: Any = await library.acquire(f"gpu:{number}", f"half-open-{number}", lambda _: None)
            begin = await _half_open_at(proxy, number)
            await async_until(lambda: lease.uncertain, "for the library to notice")
            noticed = time.time()
            await async_until(lambda: not lease.uncertain, "for the library to join again")
            await library.release(lease)
            await library.close()
            return noticed - begin

    numbers = range(GPUS // 2)
    arbiter = await asyncio.gather(*(of_the_arbiter(number) for number in numbers))
    library = await asyncio.gather(*(of_the_library(number) for number in numbers))
    with figures(capsys):
        print(f"\na half-open line, noticed after at most: arbiter {max(arbiter):.2f} s, library {max(library):.2f} s")
    assert max(*arbiter, *library) < NOTICED_SECONDS + 0.5
    await nothing_left(direct)


async def _half_open_at(proxy: FaultProxy, number: int) -> float:
    """Makes a line half-open, somewhere between two pings; the moment, in Unix seconds."""
    await asyncio.sleep(2 * number / GPUS)
    half_open(proxy, "holding")
    return time.time()


async def test_a_request_that_is_duplicated_has_one_lease(
    network: Arbiterd, direct: Client, capsys: pytest.CaptureFixture[str]
):
    """Whichever of the two arrives last has it; the other is told so."""
    outcomes: list[str] = []

    async def attempt(turn: int, number: int) -> None:
        gpu = f"gpu:{number}"
        with FaultProxy(network.grpc) as proxy:
            proxy.become(Fault(duplicate=True))
            client = Client(proxy.address)
            blocker = await direct.acquire("BARE", "in-the-way", candidates=[gpu], max_hold=0, ttl=60).granted()
            stream = client.acquire("BARE", candidates=[gpu], max_hold=0, request_id=f"twice-{turn}-{number}")
            await eventually(lambda: _queued_on(direct, gpu), "the request to arrive")
            await direct.release(blocker)
            outcomes.append(await _outcome(client, stream))
            await client.close()

    for turn in range(2):
        async with asyncio.TaskGroup() as group:
            for number in range(GPUS):
                group.create_task(attempt(turn, number))
        # The second connections are silent, and end as that is noticed.
        await nothing_left(direct)
    assert not doubles(await direct.events())
    assert set(outcomes) <= {"had the lease", "SUPERSEDED"}
    with figures(capsys):
        print(f"\nrequests sent over two connections at a time: {dict(Counter(outcomes))}")


async def _queued_on(client: Client, gpu: str) -> bool:
    return (await client.gpu(gpu)).queue_length > 0


async def _outcome(client: Client, stream: Acquiring) -> str:
    """Of a request of which there are two: this one has the lease, or was told that the other one has."""

    async def use() -> None:
        lease = await stream.granted()
        await client.release(lease)
        await stream.until("ended")

    answer = asyncio.ensure_future(use())
    await asyncio.wait([answer])
    if answer.exception() is None:
        return "had the lease"
    return (await refusal(answer)).reason
