"""Every block of Python on the pages about the client runs as it stands, beside stand-ins for what is the reader's."""

import ast
import inspect
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest

from gpuarbiter import Arbiter, Lease
from support.process import Arbiterd

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "clients/python/README.md", "docs/python-client.md")


def readers_own() -> dict[str, Any]:
    """What the blocks use and no block makes: the program around them."""
    names = [
        "app",
        "audio",
        "log",
        "model",
        "on_cpu",
        "on_gpu",
        "repair",
        "save_checkpoint",
        "step",
        "text",
        "translate",
    ]
    torch = MagicMock()
    torch.cuda.max_memory_reserved.return_value = 2**30
    return {name: MagicMock(name=name) for name in names} | {
        "batch": [1, 2],
        "batches": [[1], [2]],
        "stop": threading.Event(),
        "torch": torch,
        "transcribe_on_cpu": lambda audio: f"{audio} on the CPU",
    }


def blocks() -> Iterator[tuple[str, str]]:
    for page in PAGES:
        found = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL)
        assert found, page
        yield from ((f"{page}, block {number}", block) for number, block in enumerate(found))


@pytest.fixture
def pages_arbiter(arbiterd: Callable[..., Arbiterd], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Arbiterd:
    """One that the environment leads to, as it would a reader."""
    started = arbiterd("gpus=sim:1x24GiB")
    monkeypatch.setenv("GPU_ARBITER_ADDRESS", started.grpc)
    monkeypatch.setenv("GPU_ARBITER_SIM_DIR", str(folder / "sim"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # so that what a block sets is taken back
    return started


async def run(block: str, name: str, arbiter: Arbiter) -> dict[str, Any]:
    """Runs a block where `arbiter` is there; the names that it leaves."""

    async def transcribe(**_: object) -> None: ...

    names = readers_own() | {"arbiter": arbiter, "transcribe": transcribe if "await" in block else MagicMock()}
    if block.startswith("lease."):
        names["lease"] = arbiter.acquire("ASR")
    outcome = eval(compile(block, name, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
    if inspect.iscoroutine(outcome):
        await outcome
    return names


async def test_blocks(pages_arbiter: Arbiterd, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("time.sleep", lambda _seconds: None)
    for name, block in blocks():
        with Arbiter(pages_arbiter.grpc) as arbiter:
            names = await run(block, name, arbiter)
            if "@gpu_task" in block:
                names["transcribe"]("audio")
                assert names["model"].transcribe.called
            if isinstance(names["arbiter"], Arbiter):
                names["arbiter"].close()
        if isinstance(names.get("lease"), Lease):
            assert names["lease"].released, name
