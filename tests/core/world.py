"""A world of one arbiter in virtual time: clients, GPUs and a machine that say what a test tells them to.

Law: nothing here sleeps, and on every effect the world checks what must hold always: a call gets exactly
one terminal effect and nothing after it, nothing is said to a stream that is gone, fencing tokens rise,
and processes are watched and unwatched in turn. A world with a journal can crash and start again.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from core.disk import Disk
from gpuarbiter_server.core import effects as fx
from gpuarbiter_server.core import events as ev
from gpuarbiter_server.core.arbiter import Arbiter
from gpuarbiter_server.core.errors import ArbiterError
from gpuarbiter_server.core.model import (
    AcquireRequest,
    BusyPolicy,
    EventType,
    GpuProcess,
    GpuReading,
    GpuRequest,
    GpuSpec,
    Holder,
    Placement,
    ProcessId,
    Sequence,
    Sharing,
    WaitReason,
    WorkContext,
    WorkReport,
)
from gpuarbiter_server.core.policy import Memory, Policy, Settings
from gpuarbiter_server.core.state import State
from gpuarbiter_server.core.views import GpuView, LeaseView, SnapshotView

MIB = 1024**2
GIB = 1024**3
START = 1000.0
FIRST_TOKEN = 100
# What no arbiter needs: more wake-ups than this while time stands still.
_MOST_WAKE_UPS = 10_000
_SAMPLING = 0.5
# Few, so that worlds live to see more being reserved.
_RESERVED = 3

# Waits and holds without limit, so that only the clocks that a test sets run.
PATIENT = Policy(max_wait=None, max_hold=0.0)
# Figures in tests are round.
NO_HEADROOM = Memory(headroom_bytes=0)

E = TypeVar("E")
Processes = Mapping[ProcessId, int | None] | Iterable[GpuProcess] | None


def gpus(count: int = 1, total: int = 24 * GIB, *, monitored: bool = False) -> tuple[GpuSpec, ...]:
    """GPUs gpu:0, gpu:1, …; unmonitored ones need no readings."""
    return tuple(
        GpuSpec(key=f"gpu:{n}", index=n, total_bytes=total, uuid=f"GPU-{n}", monitored=monitored) for n in range(count)
    )


def settings(
    policy: Policy = PATIENT,
    policies: Mapping[str, Policy] | None = None,
    memory: Memory = NO_HEADROOM,
    **others: Any,
) -> Settings:
    """Settings with a policy that sets no clocks, and no headroom, unless told otherwise."""
    return Settings(default_policy=policy, policies=policies or {}, memory=memory, **others)


def pid(number: int, start: int = 1) -> ProcessId:
    """A process."""
    return ProcessId(number, start)


def seen(process: ProcessId, used: int | None, *ancestors: ProcessId) -> GpuProcess:
    """A process on a GPU, with its parents."""
    return GpuProcess(process, used, ancestors)


@dataclass(slots=True, eq=False)
class Stream:
    """One Acquire as its client sees it."""

    call: int
    request: AcquireRequest
    effects: list[fx.Effect] = field(default_factory=list)
    last: fx.Effect | None = None
    broken: bool = False

    def of(self, kind: type[E]) -> list[E]:
        """The effects of a kind, in order."""
        return [effect for effect in self.effects if isinstance(effect, kind)]

    @property
    def open(self) -> bool:
        """Whether something can still come."""
        return self.last is None and not self.broken

    @property
    def granted(self) -> bool:
        """Whether it was ever granted."""
        return bool(self.of(fx.Granted))

    @property
    def waiting(self) -> bool:
        """Whether it is still in the queue."""
        return self.open and not self.granted

    @property
    def held(self) -> bool:
        """Whether it carries a lease."""
        return self.open and self.granted

    @property
    def lease(self) -> LeaseView:
        """The lease as it was told last."""
        return self.of(fx.Granted)[-1].lease

    @property
    def lease_id(self) -> str:
        """The id of the lease."""
        return self.lease.lease_id

    @property
    def on(self) -> tuple[str, ...]:
        """The GPUs of the lease."""
        return tuple(grant.spec.key for grant in self.lease.gpus)

    @property
    def queued(self) -> fx.Queued:
        """What it was told last about its wait."""
        return self.of(fx.Queued)[-1]

    @property
    def error(self) -> ArbiterError:
        """What it failed with."""
        assert isinstance(self.last, fx.Failed), self.last
        return self.last.error

    @property
    def declined(self) -> fx.Declined:
        """How it was declined."""
        assert isinstance(self.last, fx.Declined), self.last
        return self.last

    @property
    def ended(self) -> fx.Ended:
        """How its lease ended."""
        assert isinstance(self.last, fx.Ended), self.last
        return self.last


def is_terminal(effect: fx.Effect) -> bool:
    """Whether a call has its last answer with this."""
    if isinstance(effect, fx.Granted):
        return effect.final
    return not isinstance(effect, fx.Queued | fx.YieldRequested)


class World:
    """An arbiter, its clients and its machine."""

    def __init__(
        self,
        specs: Iterable[GpuSpec] | None = None,
        settings_: Settings | None = None,
        *,
        now: float = START,
        journal: bool = False,
        lag: bool = False,
    ) -> None:
        """journal: whether there is one. lag: it is written only when the test says so, otherwise at once."""
        self.now = now
        self.specs = tuple(gpus() if specs is None else specs)
        self.disk = Disk(FIRST_TOKEN + _RESERVED) if journal else None
        self.lag = lag
        self.starts = 0
        self.arbiter = self._start(settings_ or settings(), FIRST_TOKEN)
        self.streams: dict[int, Stream] = {}
        self.records: list[fx.Recorded] = []
        # What the last event led to.
        self.effects: list[fx.Effect] = []
        self.watched: set[ProcessId] = set()
        self.fast: frozenset[str] = frozenset()
        self.newest_token = FIRST_TOKEN - 1
        # Who looks at the world after each event.
        self.watchers: list[Callable[[World, ev.Event], None]] = []
        self._last_call = 0
        self._answers: dict[int, list[fx.Effect]] = {}
        # What the sampler sees on a GPU from now on.
        self._scenes: dict[str, tuple[int | None, tuple[GpuProcess, ...] | None]] = {}
        self._next_sampling = now + _SAMPLING

    # -- events --

    def send(self, event: ev.Event) -> list[fx.Effect]:
        """Hands an event to the arbiter; returns and files what comes of it."""
        self.effects = effects = self.arbiter.handle(event, self.now)
        for effect in effects:
            self._file(effect)
        saves = [effect for effect in effects if isinstance(effect, fx.Save)]
        if saves:
            assert self.disk is not None, "there is no journal"
            self.disk.take(saves[-1].number, [save.change for save in saves], self.now)
        for look in self.watchers:
            look(self, event)
        if saves and not self.lag:
            effects = effects + self.write()
            self.effects = effects
        return effects

    # -- the journal --

    def write(self, count: int | None = None) -> list[fx.Effect]:
        """So many of the changes that are on their way are durable now, or all."""
        assert self.disk is not None, "there is no journal"
        number = self.disk.write(count)
        return self.send(ev.JournalWritten(number)) if number else []

    def break_journal(self, survive: int = 0) -> list[fx.Effect]:
        """It cannot be written; so many of the changes on their way got there all the same."""
        assert self.disk is not None, "there is no journal"
        self.disk.cut(survive)
        self.disk.taking = False
        return self.send(ev.JournalFailed("No space left on device"))

    def mend_journal(self) -> list[fx.Effect]:
        """It may be written again."""
        assert self.disk is not None, "there is no journal"
        self.disk.taking = True
        return self.send(ev.JournalRetried())

    def crash(
        self,
        survive: int = 0,
        *,
        same_boot: bool = True,
        same_pids: bool = True,
        specs: Iterable[GpuSpec] | None = None,
        away: float = 0.0,
    ) -> None:
        """The arbiter dies and starts again after a while; so many of the changes on their way are on the disk."""
        assert self.disk is not None, "there is no journal"
        self.disk.cut(survive)
        self.now += away
        for stream in self.streams.values():
            stream.broken = stream.broken or stream.open
        self._answers.clear()
        self.watched.clear()
        self.fast = frozenset()
        self._scenes.clear()
        if specs is not None:
            self.specs = tuple(specs)
        if not same_boot:
            self.now = 1.0
            self._next_sampling = self.now + _SAMPLING
        first = self.disk.written.tokens_until + 1
        self.disk.begin(first + _RESERVED)
        self.arbiter = self._start(self.arbiter.settings, first)
        self.send(ev.Recover(self.disk.written.saved(), same_boot=same_boot, same_pids=same_pids))
        # Nobody is served before that is written.
        self.write()

    def _start(self, settings_: Settings, first_token: int) -> Arbiter:
        self.starts += 1
        return Arbiter(
            self.specs,
            settings_,
            self.now,
            first_token=first_token,
            id_key=b"key",
            instance_id="here" if self.starts == 1 else f"here{self.starts}",
            tokens_until=None if self.disk is None else first_token + _RESERVED,
        )

    def advance(self, seconds: float) -> list[fx.Effect]:
        """Lets time pass: a Tick at each deadline, a reading of each shown GPU twice a second."""
        until = self.now + seconds
        effects: list[fx.Effect] = []
        wake_ups = 0
        while True:
            deadline = self.arbiter.next_deadline()
            if self._scenes and self._next_sampling <= min(until, deadline if deadline is not None else until):
                self.now = self._next_sampling
                self._next_sampling += _SAMPLING
                for key in list(self._scenes):
                    effects += self.look(key)
                continue
            if deadline is None or deadline > until:
                break
            wake_ups = wake_ups + 1 if deadline <= self.now else 0
            assert wake_ups < _MOST_WAKE_UPS, "the arbiter wants to be woken again and again"
            self.now = max(self.now, deadline)
            effects += self.send(ev.Tick())
        self.now = until
        if not self._scenes:
            self._next_sampling = self.now + _SAMPLING
        return effects

    def tick(self) -> list[fx.Effect]:
        """Lets what is due happen, at once."""
        return self.send(ev.Tick())

    # -- clients --

    def request(  # one keyword for each wish
        self,
        task_type: str = "ASR",
        client: str = "c1",
        *,
        request_id: str = "",
        candidates: tuple[str, ...] = (),
        count: int = 1,
        memory: int = 0,
        sharing: Sharing = Sharing.UNSPECIFIED,
        placement: Placement = Placement.UNSPECIFIED,
        resident: int = 0,
        priority: int | None = None,
        busy: BusyPolicy = BusyPolicy.UNSPECIFIED,
        max_wait: float | None = None,
        max_hold: float | None = None,
        ttl: float = 0.0,
        detached: bool = False,
        sequence: tuple[str, int] | None = None,
        process: ProcessId | None = None,
        principal: str = "local",
    ) -> AcquireRequest:
        """An AcquireRequest."""
        return AcquireRequest(
            task_type,
            Holder(client, pid=process.pid if process else 0, process=process),
            request_id=request_id,
            gpu=GpuRequest(candidates, count, memory, sharing, placement, resident),
            priority=priority,
            busy_policy=busy,
            max_wait=max_wait,
            max_hold=max_hold,
            ttl=ttl,
            detached=detached,
            sequence=Sequence(*sequence) if sequence else None,
            principal=principal,
        )

    def acquire(self, task_type: str = "ASR", client: str = "c1", **wishes: Any) -> Stream:
        """A new stream asks for a lease; the keywords are those of `request`."""
        return self.ask_for(self.request(task_type, client, **wishes))

    def shared(self, memory: int, client: str = "c1", **wishes: Any) -> Stream:
        """A new stream asks for a shared lease."""
        return self.acquire(client=client, memory=memory, sharing=Sharing.SHARED, **wishes)

    def ask_for(self, request: AcquireRequest) -> Stream:
        """A new stream sends this request."""
        stream = Stream(self._call(), request)
        self.streams[stream.call] = stream
        self.send(ev.Acquire(stream.call, request))
        return stream

    def again(self, stream: Stream, **changes: Any) -> Stream:
        """Another stream sends the request of this one again, with changed fields."""
        return self.ask_for(replace(stream.request, **changes))

    def hang_up(self, stream: Stream, *, delivered: bool | None = None) -> list[fx.Effect]:
        """The stream breaks; delivered: whether a Granted was written, by default when there was one."""
        stream.broken = True
        return self.send(ev.StreamClosed(stream.call, stream.granted if delivered is None else delivered))

    def release(
        self,
        stream: Stream | None = None,
        *,
        lease_id: str = "",
        request_id: str = "",
        token: int = 0,
        caller: ev.Caller | None = None,
        report: WorkReport | None = None,
    ) -> fx.Released:
        """Ends the lease of a stream, or what is named; raises the error of a failed call."""
        if stream is not None:
            lease_id = stream.lease_id
        who = caller or ev.Caller()
        return self._ask(lambda call: ev.Release(call, who, lease_id, request_id, token, report))  # type: ignore[return-value]

    def cancel(self, stream: Stream) -> fx.Released:
        """Takes an acquire of the same session back."""
        return self._ask(lambda call: ev.CancelStream(call, stream.call))  # type: ignore[return-value]

    def renew(
        self, lease_id: str, *, token: int = 0, extend: float | None = None, caller: ev.Caller | None = None
    ) -> fx.Renewed:
        """Shows that the holder is alive."""
        who = caller or ev.Caller()
        return self._ask(lambda call: ev.Renew(call, who, lease_id, token, extend))  # type: ignore[return-value]

    def resize(
        self,
        lease_id: str,
        memory: int | None = None,
        sharing: Sharing = Sharing.UNSPECIFIED,
        *,
        token: int = 0,
        caller: ev.Caller | None = None,
    ) -> fx.Resized:
        """Changes what a lease has committed."""
        who = caller or ev.Caller()
        return self._ask(lambda call: ev.Resize(call, who, lease_id, token, memory, sharing))  # type: ignore[return-value]

    def check_fence(self, gpu: str, token: int) -> fx.FenceChecked:
        """Asks whether a token is current."""
        return self._ask(lambda call: ev.CheckFence(call, gpu, token))  # type: ignore[return-value]

    def report(self, report: WorkReport, task_type: str = "ASR", client: str = "c1") -> fx.Done:
        """Tells of work without a lease."""
        return self._ask(lambda call: ev.ReportWork(call, task_type, Holder(client), report, WorkContext()))  # type: ignore[return-value]

    # -- operators --

    def drain(self, *names: str, reason: str = "", grace: float | None = None) -> fx.Drained:
        """Cordons GPUs, or all when none is named."""
        return self._ask(lambda call: ev.Drain(call, names, not names, reason, grace))  # type: ignore[return-value]

    def resume(self, *names: str) -> fx.Done:
        """Takes a drain back, of all when none is named."""
        return self._ask(lambda call: ev.Resume(call, names, not names))  # type: ignore[return-value]

    def revoke(self, lease_id: str, grace: float = 0.0, reason: str = "") -> fx.Done:
        """Ends a lease by an operator's will."""
        return self._ask(lambda call: ev.Revoke(call, lease_id, grace, reason))  # type: ignore[return-value]

    def ask_to_yield(self, lease_id: str, detail: str = "", *, if_awaited: bool = False) -> fx.Asking:
        """The analysis finds its GPUs idle."""
        answer = self._ask(lambda call: ev.AskToYield(call, lease_id, detail, if_awaited))
        assert isinstance(answer, fx.Asked)
        return answer.asking

    def configure(self, **changes: Any) -> list[fx.Effect]:
        """Changes settings."""
        return self.send(ev.Configure(replace(self.arbiter.settings, **changes), "changed"))

    def shut_down(self) -> list[fx.Effect]:
        """Stops taking requests."""
        return self.send(ev.Shutdown())

    # -- the machine --

    def read(
        self, gpu: str = "gpu:0", used: int | None = 0, processes: Processes = None, *, at: float | None = None
    ) -> list[fx.Effect]:
        """One look at a GPU."""
        time = self.now if at is None else at
        return self.send(ev.ReadingTaken(gpu, GpuReading(time, used, processes=_processes(processes))))

    def show(self, gpu: str = "gpu:0", used: int | None = 0, processes: Processes = None) -> list[fx.Effect]:
        """What the sampler sees on a GPU from now on, twice a second; begins with a look."""
        self._scenes[gpu] = (used, _processes(processes))
        return self.look(gpu)

    def hide(self, gpu: str = "gpu:0") -> None:
        """The sampler sees nothing of this GPU any more."""
        self._scenes.pop(gpu, None)

    def look(self, gpu: str = "gpu:0") -> list[fx.Effect]:
        """The sampler looks at a shown GPU now."""
        used, processes = self._scenes[gpu]
        return self.read(gpu, used, processes)

    def lose(self, gpu: str = "gpu:0", detail: str = "fell off the bus") -> list[fx.Effect]:
        """The driver says that a GPU is lost."""
        self.hide(gpu)
        return self.send(ev.GpuFailed(gpu, detail))

    def die(self, process: ProcessId) -> list[fx.Effect]:
        """A process is gone."""
        return self.send(ev.ProcessExited(process))

    def spawn(self, holder: ProcessId, *descendants: ProcessId) -> list[fx.Effect]:
        """A holder was seen to have these descendants."""
        return self.send(ev.DescendantsSeen(holder, descendants))

    # -- what there is --

    @property
    def state(self) -> State:
        """The tables of the arbiter, for white-box checks."""
        return self.arbiter._state

    def snapshot(self, *names: str, max_tickets: int = 100) -> SnapshotView:
        """The state as it shows itself."""
        return self.arbiter.snapshot(self.now, gpus=names, max_tickets=max_tickets)

    def gpu(self, key: str = "gpu:0") -> GpuView:
        """A GPU as it shows itself."""
        return self.snapshot(key).gpus[0]

    def reason(self, stream: Stream) -> WaitReason:
        """Why a request waits now."""
        name = self.state.calls[stream.call].key.request_id  # type: ignore[union-attr]
        return next(ticket.reason for ticket in self.snapshot(max_tickets=10**6).queue if ticket.request_id == name)

    def recorded(self, kind: EventType) -> list[fx.Recorded]:
        """The events of a kind, in order."""
        return [record for record in self.records if record.type is kind]

    def count(self, kind: type) -> int:
        """How many effects of a kind the last event had."""
        return sum(isinstance(effect, kind) for effect in self.effects)

    # -- inside --

    def _call(self) -> int:
        self._last_call += 1
        return self._last_call

    def _ask(self, make: Callable[[int], ev.Event]) -> fx.Effect:
        """A call that is answered at once, by exactly one effect."""
        call = self._call()
        self._answers[call] = []
        self.send(make(call))
        (answer,) = self._answers.pop(call)
        if isinstance(answer, fx.Failed):
            raise answer.error
        return answer

    def _file(self, effect: fx.Effect) -> None:
        match effect:
            case fx.Recorded():
                self.records.append(effect)
            case fx.Watch(process):
                assert process not in self.watched, f"{process} is watched already"
                self.watched.add(process)
            case fx.Unwatch(process):
                assert process in self.watched, f"{process} is not watched"
                self.watched.remove(process)
            case fx.SampleFast(keys):
                assert keys != self.fast, "the sampler was told so already"
                self.fast = keys
            case fx.Refresh(keys):
                assert keys, "nothing is to be read"
            case fx.Save() | fx.Serving():
                pass
            case _:
                self._answer(effect)

    def _answer(self, effect: Any) -> None:
        if effect.call in self._answers:
            self._answers[effect.call].append(effect)
            return
        stream = self.streams[effect.call]
        assert stream.last is None, f"{effect} comes after {stream.last}"
        assert not stream.broken, f"{effect} is said to nobody"
        stream.effects.append(effect)
        if isinstance(effect, fx.Granted):
            self._check_token(effect.lease)
        if is_terminal(effect):
            stream.last = effect

    def _check_token(self, lease: LeaseView) -> None:
        """A new lease has a new token; one that is offered again keeps its own."""
        live = self.state.leases.live
        if lease.fencing_token > self.newest_token:
            self.newest_token = lease.fencing_token
        else:
            earlier = {s.lease.fencing_token: s.lease_id for s in self.streams.values() if s.granted}
            assert earlier[lease.fencing_token] == lease.lease_id, "a token is used again"
            assert lease.lease_id in live


def _processes(processes: Processes) -> tuple[GpuProcess, ...] | None:
    if processes is None:
        return None
    if isinstance(processes, Mapping):
        return tuple(GpuProcess(process, used) for process, used in processes.items())
    return tuple(processes)
