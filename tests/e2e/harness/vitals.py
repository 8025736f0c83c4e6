"""What an arbiter's process is made of: from /proc, from its metrics, and through a window into it."""

import json
import os
import signal
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fakes.polling import until
from support.process import Arbiterd

_PROBE = Path(__file__).parent / "probe"
_ENDS = "gpu_arbiter_lease_ends_total{"


@dataclass(frozen=True)
class Vitals:
    """At one moment."""

    rss_kib: int
    threads: int
    files: int
    # Lines of /metrics: one for each set of labels, and some more.
    series: int
    # Leases that have ended so far.
    ended: int
    # asyncio tasks that are not done.
    tasks: int
    # Objects of the arbiter's own classes, by the name of the class.
    objects: dict[str, int]

    def __str__(self) -> str:
        return (
            f"{self.rss_kib / 1024:.1f} MiB, {self.threads} threads, {self.files} files, {self.tasks} tasks,"
            f" {self.series} lines of metrics"
        )


class Window:
    """Looks into an arbiter that was started with this environment."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "probe.json"
        self._asked = 0

    @property
    def env(self) -> dict[str, str]:
        """What the arbiter needs in its environment."""
        paths = [str(_PROBE), os.environ.get("PYTHONPATH", "")]
        return {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "ARBITER_PROBE": str(self._file)}

    def look(self, arbiter: Arbiterd) -> Vitals:
        """Its vitals now. It stands still for some tens of milliseconds."""
        with urllib.request.urlopen(f"http://{arbiter.http}/metrics") as page:
            series = [line for line in page.read().decode().splitlines() if not line.startswith("#")]
        self._asked += 1
        arbiter.signal(signal.SIGUSR1)
        until(lambda: self._told().get("asked") == self._asked, "for the arbiter to look into itself")
        told = self._told()
        process = Path("/proc") / str(arbiter.pid)
        status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
        return Vitals(
            int(status["VmRSS"].split()[0]),
            int(status["Threads"]),
            len(list((process / "fd").iterdir())),
            len(series),
            sum(int(float(line.split()[-1])) for line in series if line.startswith(_ENDS)),
            told["tasks"],
            told["objects"],
        )

    def _told(self) -> dict[str, Any]:
        return json.loads(self._file.read_text()) if self._file.exists() else {}
