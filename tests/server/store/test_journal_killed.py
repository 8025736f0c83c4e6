"""An arbiter that is killed at any moment: what it was told to be written is there, and is what it was."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from gpuarbiter_server.core.records import Saved
from gpuarbiter_server.store.journal import Journal

from .journals import ended, gpu, lease

# Says each number once its commit has returned.
WRITER = """
import sys
from pathlib import Path
from server.store.journals import ended, gpu, lease
from gpuarbiter_server.core.records import Closed, GpuSaved, LeaseSaved
from gpuarbiter_server.store.journal import Journal

journal = Journal.open(Path(sys.argv[1]), durability=sys.argv[2])
journal.begin(epoch=journal.loaded.epoch + 1, boot_id="boot", pid_namespace=1, tokens_until=1 << 41)
token = max([each.token for each in journal.loaded.saved.leases], default=0)
while True:
    token += 1
    changes = [LeaseSaved(lease(token)), GpuSaved(gpu("gpu:0", token))]
    journal.commit([Closed(ended(token - 1)), *changes] if token > 1 else changes)
    print(token, flush=True)
"""


def state(token: int) -> Saved:
    return Saved((lease(token),), tuple(ended(each) for each in range(1, token)), (gpu("gpu:0", token),))


@pytest.mark.parametrize("durability", ["full", "relaxed"])
def test_what_was_written_is_there(tmp_path: Path, durability: str):
    dice = random.Random(durability)
    folder, tests = tmp_path / "state", Path(__file__).parents[2]
    told = 0
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(folder), durability]
        with subprocess.Popen(command, cwd=tests, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(dice.randint(1, 200)):
                told = int(writer.stdout.readline())
            writer.kill()
            # What it said in its last moment.
            told = max(told, *map(int, writer.stdout.read().split()), 0)
        journal = Journal.open(folder, durability="full")
        journal.close()
        # What it was about to say may be there.
        (live,) = journal.loaded.saved.leases
        assert live.token in (told, told + 1)
        assert journal.loaded.saved == state(live.token)
