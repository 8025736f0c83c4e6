"""The command gpu-arbiter, as a user of one arbiter's machine calls it."""

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from e2e.harness.waiting import PATIENCE_SECONDS

PROGRAM = Path(sys.executable).with_name("gpu-arbiter")


class Cli:
    """gpu-arbiter in an environment of its own."""

    def __init__(self, env: Mapping[str, str]) -> None:
        # The commands that it runs find it too.
        self._env = dict(env) | {"PATH": f"{PROGRAM.parent}:{env['PATH']}"}
        self._running: list[subprocess.Popen[str]] = []

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end."""
        return subprocess.run(
            [PROGRAM, *arguments],
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_SECONDS,
            check=False,
        )

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Starts a command that goes on."""
        started = subprocess.Popen(
            [PROGRAM, *arguments],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._running.append(started)
        return started

    def start_other(self, *command: str, cwd: Path) -> subprocess.Popen[str]:
        """Starts something else in the same environment; both its streams are its stdout."""
        started = subprocess.Popen(
            command,
            env=self._env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._running.append(started)
        return started

    @staticmethod
    def end_of(started: subprocess.Popen[str]) -> tuple[int, str]:
        """Its exit code and what it said on stderr, once it has ended."""
        _, said = started.communicate(timeout=2 * PATIENCE_SECONDS)
        return started.returncode, said

    def close(self) -> None:
        for started in self._running:
            if started.poll() is None:
                # Gently: it ends what it started, too.
                started.terminate()
            started.communicate()
