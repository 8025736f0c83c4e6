"""The speech pipeline, and the examples of docs/pipelines.md, as they stand, on a real arbiter."""

import random
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuarbiter import Arbiter
from support.process import Arbiterd, environment, running

ROOT = Path(__file__).parents[4]
SESSIONS, UTTERANCES, SEED = 8, 200, 11
LINE = re.compile(r"(call-\d+) +(\d+) (done|failed|skipped) +(\S+) +(.*?)( late)?")


@pytest.fixture(scope="module")
def arbiter() -> Iterator[Arbiterd]:
    """An arbiter with two simulated GPUs."""
    with tempfile.TemporaryDirectory(prefix="gpu-arbiter-e2e-") as folder:
        with running(Path(folder), "gpus=sim:2x24GiB", "shutdown_grace=0s") as started:
            yield started
        assert "Traceback" not in started.output, started.output


def run(arbiter: Arbiterd, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = environment(folder, GPU_ARBITER_ADDRESS=arbiter.grpc)
    return subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, timeout=90, check=True)


def goes_wrong(stage: str, job: str, chance: float) -> bool:
    """What the example's dice say."""
    rolled = random.Random(f"{SEED}/{stage}/{job}")
    rolled.random()
    return rolled.random() < chance


def expected(job: str) -> tuple[str, str]:
    """The state of an utterance, and which stage its own trouble leaves out."""
    if goes_wrong("ASR", job, 0.05):
        return "skipped", "ASR"
    repair = "SEMANTIC_REPAIR" if goes_wrong("SEMANTIC_REPAIR", job, 0.10) else "-"
    return ("failed" if goes_wrong("NMT", job, 0.05) else "done"), repair


def test_every_session_hears_everything_once_and_in_order_whatever_goes_wrong(arbiter: Arbiterd, tmp_path: Path):
    script = ROOT / "clients/python/examples/speech_pipeline.py"
    amounts = (
        "--sessions",
        str(SESSIONS),
        "--utterances",
        str(UTTERANCES),
        "--seed",
        str(SEED),
        "--speed",
        "10",
        "--hold-back",
        "60s",
    )
    done = run(arbiter, tmp_path, str(script), *amounts)
    heard: dict[str, list[int]] = defaultdict(list)
    for line in done.stdout.splitlines()[:UTTERANCES]:
        match = LINE.fullmatch(line)
        assert match is not None, line
        session, index, state, left_out, value, late = match.groups()
        heard[session].append(int(index))
        assert late is None, line
        wanted, trouble = expected(f"{session}/{index}")
        assert state == wanted, line
        # The arbiter declines repairs where both GPUs are busy for too long.
        assert left_out in {trouble, "SEMANTIC_REPAIR"}, line
        repaired = "" if left_out == "SEMANTIC_REPAIR" else "repaired "
        assert value == ("None" if state != "done" else f"audio of translation of {repaired}text of utterance {index}")
    assert heard == {f"call-{number}": list(range(UTTERANCES // SESSIONS)) for number in range(SESSIONS)}

    states = [expected(f"call-{number}/{index}")[0] for number in range(SESSIONS) for index in heard["call-0"]]
    assert {state: states.count(state) for state in set(states)}.keys() == {"done", "skipped", "failed"}
    said = done.stdout.splitlines()[UTTERANCES]
    assert said == ", ".join([*(f"{states.count(state)} {state}" for state in ("done", "skipped", "failed")), "0 late"])
    assert done.stderr.count("no such language") == states.count("failed")
    with Arbiter(arbiter.grpc) as looking:
        snapshot = looking.snapshot()
    assert not snapshot.leases
    assert not snapshot.queue_length


def test_the_examples_of_the_page_run_as_they_stand(arbiter: Arbiterd, tmp_path: Path):
    page = (ROOT / "docs/pipelines.md").read_text()
    complete = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "asyncio.run(" in block]
    assert complete
    for number, block in enumerate(complete):
        script = tmp_path / f"example_{number}.py"
        script.write_text(block)
        lines = run(arbiter, tmp_path, str(script)).stdout.splitlines()
        assert [line[:45] for line in lines] == [
            f"{index} done translation of the text of b'{word}' from GPU"[:45]
            for index, word in enumerate(("one", "two", "three"))
        ]
