"""The older camelCase JSON: what becomes of each key, and what is said of the rest."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuarbiter_server.config import AutoGpus, Config, ConfigError, load, migrate, migrate_with_notes
from gpuarbiter_server.core.model import BusyPolicy

OLD: dict[str, Any] = {
    "enabled": False,
    "gpuKeys": ["gpu:0"],
    "defaultQueueLimit": 4,
    "defaultHoldMaxMs": 12000,
    "policies": {
        "ASR": {"priority": 90, "maxWaitMs": 3000, "busyPolicy": "wait"},
        "SEMANTIC_REPAIR": {"priority": 20, "maxWaitMs": 400, "busyPolicy": "SKIP"},
        "EMPTY": None,
    },
}


def loaded(text: str, tmp_path: Path) -> Config:
    path = tmp_path / "new.yaml"
    path.write_text(text)
    return load(path, {})


def problem(old: str) -> str:
    with pytest.raises(ConfigError) as caught:
        migrate(old)
    assert len(caught.value.problems) == 1
    return str(caught.value.problems[0])


@pytest.mark.parametrize("old", [OLD, {"gpuArbiter": OLD}])
@pytest.mark.parametrize("indent", [None, 2, "\t"])
def test_every_key_has_its_place_today(old: dict[str, Any], indent: int | str | None, tmp_path: Path):
    config = loaded(migrate(json.dumps(old, indent=indent)), tmp_path)
    assert (config.enabled, config.gpus, config.queue_limit, config.defaults.max_hold) == (False, AutoGpus(), 4, 12.0)
    assert {name: policy.said() for name, policy in config.policies.items() if name != "RUN"} == {
        "ASR": {"priority": 90, "max_wait": "3s", "busy_policy": "WAIT"},
        "SEMANTIC_REPAIR": {"priority": 20, "max_wait": "400ms", "busy_policy": "SKIP"},
        "EMPTY": {},
    }
    assert config.settings().policies["SEMANTIC_REPAIR"].busy_policy is BusyPolicy.SKIP


def test_it_reads_as_one_would_write_it():
    old = '{"gpuArbiter": {"defaultHoldMaxMs": 8000.0, "policies": {"ASR": {"maxWaitMs": 1500}}}}'
    assert migrate(old) == (
        "# Made from the older JSON by gpu-arbiterd config migrate.\n"
        "defaults:\n  max_hold: 8s\npolicies:\n  ASR:\n    max_wait: 1500ms\n"
    )


@pytest.mark.parametrize("old", ["{}", '{"gpuArbiter": {}}', '{"gpuArbiter": {"enabled": null}}'])
def test_an_empty_one_is_the_defaults(old: str, tmp_path: Path):
    assert loaded(migrate(old), tmp_path) == Config()


def test_gpus_are_left_to_the_driver_with_a_note(tmp_path: Path):
    text, notes = migrate_with_notes('{"gpuKeys": ["gpu:0"]}')
    assert "gpus: [{key: gpu:0, memory: 24GiB}]" in notes[0]
    assert f"# Note: {notes[0]}\n" in text
    assert loaded(text, tmp_path).gpus == AutoGpus()


def test_what_has_no_equivalent_is_named_and_its_value_kept_out(tmp_path: Path):
    old = {"gpuArbiter": {"enabled": True, "colour": "hush", "policies": {"ASR": {"a\nb: c": "hush"}}}, "other": "hush"}
    text, notes = migrate_with_notes(json.dumps(old))
    assert notes == (
        "other has no equivalent and was left out.",
        "colour has no equivalent and was left out.",
        'policies.ASR."a\\nb: c" has no equivalent and was left out.',
    )
    assert "hush" not in text
    assert loaded(text, tmp_path).enabled


@pytest.mark.parametrize(
    ("old", "said"),
    [
        ("", "expected a mapping with enabled, defaultQueueLimit, defaultHoldMaxMs, gpuKeys, policies"),
        ("[1]", "expected a mapping with enabled"),
        ('{"gpuArbiter": 5}', "gpuArbiter: 5 is not allowed"),
        ('{"cooldown": "3s"}', "no key is known (the older configuration); expected a mapping with enabled"),
        ("{", "not valid YAML (the older configuration line 1, column 2)"),
        (
            '{"enabled": true,\n"enabled": true}',
            "enabled: a second time in one mapping (the older configuration line 2)",
        ),
        (
            '{"enabled": "yes"}',
            "enabled: 'yes' is not allowed (the older configuration line 1); expected true or false",
        ),
        ('{"defaultQueueLimit": true}', "queue_limit: true is not allowed"),
        (
            '{\n"defaultHoldMaxMs": -1}',
            "defaultHoldMaxMs: -1 is not allowed (the older configuration line 2); expected a number of mill",
        ),
        ('{"defaultHoldMaxMs": true}', "defaultHoldMaxMs: true is not allowed"),
        ('{"defaultHoldMaxMs": "8s"}', "defaultHoldMaxMs: '8s' is not allowed"),
        ('{"defaultHoldMaxMs": .nan}', "defaultHoldMaxMs: nan is not allowed"),
        ('{"defaultHoldMaxMs": .inf}', "defaultHoldMaxMs: inf is not allowed"),
        ('{"defaultHoldMaxMs": 1.0e+300}', "at most 31536000000"),
        (
            '{"gpuArbiter": {"policies": {"ASR":\n{"maxWaitMs": -1}}}}',
            "gpuArbiter.policies.ASR.maxWaitMs: -1 is not allowed (the older configuration line 2)",
        ),
        (
            '{"gpuArbiter": {"policies": {"ASR":\n{"priority": 101}}}}',
            "policies.ASR.priority: 101 is not allowed (the older configuration line 2)",
        ),
        ('{"policies": {"ASR": {"busyPolicy": "MAYBE"}}}', "expected WAIT, SKIP or FALLBACK_CPU"),
        ('{"policies": {"ASR": 5}}', "policies.ASR: 5 is not allowed"),
        ('{"policies": {"no spaces": {}}}', "expected a task type"),
        ('{"policies": 5}', "policies: 5 is not allowed"),
    ],
)
def test_a_bad_one_is_a_clear_error(old: str, said: str):
    assert said in problem(old)


def test_every_problem_is_told_at_once():
    with pytest.raises(ConfigError) as caught:
        migrate('{"enabled": 5, "defaultHoldMaxMs": -1, "policies": {"ASR": {"priority": -1}}}')
    assert [found.key for found in caught.value.problems] == ["defaultHoldMaxMs", "enabled", "policies.ASR.priority"]


values = (
    st.none()
    | st.booleans()
    | st.integers(-10, 10**13)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["WAIT", "skip"])
)
old_policies = st.dictionaries(st.sampled_from(["priority", "maxWaitMs", "busyPolicy", "x"]), values) | values


@given(
    old=st.fixed_dictionaries(
        {},
        optional={
            "enabled": values,
            "gpuKeys": values,
            "defaultQueueLimit": values,
            "defaultHoldMaxMs": values,
            "policies": st.dictionaries(st.sampled_from(["ASR", "NMT", "a b"]), old_policies) | values,
            "x": values,
        },
    )
)
def test_what_comes_out_loads(old: dict[str, Any], tmp_path_factory: pytest.TempPathFactory):
    with contextlib.suppress(ConfigError):
        assert isinstance(loaded(migrate(json.dumps(old)), tmp_path_factory.getbasetemp()), Config)
