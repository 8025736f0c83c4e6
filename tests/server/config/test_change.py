"""The configuration in force: written, read again, changed."""

import contextlib
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gpuarbiter_server.config import Config, ConfigError, json_schema, load, merge_patch, patch_schema, restart_needed
from gpuarbiter_server.config.analysis import AnalysisSection
from gpuarbiter_server.config.keys import all_keys, value_at
from gpuarbiter_server.config.model import merged
from gpuarbiter_server.config.units import format_duration, format_size
from gpuarbiter_server.core.model import BusyPolicy, Placement, Sharing

durations = st.integers(1, 10**9).map(lambda ms: format_duration(ms / 1000))
sizes = st.integers(1, 2**45).map(format_size)
counts = st.integers(0, 1000)
task_types = st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True)
names = st.from_regex(r"[A-Za-z0-9_.-]{1,20}", fullmatch=True)
modules = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.]{0,19}", fullmatch=True)


def members(enum: type[BusyPolicy] | type[Sharing] | type[Placement]) -> st.SearchStrategy[str]:
    return st.sampled_from([member.name for member in enum if member])


def mapping(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keys)


watchdogs = st.fixed_dictionaries({}, optional={"warn": st.booleans(), "yield": st.booleans(), "grace": durations})
policies = mapping(
    priority=st.integers(0, 50),
    max_priority=st.integers(50, 100),
    max_wait=durations | st.just("unlimited"),
    max_hold=durations,
    busy_policy=members(BusyPolicy),
    sharing=members(Sharing),
    memory=sizes,
    max_concurrent_leases=counts,
    watchdog=watchdogs,
)
levels = st.sampled_from(["debug", "info", "warning", "error"])
configs = mapping(
    enabled=st.booleans(),
    node=names,
    gpus=st.just("auto")
    | sizes.map("sim:2x{}".format)
    | st.lists(st.fixed_dictionaries({"memory": sizes}, optional={"name": names}), min_size=1, max_size=3).map(
        lambda entries: [{"key": f"gpu:{index}", **entry} for index, entry in enumerate(entries)]
    ),
    queue_limit=counts,
    cooldown=durations,
    placement=members(Placement),
    defaults=policies,
    policies=st.dictionaries(task_types, policies, max_size=3),
    memory=mapping(headroom=sizes | st.just("auto"), on_stale=st.sampled_from(["refuse", "declarations"])),
    history=mapping(max_events=counts, max_age=durations, max_bytes=sizes),
    telemetry=mapping(namespaces=st.lists(names, max_size=3, unique=True), lease_info=st.booleans()),
    log_level=levels,
    log_levels=st.dictionaries(modules, levels, max_size=3),
    log_format=st.sampled_from(["console", "json"]),
)


def build(tree: dict[str, Any]) -> Config:
    return merge_patch(Config(), yaml.safe_dump(tree))


@given(tree=configs)
def test_what_is_in_force_loads_to_the_same(tree: dict[str, Any], tmp_path_factory: pytest.TempPathFactory):
    config = build(tree)
    path = tmp_path_factory.getbasetemp() / "round.yaml"
    path.write_text(config.to_yaml())
    again = load(path, {})
    assert again == config
    assert again.to_yaml() == config.to_yaml()
    assert again.settings() == config.settings()
    assert restart_needed(config, again) == []


@given(tree=configs)
def test_what_was_said_is_in_force(tree: dict[str, Any]):
    in_force = build(tree).file_form()
    assert merged(in_force, tree) == in_force


@given(before=configs, patch=configs)
def test_a_patch_does_what_a_file_merged_by_hand_does(before: dict[str, Any], patch: dict[str, Any]):
    assert merge_patch(build(before), yaml.safe_dump(patch)) == build(merged(before, patch))


@given(tree=configs)
def test_an_empty_patch_changes_nothing(tree: dict[str, Any]):
    config = build(tree)
    for patch in ("", "{}", "null", "# nothing"):
        assert merge_patch(config, patch) == config


def test_the_whole_is_there_even_if_little_was_said():
    tree = yaml.safe_load(Config().to_yaml())
    assert all(value_at(tree, key.path) is not None for key in all_keys())
    assert tree["policies"] == {"RUN": {"max_wait": "unlimited", "max_hold": "0s"}}


class TestPatch:
    def test_null_gives_the_default_back(self):
        config = build(
            {"cooldown": "1s", "defaults": {"priority": 7, "max_wait": "1s"}, "policies": {"ASR": {"priority": 9}}}
        )
        config = merge_patch(config, "{cooldown: null, defaults: {priority: null}, policies: {ASR: {priority: null}}}")
        assert (config.cooldown, config.defaults.priority, config.defaults.max_wait) == (Config().cooldown, 50, 1.0)
        assert config.policies["ASR"].said() == {}

    def test_null_takes_a_policy_away_but_not_the_built_in_one(self):
        config = build({"policies": {"ASR": {}, "RUN": {"priority": 7}}})
        assert merge_patch(config, "policies: {ASR: null, RUN: null}") == Config()
        assert merge_patch(config, "policies: null") == Config()

    def test_what_policies_inherit_changes_with_the_defaults(self):
        config = merge_patch(build({"policies": {"ASR": {"priority": 90}}}), "defaults: {max_wait: 9s}")
        assert config.settings().policies["ASR"].max_wait == 9.0

    def test_a_problem_names_the_patch_with_its_line(self):
        with pytest.raises(ConfigError) as caught:
            merge_patch(Config(), "aging: 1s\ncooldown: 3\nx: null\n")
        assert [problem.source for problem in caught.value.problems] == ["the patch line 3", "the patch line 2"]

    def test_a_problem_with_what_was_there_says_so(self):
        config = build({"policies": {"ASR": {"priority": 90}}})
        with pytest.raises(ConfigError) as caught:
            merge_patch(config, "defaults: {max_priority: 80}")
        (problem,) = caught.value.problems
        assert (problem.key, problem.value, problem.source) == (
            "policies.ASR.priority",
            90,
            "the configuration in force",
        )

    @pytest.mark.parametrize("patch", ["[1]", "text", "[", "{a: 1, a: 2}", "cooldown: 3", "&a {b: *a}"])
    def test_a_patch_that_is_none_is_refused(self, patch: str):
        with pytest.raises(ConfigError):
            merge_patch(Config(), patch)

    @given(patch=st.text() | st.text(alphabet="{}[]:,'\"\n ~acdefgilnopqstu"))
    def test_no_patch_breaks_it(self, patch: str):
        with contextlib.suppress(ConfigError):
            assert isinstance(merge_patch(Config(), patch), Config)


class TestRestart:
    def test_what_is_read_at_the_start_is_named(self):
        changed = build(
            {
                "node": "n",
                "listen": {"grpc": "off", "socket": "/tmp/a", "http": "off"},
                "gpus": "sim:1x1GiB",
                "sampler": {"interval": "1s", "fast_interval": "20ms"},
                "history": {"max_events": 5, "max_age": "1h", "max_bytes": "1MiB"},
                "cooldown": "1s",
                "log_level": "debug",
                "defaults": {"priority": 7},
                "policies": {"ASR": {}},
                "memory": {"headroom": 0},
                "limits": {"leases_per_client": 5},
                "shutdown_grace": "1s",
            }
        )
        assert restart_needed(Config(), changed) == [
            "node",
            "listen.grpc",
            "listen.socket",
            "listen.http",
            "gpus",
            "sampler.interval",
            "sampler.fast_interval",
            "history.max_events",
            "history.max_age",
            "history.max_bytes",
        ]

    def test_what_takes_effect_at_once_is_not(self):
        live = [key for key in all_keys() if not key.needs_restart]
        assert ("cooldown",) in [key.path for key in live]
        assert restart_needed(Config(), build({"cooldown": "1s", "enabled": False})) == []


class TestSecrets:
    URL = "http://user:p@ss:word@prometheus:9090/prefix"
    SHOWN = "http://…@prometheus:9090/prefix"

    def config(self) -> Config:
        return build({"analysis": {"prometheus": {"url": self.URL}}})

    def test_they_are_not_shown(self):
        config = self.config()
        assert (config.analysis.prometheus.url, "word" in config.to_yaml()) == (self.URL, False)
        assert yaml.safe_load(config.to_yaml())["analysis"] == config.analysis.shown()
        assert config.analysis.shown()["prometheus"]["url"] == self.SHOWN
        assert build({}).analysis.shown()["prometheus"]["url"] == ""

    def test_what_was_shown_may_come_back_with_other_changes(self):
        config = self.config()
        seen = yaml.safe_load(config.to_yaml())
        assert merge_patch(config, yaml.safe_dump(seen, allow_unicode=True)) == config
        seen["queue_limit"] = 5
        changed = merge_patch(config, json.dumps(seen))
        assert (changed.queue_limit, changed.analysis.prometheus.url) == (5, self.URL)
        other = merge_patch(config, "analysis: {prometheus: {url: 'http://other:9090'}}")
        assert other.analysis.prometheus.url == "http://other:9090"
        assert merge_patch(config, "analysis: {prometheus: {url: null}}").analysis.prometheus.url == ""

    @pytest.mark.parametrize("where", ["other:9090", "prometheus:9090", "prometheus:9090/"])
    def test_a_mask_of_something_else_is_refused(self, where: str):
        with pytest.raises(ConfigError, match="… stands for a password that is not shown"):
            merge_patch(self.config(), f"analysis: {{prometheus: {{url: 'http://…@{where}'}}}}")

    def test_a_value_that_equals_what_is_in_force_has_to_be_of_its_kind(self):
        with pytest.raises(ConfigError, match=r"analysis\.actions\.dry_run: 0 is not allowed"):
            merge_patch(self.config(), "analysis: {actions: {dry_run: 0}}")

    @pytest.mark.parametrize("url", ["http://user:pass word@host", "user:pass word@host", "http://user:pass/word@host"])
    def test_a_password_in_what_is_wrong_is_not_told(self, url: str):
        with pytest.raises(
            ConfigError, match=r"analysis\.prometheus\.url: not allowed \(.*\); the address of"
        ) as wrong:
            build({"analysis": {"prometheus": {"url": url}}})
        assert "word" not in str(wrong.value).replace("password", "")


class TestSchema:
    def test_it_has_every_key_with_its_description_and_default(self):
        schema = json_schema()
        in_force = Config().file_form()
        for key in all_keys():
            place = schema
            for name in key.path:
                entry = place["properties"][name]
                place = schema["$defs"][entry["$ref"].removeprefix("#/$defs/")] if "$ref" in entry else entry
            assert place["default"] == value_at(in_force, key.path)
            assert place["description"] == key.what

    def test_it_refuses_unknown_keys_as_the_arbiter_does(self):
        schema = json_schema()
        assert all(section["additionalProperties"] is False for section in (schema, *schema["$defs"].values()))
        assert schema["properties"]["policies"]["additionalProperties"] is False

    def test_a_policy_by_task_type_has_no_defaults_of_its_own(self):
        overrides = json_schema()["$defs"]["PolicyOverrides"]["properties"]
        assert set(overrides) == set(json_schema()["$defs"]["PolicySection"]["properties"])
        assert not any("default" in key for key in overrides.values())

    def test_a_patch_says_what_it_likes_and_gives_defaults_back(self):
        known = Config().analysis.model_dump(by_alias=True)
        schema = patch_schema(AnalysisSection)
        assert schema["properties"].keys() == known.keys()
        for name, key in schema["properties"].items():
            said, null = key["anyOf"]
            assert null == {"type": "null"}
            assert (said.get("properties", {}).keys()) == (
                known[name].keys() if isinstance(known[name], dict) else set()
            )
        assert schema["additionalProperties"] is False
        low = schema["properties"]["thresholds"]["anyOf"][0]["properties"]["low"]["anyOf"][0]
        assert (low["maximum"], "default" in low) == (100, False)


def test_a_configuration_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        Config().enabled = False  # type: ignore[misc]
