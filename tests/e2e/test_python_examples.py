"""The programs of the Python pages, run as they stand."""

import subprocess
import sys
from pathlib import Path

from e2e.harness.web import environment
from support.process import Arbiterd

EXAMPLES = Path(__file__).parents[2] / "clients/python/examples"
PAGE = EXAMPLES.parents[2] / "docs/python-tasks.md"


def test_tasks(arbiter: Arbiterd):
    done = subprocess.run(
        [sys.executable, "tasks.py"],
        cwd=EXAMPLES,
        env=environment(arbiter.grpc),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    *lines, compared = done.stdout.splitlines()
    assert "```\n" + "\n".join(lines) + "\n```\n" in PAGE.read_text()
    assert compared.endswith("differed: 0")
