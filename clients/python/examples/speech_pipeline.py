"""Speech translation as a pipeline: ASR, SEMANTIC_REPAIR, NMT and TTS, each under a lease of its own.

Several calls speak at once. Each utterance goes through the four stages, stages of different utterances overlap, and
what is heard in a call comes in the order in which it was said, whichever stages fail, are skipped, or find nothing
to do.

    gpu-arbiterd serve --set gpus=sim:2x24GiB       # in another terminal
    python speech_pipeline.py

The stages take as long as such models do, and compute nothing: put your own in their place.
"""

import argparse
import asyncio
import random
import sys

from gpuarbiter import AsyncArbiter
from gpuarbiter.pipeline import JobResult, Pipeline, PipelineSession, SkipJob, Stage, StageResult, StageRun

options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
options.add_argument("--sessions", type=int, default=4, help="how many calls speak at once")
options.add_argument("--utterances", type=int, default=40, help="how many things they say, all together")
options.add_argument("--speed", type=float, default=1.0, help="how many times faster than real models")
options.add_argument("--hold-back", default="5s", help="how long what was said waits for what was said before it")
options.add_argument("--seed", type=int, default=7, help="what goes wrong; the same seed, the same troubles")


class SimulatedError(Exception):
    """A simulated failure."""


class Models:
    """Stand-ins for the models of the four stages."""

    def __init__(self, seed: int, speed: float) -> None:
        self._seed = seed
        self._speed = speed

    async def transcribe(self, audio: str, run: StageRun) -> str:
        """Speech to text."""
        chance = await self._compute(run, 0.080, 0.150)
        if chance < 0.05:
            raise SkipJob("silence")
        return f"text of {audio}"

    async def repair(self, text: str, run: StageRun) -> str:
        """What was misheard."""
        chance = await self._compute(run, 0.040, 0.080)
        if chance < 0.10:
            raise SimulatedError("the language model answered nonsense")
        return f"repaired {text}"

    async def translate(self, text: str, run: StageRun) -> str:
        """Into another language."""
        chance = await self._compute(run, 0.030, 0.060)
        if chance < 0.05:
            raise SimulatedError("no such language")
        return f"translation of {text}"

    async def speak(self, text: str, run: StageRun) -> str:
        """Text to speech."""
        await self._compute(run, 0.080, 0.150)
        return f"audio of {text}"

    async def _compute(self, run: StageRun, least: float, most: float) -> float:
        """Takes its time; what it returns decides whether it goes wrong."""
        rolled = random.Random(f"{self._seed}/{run.stage}/{run.job_id}")
        await asyncio.sleep(rolled.uniform(least, most) / self._speed)
        return rolled.random()


def stages(models: Models) -> list[Stage]:
    """The four of them: what each needs, and what is to be done when it cannot be had."""
    return [
        Stage("ASR", models.transcribe, lease={"memory": "6GiB", "priority": 90, "max_wait": "30s"}, timeout="60s"),
        # A nicety: left out where there is no GPU for it soon, or where it fails.
        Stage(
            "SEMANTIC_REPAIR",
            models.repair,
            lease={"memory": "4GiB", "priority": 20, "busy_policy": "SKIP", "max_wait": "400ms"},
            on_failure="skip",
        ),
        Stage("NMT", models.translate, lease={"memory": "4GiB", "priority": 80, "max_wait": "30s"}, timeout="60s"),
        Stage("TTS", models.speak, lease={"memory": "3GiB", "priority": 70, "max_wait": "30s"}, timeout="60s"),
    ]


def show(result: JobResult) -> None:
    """What is heard; here, what is printed."""
    left_out = ",".join(stage.stage for stage in result.stages if stage.state == "skipped") or "-"
    mark = " late" if result.late else ""
    print(f"{result.session_id} {result.utterance_index:3} {result.state:7} {left_out:15} {result.value}{mark}")


def complain(result: StageResult) -> None:
    """A stage failed, whatever that meant for its utterance."""
    print(f"{result.session_id}/{result.utterance_index} {result.stage}: {result.error}", file=sys.stderr)


async def call(session: PipelineSession, utterances: int) -> None:
    """Somebody speaks."""
    async with session:
        for number in range(utterances):
            await session.submit(f"utterance {number}")


async def main() -> None:
    """Runs all calls, and says how it went."""
    told = options.parse_args()
    async with (
        AsyncArbiter() as arbiter,
        Pipeline(
            arbiter,
            stages(Models(told.seed, told.speed)),
            hold_back=told.hold_back,
            max_in_flight=16,
            on_failure=complain,
        ) as pipeline,
        asyncio.TaskGroup() as calls,
    ):
        for number in range(told.sessions):
            share = len(range(number, told.utterances, told.sessions))
            calls.create_task(call(pipeline.session(f"call-{number}", on_result=show), share))
    statistics = pipeline.statistics()
    print(f"{statistics.done} done, {statistics.skipped} skipped, {statistics.failed} failed, {statistics.late} late")
    for name, stage in statistics.stages.items():
        runs = max(1, stage.done + stage.skipped + stage.failed)
        waited, ran = (time.total_seconds() * 1000 / runs for time in (stage.waited, stage.ran))
        print(
            f"{name:15} {stage.done} done, {stage.skipped} skipped, {stage.failed} failed; "
            f"on average {waited:.0f} ms of waiting, {ran:.0f} ms of work"
        )


if __name__ == "__main__":
    asyncio.run(main())
