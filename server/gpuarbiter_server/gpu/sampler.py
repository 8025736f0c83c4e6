"""Looks at every GPU at regular intervals and hands on what it sees.

Law: one thread per GPU. An NVML call can hang for half a minute (a GPU that fell off the bus, a driver that resets),
and nothing can interrupt it: then that thread alone waits, that GPU alone goes stale, and the others
are read on. The threads are daemons, so that a hung one does not keep the service from ending.

Events are delivered from these threads; whoever listens hands them over to the thread that owns the core.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace

from gpuarbiter_server.core.events import DescendantsSeen, DriverChanged, GpuFailed, ReadingTaken
from gpuarbiter_server.core.model import GpuSpec, ProcessId
from gpuarbiter_server.gpu.backend import DriverGoneError, GpuBackend, GpuLostError
from gpuarbiter_server.gpu.family import FamilyWatch
from gpuarbiter_server.gpu.lineage import Lineage
from gpuarbiter_server.gpu.pace import Pace

log = logging.getLogger(__name__)

SamplerEvent = ReadingTaken | GpuFailed | DriverChanged | DescendantsSeen
Deliver = Callable[[SamplerEvent], None]


class _Driver:
    """Whether the driver answers, as all threads together see it."""

    def __init__(self, deliver: Deliver) -> None:
        self._deliver = deliver
        self._lock = threading.Lock()
        self._up = True
        # Counts the changes: who began to ask before the last one knows nothing new about it.
        self.epoch = 0

    def says(self, epoch: int, *, up: bool, detail: str = "") -> None:
        with self._lock:
            if epoch == self.epoch and up != self._up:
                self._up = up
                self.epoch += 1
                # Under the lock, so that ups and downs arrive in the order in which they happened.
                self._deliver(DriverChanged(up=up, detail=detail))


class _GpuThread:
    """Reads one GPU, again and again."""

    def __init__(
        self,
        backend: GpuBackend,
        spec: GpuSpec,
        driver: _Driver,
        *,
        interval: float,
        clock: Callable[[], float],
        deliver: Deliver,
        observe_poll: Callable[[float], None] | None,
    ) -> None:
        self.spec = spec
        self.pace = Pace(interval)
        self._wanted_interval = self._normal_interval = interval
        self._backend = backend
        self._driver = driver
        self._clock = clock
        self._deliver = deliver
        self._observe_poll = observe_poll
        self._lineage = Lineage()
        self._lost = False

    def run(self) -> None:
        while self.pace.wait():
            began = time.perf_counter()
            self._take()
            if self._observe_poll is not None:
                self._observe_poll(time.perf_counter() - began)
            self.want(self._wanted_interval)

    def want(self, interval: float) -> None:
        self._wanted_interval = interval
        # A lost GPU is asked again at the normal pace: asking a sick driver faster does not heal it.
        self.pace.set_interval(self._normal_interval if self._lost else interval)

    def _take(self) -> None:
        epoch = self._driver.epoch
        at = self._clock()
        try:
            reading = self._lineage.complete(replace(self._backend.read(self.spec), time=at))
        except GpuLostError as error:
            gone = isinstance(error, DriverGoneError)
            self._driver_says(epoch, up=not gone, detail=str(error) if gone else "")
            self._fail(str(error))
        except Exception as error:
            # A defect of ours, or an answer that nobody foresaw: this GPU pays for it, not the service.
            if not self._lost:
                log.exception("reading %s failed", self.spec.key)
            self._fail(f"reading {self.spec.key} failed: {error!r}")
        else:
            self._lost = False
            self._driver_says(epoch, up=True)
            self._hand_on(ReadingTaken(self.spec.key, reading))

    def _fail(self, detail: str) -> None:
        if not self._lost:
            self._lost = True
            self._hand_on(GpuFailed(self.spec.key, detail))

    def _driver_says(self, epoch: int, *, up: bool, detail: str = "") -> None:
        if not self.pace.stopped:
            self._driver.says(epoch, up=up, detail=detail)

    def _hand_on(self, event: SamplerEvent) -> None:
        if not self.pace.stopped:
            self._deliver(event)


class Sampler:
    """Reads the monitored GPUs of one backend, and keeps track of the holders' descendants.

    `deliver` is called from the sampler's threads and must neither block nor raise. `clock` gives the time that
    readings carry, taken just before the first query of each. Intervals are seconds from the
    start of one reading to the start of the next. `observe_poll` gets the seconds that each reading took.
    Every method may be called from any thread.
    """

    def __init__(
        self,
        backend: GpuBackend,
        specs: Iterable[GpuSpec],
        *,
        interval: float = 0.5,
        fast_interval: float = 0.05,
        clock: Callable[[], float],
        deliver: Deliver,
        observe_poll: Callable[[float], None] | None = None,
    ) -> None:
        driver = _Driver(deliver)
        self._interval = interval
        self._fast_interval = fast_interval
        self._gpus = {
            spec.key: _GpuThread(
                backend,
                spec,
                driver,
                interval=interval,
                clock=clock,
                deliver=deliver,
                observe_poll=observe_poll,
            )
            for spec in specs
            if spec.monitored
        }
        self._family = FamilyWatch(interval, deliver)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Starts to read, each GPU at once."""
        runs = [(f"sampler {key}", gpu.run) for key, gpu in self._gpus.items()]
        runs.append(("sampler descendants", self._family.run))
        self._threads = [threading.Thread(name=name, target=run, daemon=True) for name, run in runs]
        for thread in self._threads:
            thread.start()

    def stop(self, timeout: float = 1.0) -> None:
        """Ends the threads and waits for them, `timeout` seconds in all; one that hangs is left behind.

        Nothing is delivered for a reading that ends after this.
        """
        for gpu in self._gpus.values():
            gpu.pace.stop()
        self._family.pace.stop()
        deadline = time.monotonic() + timeout
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                log.warning("%s hangs in a call and is left behind", thread.name)

    def fast(self, keys: frozenset[str]) -> None:
        """Reads these GPUs at the fast interval from now on, and all others at the normal one."""
        for key, gpu in self._gpus.items():
            gpu.want(self._fast_interval if key in keys else self._interval)

    def refresh(self, keys: Iterable[str]) -> None:
        """Reads these GPUs at once, by a reading that begins after this call. Unknown keys are ignored."""
        for key in keys:
            gpu = self._gpus.get(key)
            if gpu is not None:
                gpu.pace.ask()
        self._family.pace.ask()

    def watch_holders(self, processes: frozenset[ProcessId]) -> None:
        """Delivers DescendantsSeen for exactly these processes from now on."""
        self._family.watch(processes)
