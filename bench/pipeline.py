"""The speech pipeline against the best that its stage times allow, and against doing one thing after another.

The times of the stages are drawn once, by a fixed seed, from what such models take (ASR 80 to 150 ms, SEMANTIC_REPAIR
40 to 80, NMT 30 to 60, TTS 80 to 150); the work is a sleep of that length under an exclusive lease on one of two
simulated GPUs. In the first row nothing fails, in the second some do, by dice of a fixed seed: 5 % of the utterances
are over after ASR (skipped), 5 % fail in NMT, one repair in ten fails and is left out. Nothing is declined.

The ideal is a lower bound that no schedule can go below, the greatest of:

- all work divided by the number of GPUs: each of them busy from the first moment to the last;
- for each session and each stage, where an utterance begins once the one before it is done: the work of all of them in
  that stage, after the quickest way there (the earlier stages of one utterance), and before the quickest way out (the
  later stages of one): fill and drain;
- the longest single utterance, through all its stages.

What a schedule cannot avoid all the same is left out: when fewer utterances than GPUs are left, a GPU is idle. So the
ratio holds the hand-offs of the arbiter, the decisions of the pipeline, and that remainder.
"""

import asyncio
import random
import statistics
import time
from collections.abc import Sequence

from bench import loop
from bench.figures import verdict
from bench.servers import Server, arbiter
from gpuarbiter import AsyncArbiter, AsyncLease
from gpuarbiter.pipeline import Pipeline, SkipJob, Stage, StageRun

STAGES = {"ASR": (0.080, 0.150), "SEMANTIC_REPAIR": (0.040, 0.080), "NMT": (0.030, 0.060), "TTS": (0.080, 0.150)}
GPUS = 2
TARGET = 1.15
# One after another, so many times fewer are enough to tell how long all would take.
_PARTS = 5
# What is left out where it fails.
_NICETY = "SEMANTIC_REPAIR"
# Of each session, of each utterance, of each stage that it comes to: seconds.
Times = list[list[list[float]]]


def drawn(sessions: int, utterances: int, speed: float) -> Times:
    """The times of all stages."""
    dice = random.Random(5)
    return [
        [[dice.uniform(*between) / speed for between in STAGES.values()] for _ in range(utterances // sessions)]
        for _ in range(sessions)
    ]


def ideal(times: Times) -> float:
    """The lower bound, in seconds."""
    utterances = [utterance for session in times for utterance in session]
    busy = sum(map(sum, utterances)) / GPUS
    chains = (
        min(sum(utterance[:stage]) for utterance in there)
        + sum(utterance[stage] for utterance in there)
        + min(sum(utterance[stage + 1 :]) for utterance in there)
        for session in times
        for stage in range(len(STAGES))
        if (there := [utterance for utterance in session if len(utterance) > stage])
    )
    return max(busy, *chains, *map(sum, utterances))


def troubled(times: Times) -> Times:
    """The same, with some that do not come to all stages."""
    dice = random.Random(6)

    def cut(utterance: list[float]) -> list[float]:
        chance = dice.random()
        return utterance[:1] if chance < 0.05 else utterance[:3] if chance < 0.10 else utterance

    return [[cut(utterance) for utterance in session] for session in times]


async def overlapped(server: Server, times: Times, *, nonsense: float) -> float:
    """Seconds that the pipeline takes; nonsense: the share of repairs that fail."""
    heard: list[list[int]] = [[] for _ in times]
    dice = random.Random(7)

    async def work(value: Sequence[float], run: StageRun) -> Sequence[float]:
        stage = list(STAGES).index(run.stage)
        await asyncio.sleep(value[stage])
        if len(value) == stage + 1 < len(STAGES):
            raise SkipJob("silence") if stage == 0 else RuntimeError("no such language")
        if run.stage == _NICETY and dice.random() < nonsense:
            raise RuntimeError("nonsense")
        return value

    stages = [
        Stage(name, work, lease={"max_wait": "60s"}, on_failure="skip" if name == _NICETY else "fail")
        for name in STAGES
    ]
    async with AsyncArbiter(server.target) as client, client.lease("WARM_UP"):
        pass
    async with AsyncArbiter(server.target) as client:
        began = time.perf_counter()
        async with Pipeline(client, stages, max_in_flight=2 * len(times), hold_back=None) as pipeline:
            sessions = [
                pipeline.session(
                    f"call-{number}", on_result=lambda result, into=into: into.append(result.utterance_index)
                )
                for number, into in enumerate(heard)
            ]
            # Everybody speaks at once.
            for turn in zip(*times, strict=True):
                for session, utterance in zip(sessions, turn, strict=True):
                    await session.submit(utterance)
        took = time.perf_counter() - began
    assert heard == [list(range(len(session))) for session in times], heard
    whole = sum(len(utterance) == len(STAGES) for session in times for utterance in session)
    assert pipeline.statistics().done == whole, pipeline.statistics()
    return took


async def one_after_another(server: Server, times: Times) -> float:
    """Seconds that it takes without a pipeline: each stage under its lease, and then the next."""

    async with AsyncArbiter(server.target) as client:
        began = time.perf_counter()
        for turn in zip(*times, strict=True):
            for utterance in turn:
                for name, seconds in zip(STAGES, utterance, strict=False):

                    async def work(_lease: AsyncLease, seconds: float = seconds) -> None:
                        await asyncio.sleep(seconds)

                    await client.run(name, work)
        return time.perf_counter() - began


def rows(*, quick: bool) -> list[tuple[str, ...]]:
    """A row without failures and one with them: the ideal and one after another, the pipeline, and its ratio."""
    sessions, utterances, rounds, speed = (4, 20, 1, 10.0) if quick else (8, 200, 2, 1.0)
    times = drawn(sessions, utterances, speed)
    name = f"Speech pipeline: {utterances} utterances of {sessions} sessions, four stages, {GPUS} GPUs"
    return [
        _row(name, times, rounds, nonsense=0.0),
        _row(f"{name}, with failures and skips", troubled(times), rounds, nonsense=0.1),
    ]


def _row(name: str, times: Times, rounds: int, *, nonsense: float) -> tuple[str, ...]:
    bound = ideal(times)
    with arbiter(f"gpus=sim:{GPUS}x24GiB") as server:
        took = [loop.run(overlapped(server, times, nonsense=nonsense)) for _ in range(rounds)]
        apart = _PARTS * loop.run(one_after_another(server, [session[: len(session) // _PARTS] for session in times]))
    ratios = [each / bound for each in took]
    figure = statistics.median(ratios)
    spread = f"{figure:.3f} × the ideal ({min(ratios):.3f} to {max(ratios):.3f})"
    faster = f"{apart / statistics.median(took):.2f} × as fast as one after another"
    return (
        name,
        f"ideal {bound:.2f} s; one after another {apart:.2f} s (by {1 / _PARTS:.0%} of them)",
        f"{statistics.median(took):.2f} s",
        f"{spread}; {faster}; " + verdict(f"{TARGET} ×", passed=figure <= TARGET),
    )
