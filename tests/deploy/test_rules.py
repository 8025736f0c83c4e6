"""What deploy/ ships for Prometheus and Alertmanager fits the catalogue, and every alert has its test and its page.

Without any tool: names, labels and values exist, and nothing is missing. With promtool and amtool: the files are right,
and the rules do what their tests say.
"""

import json
import re
import shlex
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass

from gpuarbiter import cli
from gpuarbiter_server import cli as daemon
from support import promql
from support.samples import SERVICES

ROOT = Path(__file__).parents[2]
PROMETHEUS = ROOT / "deploy/prometheus"
ALERTMANAGER = ROOT / "deploy/alertmanager/alertmanager.yml"
RUNBOOKS = ROOT / "docs/runbooks"
RULE_FILES = sorted(PROMETHEUS.glob("rules/*.yml"))
TEST_FILES = sorted(PROMETHEUS.glob("tests/*.yml"))
PAGES = sorted(RUNBOOKS.glob("*.md"))
RUNBOOK_URL = "https://example.com/gpu-arbiter/runbooks/"
SECTIONS = ["What it means", "What users notice", "How to look", "What to do", "When it clears"]
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}

Run = Callable[..., str]


def _load(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


RULES: list[dict[str, Any]] = [
    rule for path in RULE_FILES for group in _load(path)["groups"] for rule in group["rules"]
]
ALERTS = {rule["alert"]: rule for rule in RULES if "alert" in rule}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
GROUPS = [group["name"] for path in reversed(RULE_FILES) for group in _load(path)["groups"]]
CASES: list[dict[str, Any]] = [case for path in TEST_FILES for case in _load(path)["tests"]]


def _seconds(duration: str) -> int:
    return sum(int(count) * _SECONDS[unit] for count, unit in re.findall(r"(\d+)([smhd])", duration))


def _blocks(page: Path, kind: str) -> list[str]:
    return re.findall(rf"^ *```{kind}\n(.*?)^ *```", page.read_text(), re.MULTILINE | re.DOTALL)


def _commands(page: Path) -> Iterator[str]:
    for block in _blocks(page, "sh"):
        # A command goes on where a line ends with a backslash.
        yield from (line.strip() for line in block.replace("\\\n", " ").splitlines() if line.strip())


@pytest.mark.parametrize(
    "wrong",
    [
        "gpu_arbiter_lease_count",
        "gpu_arbiter_queue_wait_seconds",
        "task:gpu_arbiter_nothing:rate5m",
        'gpu_arbiter_leases{end="released"}',
        'gpu_arbiter_leases{state=~"held|hold"}',
        'gpu_arbiter_leases{gpu="any"}',
        "sum without (outcome) (gpu_arbiter_leases)",
        "gpu_arbiter_gpu_up and on (job, instance, task) gpu_arbiter_queue_limit",
        'gpu:gpu_arbiter_leases:sum{task="ASR"}',
        'gpu_reason:gpu_arbiter_waiters:sum_max1m{reason="busy"}',
    ],
)
def test_what_does_not_exist_is_found(wrong: str):
    assert len(list(promql.problems(wrong, RECORDED))) == 1


# -- the rules --


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_reads_what_exists(rule: dict[str, Any]):
    assert promql.selectors(rule["expr"]) or "up{" in rule["expr"]
    assert list(promql.problems(rule["expr"], RECORDED)) == []


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_recording_rule_is_named_by_level_metric_and_operations(name: str):
    level, metric, operations = name.split(":")
    assert set(level.split("_")) <= promql.LEVELS.keys()
    assert metric.startswith(promql.PREFIX)
    assert operations


@pytest.mark.parametrize("name", sorted(RECORDED))
def test_a_recording_rule_has_a_test_with_its_value(name: str):
    assert [
        test
        for case in CASES
        for test in case["promql_expr_test"]
        if any(each.name == name for each in promql.selectors(test["expr"])) and test["exp_samples"]
    ]


def test_no_rule_drops_the_labels_of_its_target():
    # `by` would drop what a scrape adds beside job and instance.
    assert [rule["expr"] for rule in RULES if re.search(r"\bby\s*\(", rule["expr"])] == []


# -- the alerts --


def test_no_alert_is_there_twice():
    assert len(ALERTS) == len([rule for rule in RULES if "alert" in rule])


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_do(name: str):
    rule = ALERTS[name]
    assert rule["labels"].keys() == {"severity"}
    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
    assert all(rule["annotations"].values())
    assert rule["annotations"]["runbook_url"] == RUNBOOK_URL + name


@pytest.mark.parametrize("name", sorted(ALERTS))
def test_an_alert_is_seen_quiet_firing_and_quiet_again(name: str):
    def seen(case: dict[str, Any]) -> bool:
        tests = [each for each in case["promql_expr_test"] if f'alertname="{name}"' in each["expr"]]
        firing = [
            _seconds(each["eval_time"])
            for each in tests
            if any(f'alertname="{name}", alertstate="firing"' in sample["labels"] for sample in each["exp_samples"])
        ]
        quiet = [each for each in tests if not each["exp_samples"]]
        before = [_seconds(each["eval_time"]) for each in quiet]
        # In the end not even pending.
        after = [_seconds(each["eval_time"]) for each in quiet if "alertstate" not in each["expr"]]
        return any(min(before) < at < max(after) for at in firing) if before and after else False

    assert any(seen(case) for case in CASES)


def test_the_tests_name_alerts_and_series_that_exist():
    wrong = []
    for case in CASES:
        for series in case["input_series"]:
            # What a scrape adds is no label of ours.
            name = series["series"].replace(', cluster="x"', "")
            wrong += [] if name.startswith("up{") else promql.problems(name, ())
        for test in case["promql_expr_test"]:
            wrong += promql.problems(test["expr"], RECORDED)
            wrong += [each for each in re.findall(r'alertname="(\w+)"', str(test)) if each not in ALERTS]
    assert wrong == []


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_a_file_of_tests_has_all_groups_in_the_order_in_which_they_read_each_other(path: Path):
    # promtool takes a group that is not named first.
    assert _load(path)["group_eval_order"] == GROUPS


# -- the runbooks --


def test_every_alert_has_its_page_and_every_page_its_alert():
    assert [page.stem for page in PAGES] == sorted(ALERTS)


def test_the_guide_lists_every_alert_with_its_severity_and_page():
    guide = (ROOT / "docs/monitoring.md").read_text()
    listed = re.findall(r"^\| \[(\w+)\]\(runbooks/(\w+)\.md\) \| (\w+) \|", guide, re.MULTILINE)
    assert sorted(listed) == sorted((name, name, rule["labels"]["severity"]) for name, rule in ALERTS.items())
    assert RUNBOOK_URL + "NAME" in guide


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_has_its_parts(page: Path):
    text = page.read_text()
    assert text.startswith(f"# {page.stem}\n\n{ALERTS[page.stem]['labels']['severity'].capitalize()}. ")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert _blocks(page, "promql")
    assert list(_commands(page))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "docs/monitoring.md"], ids=lambda page: page.stem)
def test_what_a_page_names_exists(page: Path):
    text = page.read_text()
    assert promql.names(text) <= promql.METRICS.keys() | RECORDED
    assert [wrong for query in _blocks(page, "promql") for wrong in promql.problems(query, RECORDED)] == []
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_of_a_page_are_real(page: Path):
    for line in _commands(page):
        words = shlex.split(line)
        match words[0]:
            case "gpu-arbiter":
                # Ends the test where a command or an option does not exist.
                cli.parser().parse_args(words[1:])
            case "grpcurl":
                service, method = words[-1].removeprefix("gpuarbiter.v1.").split("/")
                request = SERVICES[service].methods_by_name[method].input_type
                ParseDict(json.loads(words[words.index("-d") + 1]), GetMessageClass(request)())
            case "gpu-arbiterd":
                daemon._parser().parse_args(words[1:])
            case program:
                assert program in {"curl", "nvidia-smi", "dmesg", "df"}


# -- with the tools --


@pytest.fixture
def run(tool: Callable[[str], str]) -> Run:
    def call(name: str, *arguments: str | Path) -> str:
        done = subprocess.run([tool(name), *arguments], capture_output=True, text=True, check=False, cwd=PROMETHEUS)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return call


@pytest.mark.tool("promtool")
def test_promtool_finds_nothing_in_the_rules(run: Run):
    run("promtool", "check", "rules", "--lint=all", "--lint-fatal", *RULE_FILES)


@pytest.mark.tool("promtool")
def test_promtool_finds_nothing_in_the_configuration(run: Run):
    assert f"SUCCESS: {len(RULE_FILES)} rule files found" in run("promtool", "check", "config", "prometheus.yml")


@pytest.mark.tool("promtool")
@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_the_rules_do_what_their_tests_say(path: Path, run: Run):
    assert "SUCCESS" in run("promtool", "test", "rules", path)


# -- Alertmanager --


def test_an_inhibition_names_alerts_that_exist():
    named = re.findall(r'alertname *=~? *"([^"]+)"', ALERTMANAGER.read_text())
    assert named
    assert {name for group in named for name in group.split("|")} <= ALERTS.keys()


@pytest.mark.tool("amtool")
def test_amtool_finds_nothing_in_the_configuration(run: Run):
    assert "SUCCESS" in run("amtool", "check-config", ALERTMANAGER)


@pytest.mark.tool("amtool")
@pytest.mark.parametrize(("severity", "receiver"), [("critical", "page"), ("warning", "ticket"), ("info", "note")])
def test_a_severity_leads_to_its_receiver(severity: str, receiver: str, run: Run):
    said = run("amtool", "config", "routes", "test", f"--config.file={ALERTMANAGER}", f"severity={severity}")
    assert said.strip() == receiver
