"""The YAML of an earlier analyzer: what becomes of each key, in which unit, and what is never copied."""

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gpuarbiter_server.config import Config, ConfigError, load, migrate, migrate_with_notes

# What it had without being told, and what is none of that.
OLD = """\
prometheus:
  url: http://prometheus:9090
  time_window: 15
  step: 20
  timeout: 7
  selector: '{namespace="team-a"}'
thresholds: {low_utilization: 25, idle: 5, high: 80}
scheduler: {interval: 120, max_workers: 4, timeout: 90}
scoring:
  weights: {gpu_util: 0.4, mem_copy: 0.3, mem_used: 0.2, power: 0.1}
ai:
  enabled: yes
  api_url: https://models.example/v1
  api_key: hush-hush
  model: small
  threshold: 0.8
  timeout: 12
control: {enabled: true, api_url: "https://control.example/gpus", timeout: 3}
log_level: DEBUG
"""


def loaded(text: str, folder: Path) -> Config:
    path = folder / "new.yaml"
    path.write_text(text)
    return load(path, {})


def problem(old: str) -> str:
    with pytest.raises(ConfigError) as caught:
        migrate(old)
    assert len(caught.value.problems) == 1
    return str(caught.value.problems[0])


def test_every_key_has_its_place_today(tmp_path: Path):
    text, notes = migrate_with_notes(OLD)
    config = loaded(text, tmp_path)
    analysis = config.analysis
    assert (analysis.prometheus.url, analysis.prometheus.timeout) == ("http://prometheus:9090", 7)
    assert analysis.prometheus.selector == '{namespace="team-a"}'
    assert (analysis.time_window, analysis.step) == (900, 20)
    assert (analysis.interval, analysis.max_workers, analysis.timeout) == (120, 4, 90)
    assert analysis.thresholds.model_dump() == {"idle": 5, "low": 25, "high": 80}
    assert list(analysis.weights.model_dump().values()) == [0.4, 0.3, 0.2, 0.1]
    assert (analysis.ai.enabled, analysis.ai.url, analysis.ai.model) == (True, "https://models.example/v1", "small")
    assert (analysis.ai.threshold, analysis.ai.timeout) == (0.8, 12)
    assert (analysis.control.enabled, analysis.control.url) == (True, "https://control.example/gpus")
    assert analysis.control.timeout == 3
    assert config.log_level == "debug"
    assert len(notes) == 1


def test_a_key_of_a_server_is_never_copied_and_it_is_said_where_it_belongs():
    text, notes = migrate_with_notes(OLD)
    assert "hush" not in text
    where = "a file that analysis.ai.key_file names, or AI_API_KEY in the environment"
    assert notes == (f"ai.api_key is a secret and was not copied: it belongs into {where}.",)
    assert text.startswith(
        f"# Made from the YAML of an earlier analyzer by gpu-arbiterd config migrate.\n# Note: {notes[0]}\n"
    )


def test_what_it_had_without_being_told_is_what_is_so_today(tmp_path: Path):
    told = """
        prometheus: {time_window: 10, step: 30}
        thresholds: {low: 20, idle: 10}
        scheduler: {interval: 300, max_workers: 8}
        scoring: {weights: {gpu_util: 0.5, mem_copy: 0.2, mem_used: 0.2, power: 0.1}}
        ai: {enabled: false, threshold: 0.7}
        control: {enabled: off, timeout: 5}
    """
    assert loaded(migrate(told), tmp_path) == Config()
    for empty in ("ai:", "thresholds: {}", "control: {api_url: null}"):
        assert loaded(migrate(empty), tmp_path) == Config()


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("prometheus: {query_window_minutes: 20}", 1200),
        ("prometheus: {time_window: '20'}", 1200),
        ("prometheus: {time_window: 1h}", 3600),
        ("prometheus: {time_window: 7.5}", 450),
        ("scheduler: {time_window_minutes: 30}", 1800),
    ],
)
def test_a_bare_number_has_its_unit_and_what_has_one_keeps_it(said: str, seconds: float, tmp_path: Path):
    assert loaded(migrate(said), tmp_path).analysis.time_window == seconds


def test_what_has_no_equivalent_is_named_and_its_value_kept_out(tmp_path: Path):
    old = {
        "thresholds": {"idle": 5, "colour": "hush"},
        "scoring": {"method": "hush", "weights": {"gpu_util": 1, "temperature": "hush"}},
        "control": {"token": "hush"},
        "gpuArbiter": {"enabled": "hush"},
        "a\nb: c": ["hush"],
    }
    text, notes = migrate_with_notes(yaml.safe_dump(old, sort_keys=False))
    assert notes == tuple(
        f"{name} has no equivalent and was left out."
        for name in (
            "thresholds.colour",
            "scoring.method",
            "scoring.weights.temperature",
            "control.token",
            "gpuArbiter",
            '"a\\nb: c"',
        )
    )
    assert "hush" not in text
    assert loaded(text, tmp_path).analysis.thresholds.idle == 5


def test_of_two_names_for_one_thing_the_first_counts_and_the_other_is_named(tmp_path: Path):
    text, notes = migrate_with_notes("thresholds: {low: 30, low_utilization: 40}")
    assert loaded(text, tmp_path).analysis.thresholds.low == 30
    assert notes == ("thresholds.low_utilization is another name of thresholds.low and was left out.",)


@pytest.mark.parametrize(
    ("old", "said"),
    [
        (
            "thresholds: 5",
            "thresholds: 5 is not allowed (the older configuration line 1); expected a mapping with high",
        ),
        ("scoring:\n  weights: [1]", "scoring.weights: [1] is not allowed (the older configuration line 2)"),
        ("thresholds:\n  low: 101", "analysis.thresholds.low: 101 is not allowed (the older configuration line 2)"),
        ("thresholds: {low: 5}", "idle <= low <= high"),
        ("scheduler: {interval: often}", "analysis.interval: 'often' is not allowed (the older configuration line 1)"),
        ("scheduler: {interval: true}", "analysis.interval: true is not allowed"),
        ("scheduler: {interval: .inf}", "analysis.interval: 'infs' is not allowed"),
        ("scheduler: {interval: {every: 5}}", "analysis.interval: {'every': 5} is not allowed"),
        ("ai: {enabled: perhaps}", "analysis.ai.enabled: 'perhaps' is not allowed"),
        ("prometheus: {url: 'http://user:hush@ho st'}", "analysis.prometheus.url: not allowed"),
    ],
)
def test_a_bad_one_is_a_clear_error(old: str, said: str):
    found = problem(old)
    assert said in found
    assert "hush" not in found


values = st.none() | st.booleans() | st.integers(-10, 10**13) | st.floats() | st.text(max_size=5) | st.just("5m")
names = st.sampled_from(["url", "step", "time_window", "low", "idle", "interval", "weights", "enabled", "api_key", "x"])
sections = st.dictionaries(names, values | st.dictionaries(st.sampled_from(["gpu_util", "power"]), values), max_size=4)


@given(old=st.dictionaries(st.sampled_from(["prometheus", "scoring", "ai", "control", "y"]), sections | values))
def test_what_comes_out_loads(old: dict[str, Any], tmp_path_factory: pytest.TempPathFactory):
    with contextlib.suppress(ConfigError):
        text = migrate(yaml.safe_dump({"thresholds": {}, **old}, allow_unicode=True))
        assert isinstance(loaded(text, tmp_path_factory.getbasetemp()), Config)
