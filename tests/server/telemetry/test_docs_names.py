"""What the documentation says about metrics: their names, labels and values are in the catalogue, and queries parse."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gpuarbiter_server.telemetry.catalogue import CATALOGUE, PREFIX, Metric

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Names of recording rules have colons, and are none of ours.
_NAME = re.compile(r"(?<![\w:])gpu_arbiter_\w+(?!\w|:\w)")
_SELECTOR = re.compile(r"(?<![\w:])(gpu_arbiter_\w+)\{([^{}]*)\}")
_MATCHER = re.compile(r"""(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"\s*(?:,|$)""")
_QUERY = re.compile(r"^```promql\n(.*?)^```$", re.MULTILINE | re.DOTALL)
# Labels that Prometheus adds.
_ADDED = {"job", "instance"}


def names_of(metric: Metric) -> Iterator[str]:
    yield metric.full_name
    if metric.kind == "histogram":
        yield from (metric.full_name + suffix for suffix in ("_bucket", "_count", "_sum"))


METRICS = {name: metric for metric in CATALOGUE for name in names_of(metric)}


def unknown(text: str) -> set[str]:
    return set(_NAME.findall(text)) - METRICS.keys()


def wrong_selectors(text: str) -> list[str]:
    """Selectors with labels that the metric lacks, or values that the label never has."""
    return [found[0] for found in _SELECTOR.finditer(text) if not _is_right(METRICS.get(found[1]), found[2])]


def _is_right(metric: Metric | None, matchers: str) -> bool:
    if metric is None or _MATCHER.sub("", matchers).strip():
        return False
    labels = {label.name: label.values for label in metric.labels}
    for name, _, value in _MATCHER.findall(matchers):
        if name in _ADDED or (name == "le" and metric.buckets):
            continue
        if name not in labels:
            return False
        values = labels[name]
        if isinstance(values, tuple) and not set(value.split("|")) <= set(values):
            return False
    return True


def test_a_wrong_name_label_or_value_is_found():
    assert unknown("`gpu_arbiter_leases` gpu_arbiter_lease gpu_arbiter_queue_wait_seconds_bucket") == {
        "gpu_arbiter_lease"
    }
    assert unknown("task:gpu_arbiter_failures:ratio gpu_arbiter_x:rate5m, gpu_arbiter_leases: live") == set()
    assert wrong_selectors('gpu_arbiter_leases{task="ASR", state="held"} gpu_arbiter_waiters{job="a"}') == []
    for wrong in (
        'gpu_arbiter_leases{end="released"}',
        'gpu_arbiter_lease_ends_total{end=~"released|gone"}',
        "gpu_arbiter_leases{state=held}",
        'gpu_arbiter_leases{le="1"}',
        'gpu_arbiter_nothing{gpu="gpu:0"}',
    ):
        assert wrong_selectors(wrong) == [wrong]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_name_label_and_value_in_the_docs_is_one(page: Path):
    text = page.read_text()
    assert unknown(text) == set()
    assert wrong_selectors(text) == []


def test_there_is_something_to_look_at():
    named = {name for page in PAGES for name in _NAME.findall(page.read_text())}
    assert named > {metric.full_name for metric in CATALOGUE}
    assert PREFIX == "gpu_arbiter_", "the patterns say so"


@pytest.mark.tool("promtool")
def test_every_query_in_the_docs_parses(tool: Callable[[str], str], tmp_path: Path):
    queries = [query for page in PAGES for query in _QUERY.findall(page.read_text())]
    assert len(queries) > 10
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries)]
    # JSON is YAML.
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "queries", "rules": rules}]}))
    done = subprocess.run(
        [tool("promtool"), "check", "rules", tmp_path / "rules.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
