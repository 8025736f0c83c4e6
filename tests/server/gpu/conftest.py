import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

# Says its pid and then those of its children, one a line, and lives until it is killed.
FAMILY = """
import subprocess, sys, time
name, depth = sys.argv[1], int(sys.argv[2])
open("/proc/self/comm", "w").write(name)
import os
print(os.getpid(), flush=True)
if depth:
    subprocess.Popen([sys.executable, "-c", sys.argv[3], name, str(depth - 1), sys.argv[3]])
time.sleep(1000)
"""


class Family:
    """A process, its child, its child's child, ...: real ones, under any name."""

    def __init__(self, name: str, depth: int) -> None:
        command = [sys.executable, "-c", FAMILY, name, str(depth), FAMILY]
        self.head = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.head.stdout is not None
        self.pids = [int(self.head.stdout.readline()) for _ in range(depth + 1)]

    def kill(self, generation: int) -> None:
        """Kills one of them; the head is waited for, too."""
        if generation == 0:
            self.head.kill()
            self.head.wait()
        else:
            subprocess.run(["kill", "-9", str(self.pids[generation])], check=False, stderr=subprocess.DEVNULL)

    def close(self) -> None:
        for generation in range(len(self.pids)):
            self.kill(generation)
        assert self.head.stdout is not None
        self.head.stdout.close()


@pytest.fixture
def family() -> Iterator[Callable[..., Family]]:
    made: list[Family] = []

    def make(depth: int = 0, name: str = "python") -> Family:
        made.append(Family(name, depth))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Waits for a condition that other threads or processes bring about; fails when it never comes."""

    def wait(condition: Callable[[], object], timeout: float = 20.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "the awaited condition never came true"
            time.sleep(0.002)

    return wait
