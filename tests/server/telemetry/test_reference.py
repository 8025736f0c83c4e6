"""The generated page of metrics: complete, and true of a running page."""

import re
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tools.metrics_prose import FREE, SCRAPE
from tools.metrics_reference import Site, count, formula, is_bounded, lines_at_most, metrics_reference

from gpuarbiter_server.config.keys import all_keys
from gpuarbiter_server.telemetry import catalogue as cat
from support.server import serving

Tool = Callable[[str], str]


@pytest.fixture(scope="module")
def page() -> str:
    ((path, text),) = metrics_reference().items()
    assert path.name == "metrics.md"
    return text


def test_every_metric_has_its_row_in_the_order_of_the_catalogue(page: str):
    section = page.split("## Every metric\n")[1].split("\n## ", maxsplit=1)[0]
    rows = re.findall(r"^\| `(gpu_arbiter_\w+)` \| (\w+) \| [^|]+ \| ([^|]+) \| (.+) \|$", section, re.MULTILINE)
    assert [(name, kind, words) for name, kind, _, words in rows] == [
        (metric.full_name, metric.kind, metric.help) for metric in cat.CATALOGUE
    ]
    for (*_, labels, _), metric in zip(rows, cat.CATALOGUE, strict=True):
        for label in metric.labels:
            values = f" ({', '.join(label.values)})" if isinstance(label.values, tuple) else ""
            assert f"`{label.name}`{values}" in labels
    assert section.count("- Buckets of") == sum(metric.kind == "histogram" for metric in cat.CATALOGUE)
    assert re.findall(r"^### (.+)$", section, re.MULTILINE) == list(cat.SECTIONS.values())


def test_the_first_metric_begins_a_section():
    assert cat.CATALOGUE[0] in cat.SECTIONS, "or it would have none"
    assert set(cat.SECTIONS) <= set(cat.CATALOGUE)


def test_units_are_those_of_the_names(page: str):
    assert "| `gpu_arbiter_oldest_waiter_enqueued_timestamp_seconds` | gauge | seconds since 1970 |" in page
    assert "| `gpu_arbiter_gpu_up` | gauge | 0 or 1 |" in page
    assert "| `gpu_arbiter_lease_seconds_total` | counter | seconds |" in page
    assert "| `gpu_arbiter_gpu_sm_clock_hertz` | gauge | hertz |" in page


def test_every_older_name_leads_to_ours(page: str):
    section = page.split("## If you come from an earlier arbiter\n")[1]
    rows = re.findall(r"^\| (.+) \| `(gpu_arbiter_\w+)` \|$", section, re.MULTILINE)
    assert sorted(rows) == sorted((older, metric.full_name) for metric in cat.CATALOGUE for older in metric.formerly)


def test_every_setting_of_telemetry_is_there(page: str):
    for key in all_keys():
        if key.path[0] == "telemetry":
            assert f"| `{'.'.join(key.path)}` | " in page


def test_whatever_is_not_bounded_by_the_gpus_or_the_configuration_says_what_bounds_it():
    assert set(FREE) == {metric.name for metric in cat.CATALOGUE if not is_bounded(metric)}


async def test_the_number_of_lines_is_that_of_a_page(page: str):
    settings = [f"policies.T{number}.priority=50" for number in range(3)]
    async with serving(*settings, "telemetry.namespaces=[a, b]", gpus=2) as arbiter:
        text = b"".join(arbiter.page()).decode()
    lines = Counter(sample.name for family in text_string_to_metric_families(text) for sample in family.samples)
    site = Site(gpus=2, tasks=5, namespaces=3)
    always = [m for m in cat.CATALOGUE if is_bounded(m) and m.kind == "counter"] + [cat.LEASES, cat.WAITERS]
    for metric in always:
        assert lines[metric.full_name] == count(metric, site), metric.full_name
    assert lines[cat.RPC_MESSAGES.full_name] == int(re.findall(r"of reflection: (\d+)", page)[0])
    bounded = {m.full_name for m in cat.CATALOGUE if is_bounded(m)}
    shown = sum(times for name, times in lines.items() if re.sub("_(bucket|sum|count)$", "", name) in bounded)
    assert shown <= lines_at_most(site)


def test_a_formula_says_what_is_counted():
    for metric in filter(is_bounded, cat.CATALOGUE):
        site = Site(gpus=3, tasks=7, namespaces=5)
        values = {"GPUs": 3, "tasks": 7, "namespaces": 5}
        written = formula(metric).replace("×", "*") or "1"
        assert eval(written, {}, values) == count(metric, site)


@pytest.mark.tool("promtool")
def test_prometheus_takes_the_scrape_configuration(tool: Tool, tmp_path: Path):
    (tmp_path / "prometheus.yml").write_text(SCRAPE)
    done = subprocess.run(
        [tool("promtool"), "check", "config", tmp_path / "prometheus.yml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
