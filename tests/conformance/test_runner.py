"""The runner itself: what a scenario may say, and that a client which does something else fails it."""

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from conformance.clients import clients
from conformance.driving import DeviationError
from conformance.expectations import Expect, Facts, differences
from conformance.runner import Runner
from conformance.scenario import Scenario, ScenarioError, load
from conformance.stage import Stage
from conformance.steps import VERBS
from support.process import environment

HEAD = "title: A test\nactors: {a: {}}\nsteps:\n"
GRANTED = {"kind": "granted", "request_id": "r", "lease_id": "l", "fencing_token": "7", "gpus": [{"key": "gpu:0"}]}


@pytest.mark.parametrize(
    ("steps", "said"),
    [
        ("- acquire: {lease: x, by: a, prioritty: 3, expect: {granted: {}}}", "step 1, acquire: 'prioritty' is no key"),
        ("- acquire: {lease: x, by: a, options: {max_weight: 1s}, expect: {granted: {}}}", "'options.max_weight'"),
        ("- acquire: {lease: x, by: a, expect: {granted: {gpu: 1}}}", "'expect.granted.gpu'"),
        ("- acquire: {lease: x, by: a, expect: {granted: {}, skipped: {}}}", "say one of granted, skipped"),
        ("- acquire: {lease: x, by: a}", "expect: Field required"),
        ("- acquire: {lease: x, by: b, expect: {granted: {}}}", "'b' is no actor; they are a"),
        ("- ask: {lease: x, by: a}\n- ask: {lease: x, by: a}", "the name 'x' is taken"),
        ("- release: {lease: x, expect: {released: {}}}", "step 1, release: nobody has asked for 'x' yet"),
        ("- await: {state: {holding: [x]}}", "nobody has asked for 'x' yet"),
        ("- event: {lease: x}", "say one of queued, working, yielding, lost"),
        ("- history: {type: ENDED}", "say either lease or by"),
        ("- network: {becomes: [late]}", "Input should be 'cut'"),
        ("- await: {within: 3, state: {}}", "within"),
        ("- sing: {}", "'sing' is no verb; allowed are acquire,"),
        ("- [acquire]", "is no step"),
    ],
)
def test_what_is_not_understood_is_named(steps: str, said: str):
    with pytest.raises(ScenarioError) as error:
        load("wrong", f"{HEAD}{steps}\n")
    assert said in str(error.value)
    assert "wrong" in str(error.value)


def test_a_key_of_the_head_that_is_none_is_named():
    with pytest.raises(ScenarioError, match="'actor' is no key; of Head they are actors, arbiter"):
        load("wrong", f"actor: {{}}\n{HEAD}- resume: {{gpus: []}}\n")


@pytest.mark.parametrize(
    ("expected", "answer", "said"),
    [
        ({"granted": {}}, {"kind": "skipped", "reason": "GPU_BUSY"}, "expected granted, got reason='GPU_BUSY'"),
        ({"granted": {"gpus": ["gpu:1"]}}, GRANTED, "gpus is to be"),
        ({"granted": {"count": 2}}, GRANTED, "count is to be 2"),
        ({"granted": {"newer_than": "x"}}, GRANTED, "newer_than is to be 'x'"),
        ({"granted": {"same_as": "y"}}, GRANTED, "same_as is to be 'y'"),
        ({"granted": {"priority": 5}}, GRANTED, "priority is to be 5"),
        ({"granted": {"lost_reason": ["A", "B"]}}, GRANTED | {"lost_reason": "C"}, "lost_reason is to be"),
        ({"granted": {"queue_wait": {"at_most": "1s"}}}, GRANTED | {"queue_wait_seconds": 2.0}, "queue_wait is to be"),
        ({"granted": {"queue_wait": {"at_least": "1s"}}}, GRANTED, "queue_wait is to be"),
    ],
)
def test_what_differs_is_told(expected: dict[str, Any], answer: dict[str, Any], said: str):
    known = {
        "x": {"request_id": "r", "lease_id": "l", "fencing_token": "7"},
        "y": {"request_id": "r", "lease_id": "l", "fencing_token": "8"},
    }
    (found,) = Expect.model_validate(expected).differences(answer, known)
    assert said in found


def test_only_what_is_written_is_compared():
    assert differences(Facts.model_validate({}), {}, {}) == []
    assert differences(Facts.model_validate({"yield_requested": None}), {"yield_requested": "QUOTA"}, {}) != []


def test_the_page_about_scenarios_is_current():
    page = (Path(__file__).parents[2] / "docs" / "conformance.md").read_text()
    (example,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    assert load("example", example).steps
    told = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\|(.*?)\|", page, re.MULTILINE))))
    assert set(VERBS) <= told


def test_the_go_page_names_the_versions_that_are_tested():
    root = Path(__file__).parents[2]
    named = re.findall(r"([a-z.]+/[\w./-]+)@(v[\d.]+)", (root / "docs" / "go.md").read_text())
    pinned = (root / "tests" / "conformance" / "go" / "go.mod").read_text() + (root / ".ci" / "run").read_text()
    assert len(named) == 3
    for module, version in named:
        assert f"{module} {version}" in pinned or f"VERSION={version}\n" in pinned, f"{module}@{version}"


def test_a_driver_from_elsewhere_plays_alone():
    assert [client.name for client in clients("")] == ["python-async", "python-sync", "typescript"]
    (alone,) = clients("go run './my driver'")
    assert alone.command() == ("go", "run", "./my driver")


# -- drivers that do not do what a scenario says --

ANSWERS = "import json, sys\nfor line in sys.stdin:\n    it = json.loads(line)\n    "
CONNECTS = "print(json.dumps({'id': it['id'], 'kind': 'ok'}), flush=True) if it['op'] == 'connect' else "
ASKING = f"{HEAD}- acquire: {{lease: x, by: a, within: 2s, expect: {{granted: {{}}}}}}\n"


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """No arbiter: these drivers ask none."""
    return cast("Stage", SimpleNamespace(address="nowhere", folder=tmp_path, env=environment(tmp_path)))


def play(scenario: Scenario, program: str, stage: Stage) -> str:
    """How it fails."""
    with pytest.raises(DeviationError) as error:
        Runner(scenario, [sys.executable, "-c", program], stage).play()
    return str(error.value)


def test_a_driver_that_says_nothing_fails_in_time(stage: Stage):
    program = f"{ANSWERS}{CONNECTS}None"
    assert "step 1, acquire: waited 2 s in vain for the answer to x" in play(load("s", ASKING), program, stage)


def test_a_driver_that_ends_fails_at_once(stage: Stage):
    program = f"{ANSWERS}{CONNECTS}sys.exit('no more')"
    said = play(load("s", ASKING), program, stage)
    assert "the driver ended with 1" in said
    assert "no more" in said


def test_a_driver_that_writes_nonsense_fails(stage: Stage):
    program = f"{ANSWERS}{CONNECTS}print('granted!', flush=True)"
    assert "a driver wrote 'granted!" in play(load("s", ASKING), program, stage)


def test_a_driver_that_fails_by_itself_is_no_answer(stage: Stage):
    answer = "print(json.dumps({'id': it['id'], 'kind': 'failed', 'message': 'at a loss'}), flush=True)"
    assert "the driver failed in x: at a loss" in play(load("s", ASKING), f"{ANSWERS}{CONNECTS}{answer}", stage)


def test_what_nobody_expected_fails_at_the_end(stage: Stage):
    lost = "print(json.dumps({'event': 'lost', 'lease': 'x', 'reason': 'BY_CHANCE'}), flush=True)"
    granted = f"print(json.dumps({{'id': it['id']}} | {GRANTED!r}), flush=True)"
    scenario = load("s", ASKING)
    said = play(scenario, f"{ANSWERS}{CONNECTS}({lost}, {granted})", stage)
    assert "nobody expected of x: event='lost', lease='x', reason='BY_CHANCE'" in said
    asked = load("s", f"{HEAD}- ask: {{lease: x, by: a}}\n")
    assert "does not say what comes of x" in play(asked, f"{ANSWERS}{CONNECTS}{granted}", stage)


def test_another_event_than_the_next_one_fails(stage: Stage):
    events = "[{'event': 'lost', 'lease': 'x', 'reason': 'A'}, {'event': 'yielding', 'lease': 'x', 'reason': 'B'}]"
    tell = f"[print(json.dumps(each), flush=True) for each in {events}]"
    scenario = load("s", f"{HEAD}- ask: {{lease: x, by: a}}\n- event: {{lease: x, yielding: {{}}}}\n")
    assert "x: yielding was to come, got event='lost'" in play(scenario, f"{ANSWERS}{CONNECTS}{tell}", stage)


def test_a_driver_that_ends_badly_fails(stage: Stage):
    granted = f"print(json.dumps({{'id': it['id']}} | {GRANTED!r}), flush=True)"
    program = f"{ANSWERS}{CONNECTS}{granted}\nsys.exit('something is left')"
    said = play(load("s", ASKING), program, stage)
    assert "the driver ended with 1" in said
    assert "something is left" in said


def test_a_client_that_only_says_it_has_a_lease_is_found_out():
    granted = f"print(json.dumps({{'id': it['id']}} | {GRANTED!r}), flush=True)"
    stage = Stage({}, restarts=False)
    try:
        scenario = load("s", f"{ASKING}- await: {{within: 1s, state: {{holding: [x]}}}}\n")
        assert "holding is to be ['x']" in play(scenario, f"{ANSWERS}{CONNECTS}{granted}", stage)
    finally:
        stage.close()
