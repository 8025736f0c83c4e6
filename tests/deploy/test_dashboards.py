"""The dashboards as they lie in deploy/grafana: what can be seen of them without Grafana and without a Prometheus."""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models import units
from tools.dashboards import DASHBOARDS, dashboards
from tools.dashboards.queries import Expr, check_legend, gauge, quantile, rate, selector
from tools.generate import GENERATORS

from gpuarbiter_server.telemetry.catalogue import ANY_GPU, CATALOGUE, Metric, Values

_GRAFANA = Path(__file__).resolve().parents[2] / "deploy" / "grafana"
_FILES = {path.name: path.read_text() for path in sorted((_GRAFANA / "dashboards").glob("*.json"))}

_SELECTOR = re.compile(r"([A-Za-z_:][\w:]*)\{([^}]*)\}(\[[^\]]*\])?")
_MATCHER = re.compile(r'(\w+)(=~|!~|=|!=)"([^"]*)"')
_SUFFIXES = {"histogram": ("_bucket", "_sum", "_count")}
_SERIES = {metric.full_name + suffix: metric for metric in CATALOGUE for suffix in _SUFFIXES.get(metric.kind, ("",))}
# What Prometheus says itself of each scrape; it is not the arbiter's to be in its catalogue.
_UP = "up"
_WORDS = {
    *("sum", "min", "max", "count", "rate", "increase", "histogram_quantile", "time"),
    *("by", "on", "or", "and", "group_left"),
}
_UNITS = {value for name, value in vars(units).items() if not name.startswith("_") and isinstance(value, str)}
_TARGET = ("job", "instance")
_UNIT_OF = {"_seconds": "s", "_bytes": "bytes", "_ratio": "percentunit", "_watts": "watt", "_hertz": "hertz"}


def _panels(name: str) -> list[dict[str, Any]]:
    return [panel for panel in json.loads(_FILES[name])["panels"] if panel["type"] != "row"]


def _targets() -> Iterator[tuple[str, str]]:
    for name in _FILES:
        for panel in _panels(name):
            for target in panel["targets"]:
                yield f"{name}: {panel['title']}", target["expr"]


def _named(metric: str) -> Metric:
    return next(each for each in CATALOGUE if each.name == metric)


@pytest.fixture(params=_FILES)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


# -- the files --


def test_the_files_are_those_that_are_generated():
    assert dashboards in GENERATORS
    made = {path.name: text for path, text in dashboards().items() if path.suffix == ".json"}
    assert made == _FILES


def test_every_address_is_there_once_and_lasts():
    found = {name: json.loads(text)["uid"] for name, text in _FILES.items()}
    # Links and bookmarks of others: a changed one is a broken one.
    assert found == {
        "gpus.json": "gpu-arbiter-gpus",
        "leases.json": "gpu-arbiter-leases",
        "overview.json": "gpu-arbiter-overview",
        "work.json": "gpu-arbiter-work",
    }


def test_panels_are_numbered_without_doubles_and_named_without_doubles(name: str):
    panels = json.loads(_FILES[name])["panels"]
    for key in ("id", "title"):
        assert [value for value, times in Counter(panel[key] for panel in panels).items() if times > 1] == []


def test_no_panel_lies_on_another(name: str):
    taken: set[tuple[int, int]] = set()
    for panel in json.loads(_FILES[name])["panels"]:
        place = panel["gridPos"]
        columns = range(place["x"], place["x"] + place["w"])
        cells = {(x, y) for x in columns for y in range(place["y"], place["y"] + place["h"])}
        assert not taken & cells, panel["title"]
        assert max(columns) < 24, panel["title"]
        taken |= cells


def test_every_panel_says_what_it_means_and_what_to_do(name: str):
    for panel in _panels(name):
        meaning, _, advice = panel["description"].partition("\n\n**What to do:** ")
        assert len(meaning) > 20, panel["title"]
        assert len(advice) > 20, panel["title"]


def test_every_panel_has_a_unit_that_grafana_knows_and_a_query(name: str):
    for panel in _panels(name):
        assert panel["fieldConfig"]["defaults"]["unit"] in _UNITS, panel["title"]
        assert panel["targets"], panel["title"]
        names = [target["refId"] for target in panel["targets"]]
        assert len(set(names)) == len(names), panel["title"]


def test_what_is_measured_has_the_unit_of_its_name(name: str):
    """Not counts of things: a rate or an increase has another unit than the counter."""
    checked = 0
    for panel in _panels(name):
        if panel["type"] == "table":
            continue
        asked = [target["expr"] for target in panel["targets"]]
        plain = [expr for expr in asked if not re.search(r"rate|increase|time\(|/", expr)]
        for metric in {match[1] for expr in plain for match in _SELECTOR.finditer(expr)}:
            unit = next((unit for ending, unit in _UNIT_OF.items() if metric.endswith(ending)), None)
            assert unit in {None, panel["fieldConfig"]["defaults"]["unit"]}, panel["title"]
            checked += unit is not None
    assert checked


def test_no_data_source_is_named(name: str):
    def sources(part: Any) -> Iterator[Any]:
        if isinstance(part, dict):
            if "datasource" in part:
                yield part["datasource"]
            for value in part.values():
                yield from sources(value)
        elif isinstance(part, list):
            for value in part:
                yield from sources(value)

    found = list(sources(json.loads(_FILES[name])))
    assert len(found) > 2 * len(_panels(name))
    assert all(source == {"type": "prometheus", "uid": "${datasource}"} for source in found)


def test_the_variables_and_the_refresh(name: str):
    dashboard = json.loads(_FILES[name])
    variables = {each["name"]: each for each in dashboard["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance", "gpu", "task"]
    for each in ("job", "instance", "gpu", "task"):
        assert variables[each]["multi"]
        assert variables[each]["includeAll"]
        series, label = re.fullmatch(r"label_values\((\w+).*, (\w+)\)", variables[each]["query"]["query"]).groups()
        assert label == each
        assert series == _UP or label in {*_SERIES[series].label_names, *_TARGET}
    # "All" of the jobs must not be whatever else this Prometheus scrapes.
    assert "allValue" not in variables["job"]
    assert dashboard["refresh"] == "5s"


def test_each_leads_to_the_others(name: str):
    dashboard = json.loads(_FILES[name])
    (link,) = dashboard["links"]
    assert link["type"] == "dashboards"
    assert link["includeVars"]
    assert link["keepTime"]
    assert set(link["tags"]) <= set(dashboard["tags"])


# -- the queries --


def test_every_query_asks_for_metrics_labels_and_values_of_the_catalogue():
    asked: set[str] = set()
    for where, expr in _targets():
        for metric, matchers, _ in _SELECTOR.findall(expr):
            if metric == _UP:
                continue
            assert metric in _SERIES, f"{where}: {metric}"
            asked.add(_SERIES[metric].name)
            labels = {label.name: label.values for label in _SERIES[metric].labels}
            for label, _, value in _MATCHER.findall(matchers):
                if label in _TARGET:
                    continue
                assert label in labels, f"{where}: {metric} has no label {label}"
                known = labels[label]
                for each in [part for part in value.split("|") if not part.startswith("$")]:
                    if known is Values.GPUS_OR_ANY:
                        assert each == ANY_GPU, f"{where}: {label}={each}"
                    elif isinstance(known, tuple):
                        assert each in known, f"{where}: {label}={each}"
                    else:
                        assert known is Values.FREE, f"{where}: {label}={each}"
    assert asked == {metric.name for metric in CATALOGUE}, "every metric is to be seen somewhere"


def test_what_is_left_of_a_query_is_promql_and_labels_of_its_metrics():
    for where, expr in _targets():
        found = [metric for metric, _, _ in _SELECTOR.findall(expr)]
        assert found, where
        labels = {*_TARGET, "le"}
        for metric in found:
            labels |= set(_SERIES[metric].label_names) if metric in _SERIES else set()
        words = set(re.findall(r"[A-Za-z_]\w*", _SELECTOR.sub("", expr)))
        assert words <= _WORDS | labels, f"{where}: {words - _WORDS - labels}"


def test_every_selector_follows_the_variables():
    for where, expr in _targets():
        for metric, matchers, window in _SELECTOR.findall(expr):
            values = {label: value for label, operator, value in _MATCHER.findall(matchers) if operator == "=~"}
            named = {label for label, _, _ in _MATCHER.findall(matchers)}
            assert values["job"] == "$job", where
            assert values["instance"] == "$instance", where
            for label in {"gpu", "task"} & set(_SERIES[metric].label_names if metric in _SERIES else ()):
                assert label in named, f"{where}: {metric} is not narrowed down by {label}"
            assert window in {"", "[$__rate_interval]", "[$__range]"}, where


def test_only_the_panel_of_the_arbiter_itself_asks_what_prometheus_knows():
    assert {where.partition(": ")[2] for where, expr in _targets() if re.search(r"\bup\{", expr)} == {"Arbiter"}


def test_no_quotient_and_no_quantile_can_be_nan():
    for where, expr in _targets():
        for divisor in re.findall(r" / (.{60})", expr):
            assert divisor.startswith(("(sum", "(max")), f"{where}: {divisor}"
        assert expr.count(" / (") == expr.count(" > 0)"), where
        if "histogram_quantile" in expr:
            assert expr.endswith(" >= 0"), where


def test_a_figure_of_now_is_asked_for_as_of_now(name: str):
    """The last value of a range may be one of long ago, such as the wait of a request that has had its turn."""
    for panel in _panels(name):
        trend = panel.get("options", {}).get("graphMode") == "area"
        if panel["type"] in {"stat", "gauge", "piechart", "table", "bargauge"} and not trend:
            assert all(target["instant"] and not target["range"] for target in panel["targets"]), panel["title"]


@pytest.mark.tool("promtool")
def test_prometheus_takes_every_query(tool: Callable[[str], str], tmp_path: Path):
    rules = [
        {"record": f"number:{number}", "expr": re.sub(r"\$__\w+", "1m", expr)}
        for number, (_, expr) in enumerate(_targets())
    ]
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": rules}]}))
    checked = subprocess.run([tool("promtool"), "check", "rules", file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(rules)} rules found" in checked.stdout


# -- the thresholds that people go by --


@pytest.mark.parametrize(
    ("panel", "steps"),
    [
        ("Failure rate", [("green", None), ("orange", 0.01), ("red", 0.05)]),
        ("CPU fallback rate", [("green", None), ("orange", 0.1), ("red", 0.3)]),
        ("Queue depth", [("green", None), ("orange", 10), ("red", 50)]),
    ],
)
def test_thresholds(panel: str, steps: list[tuple[str, float | None]]):
    (found,) = [each for each in _panels("work.json") if each["title"] == panel]
    thresholds = found["fieldConfig"]["defaults"]["thresholds"]["steps"]
    assert [(step["color"], step["value"]) for step in thresholds] == steps


def test_an_arbiter_that_is_down_is_red():
    (found,) = [each for each in _panels("overview.json") if each["title"] == "Arbiter"]
    words = found["fieldConfig"]["defaults"]["mappings"][0]["options"]
    assert {value: (word["text"], word["color"]) for value, word in words.items()} == {
        "0": ("DOWN", "red"),
        "1": ("UP", "green"),
    }
    assert found["gridPos"]["x"] == 0
    assert found["gridPos"]["y"] == 1


# -- how they are made --


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: selector(_named("work"), devise="gpu"), "no label devise"),
        (lambda: selector(_named("work"), device="tpu"), "never 'tpu'"),
        (lambda: selector(_named("waiters"), gpu="gpu:0"), "never 'gpu:0'"),
        (lambda: rate(_named("work"), ("gpu",)), "no label gpu"),
        (lambda: rate(_named("leases")), "is a gauge"),
        (lambda: gauge(_named("work")), "is a counter"),
        (lambda: quantile(0.5, _named("work")), "is a counter"),
        (lambda: check_legend(Expr("up", ("instance",)), "{{task}}"), "names task"),
    ],
)
def test_what_the_catalogue_does_not_know_cannot_be_asked(make: Callable[[], object], says: str):
    with pytest.raises(ValueError, match=says):
        make()


def test_the_page_tells_of_every_panel():
    page = (_GRAFANA.parents[1] / "docs" / "dashboards.md").read_text()
    for dashboard in DASHBOARDS:
        section = page.partition(f"## {dashboard.title.partition(' / ')[2]}\n")[2].partition("\n## ")[0]
        assert dashboard.uid in section
        for panel in dashboard.panels:
            assert f"| {panel.title} |" in section


def test_every_panel_that_another_one_points_to_is_there():
    titles = {each.title.partition(" / ")[2]: [panel.title for panel in each.panels] for each in DASHBOARDS}
    pointer = re.compile(rf"\*([^*]+)\*(?: (?:of|in) ({'|'.join(titles)}))?")
    pointed = 0
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for title, where in pointer.findall(f"{panel.means} {panel.todo}"):
                among = titles[where] if where else [each for every in titles.values() for each in every]
                assert any(each.startswith(title) for each in among), f"{panel.title}: {title}, {where}"
                pointed += 1
    assert pointed > 20


# -- provisioning --


def test_the_provisioned_source_can_be_chosen_and_is_not_bound_to():
    (source,) = yaml.safe_load((_GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    assert source["type"] == "prometheus"
    assert "uid" not in source


def test_the_provider_reads_the_folder_that_the_readme_names():
    (provider,) = yaml.safe_load((_GRAFANA / "provisioning/dashboards/gpu-arbiter.yml").read_text())["providers"]
    assert provider["type"] == "file"
    assert f"`{provider['options']['path']}`" in (_GRAFANA / "README.md").read_text()
