"""The arbiter on against off (P12): speech translation on one simulated GPU, the same utterances at the same moments.

Off is `enabled: false`: every lease is granted at once, and what is on the GPU together shares its time and its memory.
Both run side by side, each on a GPU and an arbiter of its own. With every utterance repaired the GPU would be asked for
all that it can do, and for half of it without: a repair is what an utterance can go without.

An utterance that failed has no delay, so that the delays are those of the utterances that were heard.
"""

import asyncio
import contextlib
import itertools
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import loop
from bench.drawing import Chart, draw
from bench.figures import Row, quantile, verdict
from bench.servers import Server, arbiter
from bench.speech_gpu import Gpu
from gpuarbiter import AsyncArbiter, sim
from gpuarbiter.pipeline import JobResult, Pipeline, Stage, StageRun

_PICTURE = Path(__file__).with_name("speech.svg")
# Seconds of the GPU for itself, and memory.
_WORK = {
    "ASR": (0.060, 0.120, "5GiB"),
    "SEMANTIC_REPAIR": (0.150, 0.300, "8GiB"),
    "NMT": (0.030, 0.060, "4GiB"),
    "TTS": (0.060, 0.120, "3GiB"),
}
_POLICIES = (
    "policies.ASR={priority: 90, max_wait: 3s}",
    "policies.SEMANTIC_REPAIR={priority: 20, max_wait: 400ms, busy_policy: SKIP}",
    "policies.NMT={priority: 80, max_wait: 3s}",
    "policies.TTS={priority: 70, max_wait: 2s}",
    "queue_limit=100",
)
_SESSIONS = 8
# Utterances of a session come so many seconds after each other.
_PAUSE = (2.0, 4.5)
_AT_ONCE = 64


@dataclass
class Heard:
    """What became of the utterances of one side."""

    # When each was said, and how long ASR and NMT of it took, waiting included.
    delays: list[tuple[float, float]] = field(default_factory=list)
    # When something ran out of memory.
    out_of_memory: list[float] = field(default_factory=list)
    jobs: int = 0
    failed: int = 0
    repairs: int = 0
    skipped: int = 0

    @property
    def p95(self) -> float:
        """Seconds."""
        return quantile([seconds for _, seconds in self.delays], 0.95)

    def take(self, result: JobResult, said_at: float) -> None:
        """Counts an utterance."""
        self.jobs += 1
        self.failed += result.state == "failed"
        stages = {stage.stage: stage for stage in result.stages}
        self.out_of_memory += [said_at for stage in result.stages if isinstance(stage.error, sim.SimulatedOutOfMemory)]
        if (repair := stages.get("SEMANTIC_REPAIR")) is not None:
            self.repairs += 1
            self.skipped += repair.cause == "DECLINED"
        both = [stages[name] for name in ("ASR", "NMT") if name in stages and stages[name].state == "done"]
        if len(both) == 2:
            self.delays.append((said_at, sum((stage.waited + stage.ran).total_seconds() for stage in both)))


def rows(*, quick: bool) -> list[Row]:
    """One row, and the picture."""
    seconds = 1.5 if quick else 60.0
    with contextlib.ExitStack() as stack:
        sides = []
        for enabled in ("false", "true"):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            environment = {sim.ROOT_VARIABLE: str(folder)}
            settings = (f"enabled={enabled}", "gpus=sim:1x24GiB", *_POLICIES)
            sides.append(
                (stack.enter_context(arbiter(*settings, environment=environment, log=folder / "log")), Gpu(folder))
            )
        off, on = loop.run(_both(sides, seconds))
    if not quick:
        _draw(off, on, seconds)
    passed = on.p95 <= off.p95 and not on.out_of_memory and on.skipped > 0
    return [
        (
            f"P12 Speech on one GPU, {off.jobs} utterances of {_SESSIONS} sessions: the arbiter off, and on",
            f"off: {_said(off)}",
            f"on: {_said(on)}",
            f"p95 {on.p95 / off.p95:.2f} ×; "
            + verdict("p95 not above, nothing out of memory, skips visible", passed=passed),
        )
    ]


def _said(heard: Heard) -> str:
    return (
        f"ASR + NMT p95 {heard.p95 * 1e3:.0f} ms of those heard; {len(heard.out_of_memory)} out of memory; "
        f"{heard.failed / heard.jobs:.0%} of utterances failed; {heard.skipped / max(1, heard.repairs):.0%} of repairs "
        "skipped"
    )


async def _both(sides: Sequence[tuple[Server, Gpu]], seconds: float) -> list[Heard]:
    return await asyncio.gather(*(_listen(server, gpu, seconds) for server, gpu in sides))


async def _listen(server: Server, gpu: Gpu, seconds: float) -> Heard:
    """Everybody speaks for so long; then what is under way is heard to its end."""

    async def work(_: None, run: StageRun) -> None:
        least, most, memory = _WORK[run.stage]
        await gpu.compute(random.Random(f"{run.job_id}/{run.stage}").uniform(least, most), memory)

    stages = [
        Stage(
            name,
            work,
            concurrency=_AT_ONCE,
            lease={"memory": memory},
            on_failure="skip" if name == "SEMANTIC_REPAIR" else "fail",
        )
        for name, (_, _, memory) in _WORK.items()
    ]
    heard, began = Heard(), time.perf_counter()

    async def speak(number: int) -> None:
        times = _moments(number, seconds)
        session = pipeline.session(
            f"call-{number}", on_result=lambda result: heard.take(result, times[result.utterance_index])
        )
        async with session:
            for moment in times:
                await asyncio.sleep(began + moment - time.perf_counter())
                await session.submit(None)

    async with (
        AsyncArbiter(server.target, client_id="speech") as client,
        Pipeline(client, stages, max_in_flight=1000, max_in_flight_per_session=1000) as pipeline,
        asyncio.TaskGroup() as calls,
    ):
        for number in range(_SESSIONS):
            calls.create_task(speak(number))
    return heard


def _moments(number: int, seconds: float) -> list[float]:
    """When a session says something."""
    dice = random.Random(number)
    times = itertools.accumulate(dice.uniform(*_PAUSE) for _ in itertools.count())
    return list(itertools.takewhile(lambda moment: moment < seconds, times)) or [0.0]


def _draw(off: Heard, on: Heard, seconds: float) -> None:
    top = max(delay for heard in (off, on) for _, delay in heard.delays) * 1e3
    charts = []
    for name, heard in (("off", off), ("on", on)):
        ran_out = f"{len(heard.out_of_memory)} times out of memory"
        skipped = f"{heard.skipped / max(1, heard.repairs):.0%} of repairs skipped"
        charts.append(
            Chart(
                f"The arbiter {name}: {heard.failed} of {heard.jobs} utterances failed",
                f"seconds; {skipped}",
                {
                    "ASR + NMT, ms": [(moment, delay * 1e3) for moment, delay in heard.delays],
                    ran_out: [(moment, 0.0) for moment in heard.out_of_memory],
                },
                marks={f"p95 {heard.p95 * 1e3:.0f} ms": heard.p95 * 1e3},
                x_top=seconds,
                y_top=top,
            )
        )
    draw(_PICTURE, charts)
