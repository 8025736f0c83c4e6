"""A real Prometheus and a real Alertmanager: each a process on a free port, with its files in a folder of its own.

Both choose the port themselves and say which, so that nobody can take it in between. What they are asked is asked over
their public HTTP API.
"""

import json
import queue
import re
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Self

import yaml

from fakes.polling import until

PATIENCE_SECONDS = 30.0
_LISTENS = re.compile(r'msg="Listening on" address=(\S+)')


class _Server:
    """A process that says where it listens, and is ready some time after that."""

    def __init__(self, command: Iterable[str], folder: Path) -> None:
        self.process = subprocess.Popen(
            list(command), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines: list[str] = []
        self._address: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.address = self._address.get(timeout=PATIENCE_SECONDS)
        if not self.address:
            self.close()
            raise AssertionError(f"it ended before it listened:\n{self.output}")
        try:
            until(self._is_ready, f"for {self.url} to be ready")
        except BaseException:
            self.close()
            raise

    @property
    def url(self) -> str:
        """Where it answers, without a slash at the end."""
        return f"http://{self.address}"

    @property
    def output(self) -> str:
        """All that it has said."""
        return "".join(self.lines)

    def get(self, path: str, *arguments: tuple[str, str]) -> Any:
        """The JSON of a GET; what it answers to a bad one is in the error."""
        url = f"{self.url}{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE_SECONDS) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{url}: {error.code} {error.read().decode()}") from error

    def close(self) -> None:
        """Ends it; returns once it is gone."""
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._reader.join(PATIENCE_SECONDS)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/-/ready", timeout=PATIENCE_SECONDS) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if match := _LISTENS.search(line):
                self._address.put(match[1])
        self._address.put("")


class Prometheus(_Server):
    """A Prometheus with this configuration (as in prometheus.yml), exemplars included."""

    def __init__(self, binary: str, config: Mapping[str, Any], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(dict(config)))
        super().__init__(
            [
                binary,
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
                "--enable-feature=exemplar-storage",
            ],
            folder,
        )

    def query(self, expression: str) -> list[dict[str, Any]]:
        """The samples of an instant query, now: `[{"metric": {...}, "value": [time, "1"]}]`."""
        data = self.get("/api/v1/query", ("query", expression))["data"]
        if data["resultType"] == "scalar":
            return [{"metric": {}, "value": data["result"]}]
        result: list[dict[str, Any]] = data["result"]
        return result

    def value(self, expression: str) -> float | None:
        """The one value that an expression has; None while it has none."""
        samples = self.query(expression)
        assert len(samples) <= 1, f"{expression}: {samples}"
        return float(samples[0]["value"][1]) if samples else None

    def exemplars(self, expression: str, start: float, end: float) -> list[dict[str, Any]]:
        """The exemplars of the series in an expression, between two moments (Unix time)."""
        arguments = ("query", expression), ("start", f"{start:.3f}"), ("end", f"{end:.3f}")
        result: list[dict[str, Any]] = self.get("/api/v1/query_exemplars", *arguments)["data"]
        return result

    def series(self, *matchers: str) -> list[dict[str, str]]:
        """The label sets of all series that a matcher selects."""
        result: list[dict[str, str]] = self.get("/api/v1/series", *(("match[]", each) for each in matchers))["data"]
        return result

    def alerts(self) -> list[dict[str, Any]]:
        """The pending and firing alerts, as its rules see them."""
        result: list[dict[str, Any]] = self.get("/api/v1/alerts")["data"]["alerts"]
        return result

    def problems(self) -> list[str]:
        """What it says of targets that could not be scraped and of rules that failed, last."""
        targets = self.get("/api/v1/targets")["data"]["activeTargets"]
        groups = self.get("/api/v1/rules")["data"]["groups"]
        bad = [f"{each['scrapeUrl']}: {each['lastError']}" for each in targets if each["lastError"]]
        bad += [
            f"{rule['name']}: {rule['lastError']}" for group in groups for rule in group["rules"] if "lastError" in rule
        ]
        return bad


class Alertmanager(_Server):
    """An Alertmanager with this configuration (as in alertmanager.yml), alone: no cluster."""

    def __init__(self, binary: str, config: Mapping[str, Any], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "alertmanager.yml"
        file.write_text(yaml.safe_dump(dict(config)))
        super().__init__(
            [
                binary,
                f"--config.file={file}",
                f"--storage.path={folder / 'data'}",
                "--web.listen-address=127.0.0.1:0",
                "--cluster.listen-address=",
            ],
            folder,
        )

    def alerts(self) -> list[dict[str, Any]]:
        """The alerts that it knows, those held back by an inhibition with them."""
        result: list[dict[str, Any]] = self.get("/api/v2/alerts")
        return result


def scrape(job: str, address: str, interval: str = "1s") -> dict[str, Any]:
    """The configuration of a Prometheus that scrapes one address."""
    return {
        "global": {"scrape_interval": interval, "evaluation_interval": interval},
        "scrape_configs": [{"job_name": job, "static_configs": [{"targets": [address]}]}],
    }
