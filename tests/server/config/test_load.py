"""File, environment and flags: who wins, and every way to get it wrong."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuarbiter_server.config import Config, ConfigError, SimulatedGpus, load, merge_patch
from gpuarbiter_server.config.keys import MAX_POLICIES, all_keys
from gpuarbiter_server.config.sections import PolicySection
from gpuarbiter_server.config.sources import RESERVED_NAMES
from gpuarbiter_server.config.units import DURATION_FORM, SIZE_FORM
from gpuarbiter_server.core.model import BusyPolicy, Placement, Sharing
from gpuarbiter_server.core.policy import RUN_POLICY, Policy, Settings, Watchdog

Write = Callable[[str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write_it(text: str | bytes) -> Path:
        path = tmp_path / "arbiter.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_it


def problems(
    path: Path | None = None, environ: dict[str, str] | None = None, overrides: tuple[str, ...] = ()
) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path, environ or {}, overrides)
    return [str(problem) for problem in caught.value.problems]


def one_problem(*args: object, **more: object) -> str:
    found = problems(*args, **more)  # type: ignore[arg-type]
    assert len(found) == 1
    return found[0]


class TestPrecedence:
    def test_without_anything_the_defaults_are_the_core_s(self):
        assert load(None, {}).settings() == Settings()

    def test_a_flag_wins_over_the_environment_over_the_file_over_the_default(self, write: Write):
        path = write("defaults: {max_wait: 4s, max_hold: 4s, priority: 40}\nqueue_limit: 4\n")
        environ = {"GPU_ARBITER_DEFAULTS__MAX_WAIT": "5s", "GPU_ARBITER_DEFAULTS__MAX_HOLD": "5s"}
        config = load(path, environ, ["defaults.max_wait=6s"])
        assert (config.defaults.max_wait, config.defaults.max_hold, config.defaults.priority) == (6.0, 5.0, 40)
        assert (config.queue_limit, config.cooldown) == (4, Settings().cooldown)

    def test_of_two_flags_the_later_one_counts(self):
        assert load(None, {}, ["cooldown=1s", "cooldown=2s"]).cooldown == 2.0

    def test_the_more_special_variable_wins(self):
        environ = {"GPU_ARBITER_DEFAULTS": "{max_wait: 5s, priority: 3}", "GPU_ARBITER_DEFAULTS__MAX_WAIT": "6s"}
        defaults = load(None, environ).defaults
        assert (defaults.max_wait, defaults.priority) == (6.0, 3)

    def test_null_gives_the_default_back(self, write: Write):
        path = write("cooldown: 4s\nlisten: {grpc: off}\n")
        config = load(path, {"GPU_ARBITER_COOLDOWN": "null"}, ["listen="])
        assert (config.cooldown, config.listen.grpc) == (Settings().cooldown, "127.0.0.1:50051")

    def test_an_empty_variable_counts_as_not_set(self, write: Write):
        assert load(write("cooldown: 4s"), {"GPU_ARBITER_COOLDOWN": " "}).cooldown == 4.0

    def test_an_empty_file_is_a_file(self, write: Write):
        assert load(write("# nothing yet\n"), {}) == Config()

    def test_json_is_a_file_too(self, write: Write):
        assert load(write('{"listen": {"grpc": "off"}, "cooldown": "1s"}'), {}).listen.grpc == "off"

    def test_a_whole_policy_in_a_flag_leaves_its_other_keys(self, write: Write):
        config = load(write("policies: {ASR: {priority: 90}}"), {}, ["policies.ASR={max_wait: 1s}"])
        assert config.policies["ASR"].said() == {"priority": 90, "max_wait": "1s"}

    def test_a_list_of_gpus_is_replaced_as_a_whole(self, write: Write):
        path = write("gpus: [{key: a, memory: 1GiB}]")
        assert load(path, {"GPU_ARBITER_GPUS": "sim:1x2GiB"}).gpus == SimulatedGpus(1, 2 * 1024**3)

    def test_a_task_type_with_a_dot_is_quoted_in_a_flag(self):
        assert load(None, {}, ['policies."asr.v2".priority=90']).policies["asr.v2"].said() == {"priority": 90}


class TestEnvironment:
    def test_names_are_taken_in_any_case(self):
        assert load(None, {"gpu_arbiter_Defaults__max_wait": "5s"}).defaults.max_wait == 5.0

    @pytest.mark.parametrize(
        ("said", "meant"), [("asr", "Asr"), ("ASR", "Asr"), ("run", "RUN"), ("NEW", "NEW"), ("new", "new")]
    )
    def test_a_task_type_is_the_configured_one_or_as_written(self, write: Write, said: str, meant: str):
        config = load(write("policies: {Asr: {}}"), {f"GPU_ARBITER_POLICIES__{said}__PRIORITY": "90"})
        assert config.policies[meant].priority == 90
        assert set(config.policies) == {"Asr", "RUN", meant}

    def test_between_two_that_differ_in_case_alone_the_written_one_is_meant(self, write: Write):
        config = load(write("policies: {asr: {}, ASR: {}}"), {"GPU_ARBITER_POLICIES__ASR__PRIORITY": "90"})
        assert (config.policies["asr"].said(), config.policies["ASR"].said()) == ({}, {"priority": 90})

    def test_names_of_clients_and_tools_are_no_settings(self):
        environ = dict.fromkeys(RESERVED_NAMES, "x") | {"gpu_arbiter_token": "x", "GPU_ARBITERX": "x", "PATH": "x"}
        assert load(None, environ) == Config()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("GPU_ARBITER_SERVICE_HOST", "10.0.0.1"),
            ("GPU_ARBITER_SERVICE_PORT", "50051"),
            ("GPU_ARBITER_SERVICE_PORT_GRPC", "50051"),
            ("GPU_ARBITER_PORT", "tcp://10.0.0.1:50051"),
            ("GPU_ARBITER_PORT_50051_TCP", "tcp://10.0.0.1:50051"),
            ("GPU_ARBITER_PORT_50051_TCP_ADDR", "10.0.0.1"),
            ("GPU_ARBITER_METRICS_PORT_9402_TCP_PROTO", "tcp"),
            ("GPU_ARBITER_METRICS_SERVICE_HOST", "10.0.0.1"),
        ],
    )
    def test_what_kubernetes_sets_for_a_service_is_no_error(self, name: str, value: str):
        assert load(None, {name: value}) == Config()

    def test_a_port_that_is_not_kubernetes_own_is_an_error(self):
        assert "unknown key" in one_problem(environ={"GPU_ARBITER_PORT": "50051"})

    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("GPU_ARBITER_TOKN", "GPU_ARBITER_TOKEN"),
            ("GPU_ARBITER_COOLDWN", "GPU_ARBITER_COOLDOWN"),
            ("GPU_ARBITER_MAX_WAIT", "GPU_ARBITER_DEFAULTS__MAX_WAIT"),
        ],
    )
    def test_a_mistyped_name_is_an_error_that_keeps_its_value_to_itself(self, name: str, meant: str):
        found = one_problem(environ={name: "secret"})
        assert f"unknown key (environment variable {name}); allowed after GPU_ARBITER_: ENABLED, NODE," in found
        assert found.endswith(f"; did you mean {meant}?")
        assert "secret" not in found

    @pytest.mark.parametrize("name", ["GPU_ARBITER_", "GPU_ARBITER___X", "GPU_ARBITER_XYZZY"])
    def test_a_name_that_is_like_no_other_is_an_error_without_a_guess(self, name: str):
        assert "did you mean" not in one_problem(environ={name: ""})

    def test_a_mistyped_name_below_a_section_is_an_error_even_if_it_is_empty(self):
        found = one_problem(environ={"GPU_ARBITER_DEFAULTS__MAX_WIAT": ""})
        assert found.startswith("defaults.max_wiat: unknown key (environment variable GPU_ARBITER_DEFAULTS__MAX_WIAT)")
        assert found.endswith("did you mean max_wait?")

    def test_two_variables_for_one_key_are_an_error(self):
        found = one_problem(environ={"GPU_ARBITER_NODE": "a", "gpu_arbiter_node": "b"})
        source = "environment variable gpu_arbiter_node"
        assert found == f"node: two variables for one key ({source}); GPU_ARBITER_NODE is another; keep one"

    def test_a_value_that_is_no_yaml_is_a_problem_of_its_key(self):
        found = one_problem(environ={"GPU_ARBITER_NODE": "["})
        assert found.startswith("node: not valid YAML (environment variable GPU_ARBITER_NODE line 1, column 2);")


class TestFile:
    def test_a_file_that_is_not_there(self, tmp_path: Path):
        path = tmp_path / "none.yaml"
        assert one_problem(path) == f"the file cannot be read ({path}); No such file or directory"

    def test_a_path_that_cannot_be(self):
        assert "embedded null byte" in one_problem(Path("a\0b"))

    def test_a_file_that_is_too_long(self, write: Write):
        assert "too long" in one_problem(write("#" * 300_000))

    @pytest.mark.parametrize("text", ["- a", "just text", "3"])
    def test_a_file_that_is_no_mapping(self, write: Write, text: str):
        assert one_problem(write(text)).endswith("expected a mapping of keys to values")

    def test_a_syntax_error_has_its_line(self, write: Write):
        path = write("enabled: true\nlisten: {grpc: off\n")
        assert f"not valid YAML ({path} line " in one_problem(path)

    def test_every_problem_is_told_at_once_with_its_line(self, write: Write):
        path = write(
            "cooldown: 3\n"
            "queue_limit: -1\n"
            "queue_limt: 5\n"
            "max_wait: 3s\n"
            "enabled: off\n"
            "defaults:\n"
            "  priority: 101\n"
            "  watchdog: {yeild: true}\n"
            "policies:\n"
            "  ASR: {busy_policy: MAYBE}\n"
            "  NMT: 5\n"
            "  no spaces: {}\n"
            "memory: 5\n"
            "gpus:\n"
            "  - {key: a, memory: 1GB}\n"
            "cooldown: 4s\n"
        )
        expected = """
            cooldown: a second time in one mapping (FILE line 16); it is on line 1 already
            queue_limt: unknown key (FILE line 3); allowed here: TOP; did you mean queue_limit?
            max_wait: unknown key (FILE line 4); allowed here: TOP; did you mean defaults.max_wait?
            defaults.watchdog.yeild: unknown key (FILE line 8); allowed here: WATCHDOG; did you mean yield?
            policies.NMT: 5 is not allowed (FILE line 11); expected a mapping with POLICY
            policies."no spaces": 'no spaces' is not allowed (FILE line 12); expected a TASK
            memory: 5 is not allowed (FILE line 13); expected a mapping with MEMORY
            'nonsense' is not allowed (--set); expected KEY=VALUE, such as defaults.max_wait=5s
            enabled: 'off' is not allowed (FILE line 5); expected true or false
            gpus.0.memory: '1GB' is not allowed (FILE line 15); expected SIZE: write 1GiB
            queue_limit: -1 is not allowed (FILE line 2); expected a whole number, 0 to 1000000
            cooldown: 3 is not allowed (FILE line 1); expected DURATION: the unit is missing, write 3s
            aging: true is not allowed (environment variable GPU_ARBITER_AGING); expected DURATION
            defaults.priority: 101 is not allowed (FILE line 7); expected a whole number, 0 to 100
            policies.ASR.busy_policy: 'MAYBE' is not allowed (FILE line 10); expected WAIT, SKIP or FALLBACK_CPU
        """
        for word, text in {
            "FILE": str(path),
            "TOP": ", ".join(Config.model_fields),
            "WATCHDOG": "warn, yield, grace, revoke",
            "POLICY": ", ".join(PolicySection.model_fields),
            "MEMORY": "headroom, stale_after, on_stale, recovery_limit",
            "TASK": "task type: 1 to 64 letters, digits and _.-",
            "SIZE": SIZE_FORM,
            "DURATION": DURATION_FORM,
        }.items():
            expected = re.sub(rf"\b{word}\b", lambda _, text=text: text, expected)
        found = problems(path, {"GPU_ARBITER_AGING": "true"}, ("nonsense",))
        assert found == [line.strip() for line in expected.strip().splitlines()]

    def test_the_error_is_a_text_to_read(self, write: Write):
        path = write("cooldown: x\naging: y")
        with pytest.raises(ConfigError) as caught:
            load(path, {})
        lines = str(caught.value).splitlines()
        assert lines[0] == "the configuration has 2 problems:"
        assert [line[:12] for line in lines[1:]] == ["  cooldown: ", "  aging: 'y'"]
        with pytest.raises(ConfigError, match="the configuration has 1 problem:"):
            load(None, {}, ["cooldown=x"])

    def test_the_text_of_the_error_has_a_bound(self, write: Write):
        with pytest.raises(ConfigError) as caught:
            load(write("\n".join(f"k{n}: 1" for n in range(150))), {})
        assert len(caught.value.problems) == 150
        assert str(caught.value).splitlines()[101:] == ["  and 50 more"]

    def test_the_older_form_is_sent_to_migrate(self, write: Write):
        assert "gpu-arbiterd config migrate" in one_problem(write('{"gpuArbiter": {}}'))

    def test_a_camel_case_key_is_understood_well_enough_to_help(self, write: Write):
        assert one_problem(write("policies: {ASR: {maxWaitMs: 3000}}")).endswith("did you mean max_wait?")

    def test_a_strange_key_does_not_break_the_message(self, write: Write):
        found = one_problem(write('"a\\n\\"b": 1\n'))
        assert found.splitlines() == [found]
        assert found.startswith('"a\\n\\"b": unknown key')

    def test_the_list_of_policies_has_a_bound(self, write: Write):
        load(write("policies: {" + ", ".join(f"T{n}: {{}}" for n in range(MAX_POLICIES)) + "}"), {})
        found = one_problem(write("policies: {" + ", ".join(f"T{n}: {{}}" for n in range(MAX_POLICIES + 1)) + "}"))
        assert "257 task types" in found

    @pytest.mark.parametrize("value", ["T0KEN", "[T0KEN]"])
    def test_what_is_written_in_place_of_a_section_may_be_a_secret_and_is_not_told(self, value: str):
        found = one_problem(environ={"GPU_ARBITER_AUTH": value})
        assert found == "auth: not allowed (environment variable GPU_ARBITER_AUTH); a mapping with admin_token"

    def test_policies_that_are_no_mapping(self, write: Write):
        assert one_problem(write("policies: [ASR]")).endswith("expected a mapping with task types")


class TestValues:
    @pytest.mark.parametrize("key", list(all_keys()), ids=lambda key: ".".join(key.path))
    @pytest.mark.parametrize(
        "value", [".nan", ".inf", "-.inf", "-1", "1.5", "[{}]", "{a: 1}", '"\\0"', "'" + "x" * 300 + "'"]
    )
    def test_nothing_takes_what_makes_no_sense(self, key: object, value: str):
        name = ".".join(key.path)  # type: ignore[attr-defined]
        if value == "1.5" and name.startswith(("analysis.thresholds", "analysis.weights")):
            value = "1e9"  # Half points make sense.
        for found in problems(overrides=(f"{name}={value}",)):
            assert found.startswith(name)
            assert f"(--set {name})" in found
            assert len(found) < 400

    @pytest.mark.parametrize(
        "key",
        ["queue_limit", "cooldown", "defaults.priority", "defaults.memory", "memory.headroom", "defaults.max_wait"],
    )
    @pytest.mark.parametrize("value", ["true", "false"])
    def test_a_truth_value_is_no_number(self, key: str, value: str):
        assert f"{key}: {value} is not allowed" in one_problem(overrides=(f"{key}={value}",))

    @pytest.mark.parametrize("value", ["0", "1", "on", "yes", "'true'"])
    def test_a_number_or_text_is_no_truth_value(self, value: str):
        assert one_problem(overrides=(f"enabled={value}",)).endswith("expected true or false")

    @pytest.mark.parametrize("key", ["defaults.ttl_limit", "memory.stale_after"])
    @pytest.mark.parametrize("value", ["0", "0s"])
    def test_some_durations_cannot_be_zero(self, key: str, value: str):
        assert one_problem(overrides=(f"{key}={value}",)).endswith("longer than 0s")

    @pytest.mark.parametrize("value", ["0", "9ms", "61s"])
    def test_an_interval_has_bounds(self, value: str):
        assert one_problem(overrides=(f"sampler.fast_interval={value}",)).endswith("a duration, 10ms to 1m")

    def test_words_are_taken_in_any_case(self):
        overrides = [
            "defaults.busy_policy=fallback_cpu",
            "placement=best-fit",
            "log_level=DEBUG",
            "defaults.sharing=Shared",
        ]
        config = load(None, {}, overrides)
        assert (config.defaults.busy_policy, config.defaults.sharing) == (BusyPolicy.FALLBACK_CPU, Sharing.SHARED)
        assert (config.placement, config.log_level) == (Placement.BEST_FIT, "debug")

    @pytest.mark.parametrize("key", ["defaults.busy_policy", "defaults.sharing", "placement"])
    def test_unspecified_is_no_choice(self, key: str):
        assert "'UNSPECIFIED' is not allowed" in one_problem(overrides=(f"{key}=UNSPECIFIED",))

    def test_limits_that_can_be_off(self):
        config = load(None, {}, ["defaults.max_wait=unlimited", "memory.headroom=1GiB", "memory.on_stale=refuse"])
        settings = config.settings()
        assert settings.default_policy.max_wait is None
        assert (settings.memory.headroom_bytes, settings.memory.refuse_when_stale) == (1024**3, True)

    def test_a_node_may_be_named(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr("socket.gethostname", lambda: "box")
        assert load(None, {}).node_name() == "box"
        assert load(None, {}, ["node=gpu-7"]).node_name() == "gpu-7"
        assert load(None, {}, ["node='7'"]).node_name() == "7"
        assert "in quotes if it is a number" in one_problem(overrides=("node=7",))


class TestLists:
    def test_modules_have_levels_of_their_own_and_sources_add_up(self):
        config = load(
            None, {"GPU_ARBITER_LOG_LEVELS": "{store: DEBUG}"}, ["log_levels.api=warning", "log_levels={events: error}"]
        )
        assert config.log_levels == {"store": "debug", "api": "warning", "events": "error"}
        patched = merge_patch(config, "log_levels: {store: null, gpu: info}")
        assert patched.log_levels == {"api": "warning", "events": "error", "gpu": "info"}
        assert merge_patch(config, "log_levels: null").log_levels == {}

    @pytest.mark.parametrize(
        "value", ["loud", "[store]", "{store: loud}", "{'a b': debug}", "{store: 3}", "{'': debug}"]
    )
    def test_other_levels_are_refused(self, value: str):
        assert "a mapping of at most 100 modules" in one_problem(overrides=(f"log_levels={value}",))

    def test_namespaces_are_a_list_of_different_texts(self):
        assert load(None, {}, ["telemetry.namespaces=[a, b]"]).telemetry.namespaces == ("a", "b")

    @pytest.mark.parametrize(
        "value",
        [
            *("a", "[a, a]", "[3]", "['']", "{a: b}", str(["x" * 257]), str(list("ab" * 51))),
            *(r'["a\nb"]', r'["\0"]', r'["\ud800"]'),
        ],
    )
    def test_other_namespaces_are_refused(self, value: str):
        assert "a list of at most 100 different texts" in one_problem(overrides=(f"telemetry.namespaces={value}",))


class TestPolicies:
    def test_a_policy_inherits_what_it_does_not_say(self, write: Write):
        path = write(
            "defaults: {max_wait: 7s, memory: 1GiB, watchdog: {grace: 9s, revoke: true}}\n"
            "policies: {ASR: {priority: 90, watchdog: {yield: false}}}\n"
        )
        assert load(path, {}).settings().policies["ASR"] == Policy(
            priority=90, max_wait=7.0, memory_bytes=1024**3, watchdog=Watchdog(yield_=False, grace=9.0, revoke=True)
        )

    def test_every_key_of_a_policy_reaches_the_core(self):
        said = {
            "priority": "1",
            "max_priority": "2",
            "max_wait": "3s",
            "max_hold": "4s",
            "max_hold_limit": "5s",
            "ttl_limit": "6s",
            "disconnect_grace": "7s",
            "busy_policy": "SKIP",
            "sharing": "SHARED",
            "memory": "8MiB",
            "raise_after_out_of_memory": "true",
            "max_concurrent_leases": "9",
            "watchdog": "{warn: false, yield: false, grace: 10s, revoke: true}",
        }
        policy = load(None, {}, [f"policies.A.{key}={value}" for key, value in said.items()]).settings().policies["A"]
        assert policy == Policy(
            1,
            2,
            3.0,
            4.0,
            5.0,
            6.0,
            7.0,
            BusyPolicy.SKIP,
            Sharing.SHARED,
            8 * 1024**2,
            True,
            9,
            Watchdog(False, False, 10.0, True),
        )

    def test_the_built_in_policy_inherits_too(self):
        assert load(None, {}, ["defaults.priority=7"]).settings().policies["RUN"] == Policy(
            priority=7, max_wait=RUN_POLICY.max_wait, max_hold=RUN_POLICY.max_hold
        )

    def test_configuring_the_built_in_policy_keeps_what_it_is_for(self):
        policy = load(None, {}, ["policies.RUN.priority=7"]).settings().policies["RUN"]
        assert (policy.priority, policy.max_wait, policy.max_hold) == (7, None, 0.0)
        assert load(None, {}, ["policies.RUN.max_wait=1s"]).settings().policies["RUN"].max_wait == 1.0

    def test_in_a_file_a_task_type_with_nothing_behind_it_is_one(self, write: Write):
        config = load(write("policies:\n  ASR:\n"), {})
        assert config.policies["ASR"].said() == {}
        assert config.policy("ASR") == config.policy("UNKNOWN") == config.defaults

    def test_a_priority_above_its_maximum_is_a_problem_of_the_policy_that_has_it(self, write: Write):
        path = write("defaults: {max_priority: 80}\npolicies:\n  ASR: {priority: 90}\n  NMT: {}\n")
        assert (
            one_problem(path)
            == f"policies.ASR.priority: 90 is not allowed ({path} line 3); expected at most max_priority"
        )

    def test_what_is_wrong_with_the_defaults_is_told_once(self, write: Write):
        path = write("defaults: {max_priority: 40}\npolicies:\n  ASR: {priority: 90}\n  NMT: {}\n")
        assert [text.partition(" (")[0] for text in problems(path)] == [
            "defaults.priority: 50 is not allowed",
            "policies.ASR.priority: 90 is not allowed",
        ]

    def test_an_inherited_value_that_does_not_fit_is_named_with_where_it_comes_from(self, write: Write):
        path = write("defaults: {priority: 60}\n\npolicies: {ASR: {max_priority: 40}}\n")
        assert one_problem(path).startswith(f"policies.ASR.priority: 60 is not allowed ({path} line 1)")
        assert "(default)" in one_problem(overrides=("policies.ASR.max_priority=40",))

    def test_a_policy_that_says_a_default_is_not_one_that_leaves_it(self):
        said, left = (load(None, {}, [f"policies.A={value}"]).policies["A"] for value in ("{priority: 50}", "{}"))
        assert said != left
        assert said == load(None, {}, ["policies.A.priority=50"]).policies["A"]
        assert said != "something else"


class TestTogether:
    def test_the_fast_interval_is_the_shorter_one(self):
        found = one_problem(overrides=("sampler.fast_interval=1s",))
        assert found.startswith("sampler.fast_interval: '1s' is not allowed (--set sampler.fast_interval)")
        assert found.endswith("expected at most sampler.interval")

    def test_readings_come_before_they_are_stale(self):
        assert "every reading would be stale" in one_problem(overrides=("sampler.interval=3s",))


class TestFlags:
    @pytest.mark.parametrize(
        "text", ["", "=", "=5", "cooldown", ".cooldown=1", "a..b=1", 'policies."a=1', "cooldown 1s"]
    )
    def test_a_flag_that_is_no_pair(self, text: str):
        assert one_problem(overrides=(text,)).endswith("expected KEY=VALUE, such as defaults.max_wait=5s")

    def test_a_key_below_a_value(self):
        found = one_problem(overrides=("cooldown.max=1s",))
        assert found.startswith("cooldown: {'max': '1s'} is not allowed (--set cooldown.max)")

    def test_a_flag_for_an_unknown_key(self):
        assert one_problem(overrides=("cooldwn=1s",)).endswith("did you mean cooldown?")

    @given(texts=st.lists(st.text() | st.text(alphabet='cooldwn=."{}[]:,1s '), max_size=3))
    def test_no_flag_breaks_the_loader(self, texts: list[str]):
        try:
            load(None, {}, texts)
        except ConfigError as error:
            lines, count = str(error).splitlines(), len(error.problems)
        else:
            lines, count = ["no problem"], 0
        assert len(lines) == 1 + count


@pytest.mark.parametrize("said", ["full", "relaxed", "memory"])
def test_a_journal_can_be_written_down(tmp_path: Path, said: str):
    file = tmp_path / "arbiter.yaml"
    file.write_text(f"journal: {{path: {tmp_path}, durability: {said}}}\n")
    assert load(file, {}).journal.durability == said


@pytest.mark.parametrize(
    ("text", "key", "allowed"),
    [
        ("journal: {durability: often}", "journal.durability", "full, relaxed or memory"),
        ("journal: {path: here}", "journal.path", "absolute path"),
    ],
)
def test_a_journal_is_checked(tmp_path: Path, text: str, key: str, allowed: str):
    file = tmp_path / "arbiter.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=allowed) as caught:
        load(file, {})
    assert [problem.key for problem in caught.value.problems] == [key]


class TestAnalysis:
    def test_the_pages_about_it_show_the_defaults_first_and_examples_that_load(self, write: Write):
        docs = Path(__file__).parents[3] / "docs"
        names = ("analysis", "analysis-model", "analysis-actions")
        pages = "".join((docs / f"{name}.md").read_text() for name in names)
        defaults, *examples = re.findall(r"^```yaml\n(.*?)^```", pages, re.MULTILINE | re.DOTALL)
        assert load(write(defaults), {}) == Config()
        assert len(examples) > 1
        assert all(load(write(example), {}) != Config() for example in examples)

    def test_nothing_is_done_about_anybody_unless_it_is_said(self):
        analysis = load(None, {}).analysis
        assert (analysis.actions.yield_, analysis.actions.after_runs, analysis.actions.hold_down) == ("never", 2, 3600)
        assert (analysis.control.enabled, analysis.control.timeout, analysis.notify.urls_file) == (False, 5, "")

    @pytest.mark.parametrize(
        "url",
        [
            "control.example",
            "http://",
            "http://[x",
            "http://x:port/",
            "https://user:hidden@control.example/",
            "https://control.example/#hidden",
            "https://control.example/…",
            "https://control.example/a b",
        ],
    )
    def test_what_is_no_address_of_a_webhook_is_refused_and_not_shown(self, url: str):
        found = one_problem(overrides=(f"analysis.control.url='{url}'",))
        assert "the address of a webhook" in found
        assert "hidden" not in found

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("", ""),
            ("https://control.example", "https://control.example"),
            ("https://control.example:8443/hooks/T0KEN", "https://control.example:8443/…"),
            ("http://control?token=T0KEN", "http://control/…"),
            ("https://control.example:/T0KEN", "https://control.example:/…"),
            ("https://control.example//T0KEN", "https://control.example/…"),
        ],
    )
    def test_of_the_address_of_a_webhook_the_host_alone_is_shown(self, url: str, shown: str):
        config = load(None, {}, (f"analysis.control.url={url}",))
        assert config.analysis.control.url == url
        assert config.analysis.shown()["control"]["url"] == shown
        assert "T0KEN" not in config.to_yaml()
        # Whoever sends back what was shown has changed nothing.
        patch = json.dumps({"analysis": {"control": {"url": shown}}})
        assert merge_patch(config, patch).analysis.control.url == url

    def test_its_defaults_are_these(self):
        analysis = load(None, {}).analysis
        assert (analysis.interval, analysis.time_window, analysis.step) == (300, 600, 30)
        assert analysis.thresholds.model_dump() == {"idle": 10, "low": 20, "high": 70}
        assert list(analysis.weights.model_dump().values()) == [0.5, 0.2, 0.2, 0.1]

    @pytest.mark.parametrize(
        ("said", "problem"),
        [
            ("time_window: 10s", "1 to 1000 times analysis.step"),
            ("step: 500ms", "1 to 1000 times analysis.step"),
            ("thresholds: {idle: 30}", "idle <= low <= high"),
            ("thresholds: {high: 101}", "a number, 0 to 100"),
            ("weights: {power: -1}", "a number, 0 to 1000"),
            ("weights: {power: true}", "a number, 0 to 1000"),
            ("weights: {utilization: 0, memory_bandwidth: 0, memory: 0, power: 0}", "at least one that is above 0"),
            ("language: fr", "en or zh"),
            ("max_workers: 0", "a whole number, 1 to 64"),
            ("prometheus: {selector: pod}", "a selector of Prometheus in braces"),
            ("prometheus: {url: prometheus}", "the address of a Prometheus"),
            ("prometheus: {url: 'http://'}", "the address of a Prometheus"),
            ("prometheus: {url: 'http://x:port'}", "the address of a Prometheus"),
            ("prometheus: {url: 'http://[x'}", "the address of a Prometheus"),
            ("prometheus: {url: 'http://x/?y=z'}", "the address of a Prometheus"),
            ("prometheus: {window: 20s}", "1 to 1000 times analysis.prometheus.step"),
            ("prometheus: {step: 500ms}", "1 to 1000 times analysis.prometheus.step"),
            ("prometheus: {step: 0s}", "auto, or a duration longer than 0s"),
            ("history: 0", "a whole number, 1 to 1000"),
            ("ai: {enabled: true, model: m}", "a value, because analysis.ai.enabled is true"),
            ("ai: {enabled: true, url: 'http://x/v1'}", "a value, because analysis.ai.enabled is true"),
            ("ai: {model: 'two words'}", "the name of a model"),
            ("ai: {threshold: 1.1}", "a number, 0 to 1"),
            ("ai: {threshold: true}", "a number, 0 to 1"),
            ("ai: {ask_about: none}", "low or all"),
            ("ai: {max_workers: 65}", "a whole number, 1 to 64"),
            ("ai: {max_requests_per_day: 0}", "a whole number, 1 to 1000000"),
            ("ai: {max_answer_tokens: 1.5}", "a whole number, 1 to 32768"),
            ("ai: {timeout: 0s}", "a duration longer than 0s"),
            ("actions: {yield: yes}", "never, when_waiting or always"),
            ("actions: {yield: true}", "never, when_waiting or always"),
            ("actions: {below: normal}", "low or idle"),
            ("actions: {after_runs: 0}", "a whole number, 1 to 1000"),
            ("actions: {min_confidence: 2}", "a number, 0 to 1"),
            ("actions: {hold_down: 60}", "a duration"),
            ("control: {enabled: true}", "a value, because analysis.control.enabled is true"),
            ("control: {attempts: 21}", "a whole number, 1 to 20"),
            ("control: {secret_file: secret}", "the absolute path of a file"),
            ("notify: {urls_file: 'slack://hidden'}", "the absolute path of a file"),
        ],
    )
    def test_what_does_not_make_sense_or_fit_together(self, said: str, problem: str):
        assert problem in one_problem(overrides=(f"analysis={{{said}}}",))

    def test_older_names_are_understood_in_their_units_below_those_of_today(self):
        environ = {
            "PROM_URL": "http://prometheus:9090/",
            "THRESHOLD": "25",
            "INTERVAL": "60",
            "MAX_WORKERS": "4",
            "TIME_WINDOW_MIN": "15",
            "AI_ENABLED": "1",
            "AI_API_URL": "http://models.example/v1/chat/completions",
            "AI_MODEL": "small-1",
            "CONTROL_API_ENABLED": "1",
            "CONTROL_API": "https://control.example/gpus",
            "LOG_LEVEL": "WARNING",
        }
        config = load(None, environ)
        analysis = config.analysis
        assert (analysis.prometheus.url, analysis.thresholds.low) == ("http://prometheus:9090", 25)
        assert (analysis.interval, analysis.max_workers, analysis.time_window) == (60, 4, 900)
        ai = analysis.ai
        assert (ai.enabled, ai.url, ai.model) == (True, "http://models.example/v1", "small-1")
        assert [load(None, {"AI_ENABLED": said}).analysis.ai.enabled for said in ("0", " false ", "No")] == 3 * [False]
        assert (analysis.control.enabled, analysis.control.url) == (True, "https://control.example/gpus")
        assert not load(None, {"CONTROL_API_ENABLED": "0"}).analysis.control.enabled
        assert config.log_level == "warning"
        assert load(None, environ | {"GPU_ARBITER_ANALYSIS__INTERVAL": "2m"}).analysis.interval == 120
        assert load(None, dict.fromkeys(environ, " ")) == Config()

    def test_a_bad_value_of_an_older_name_is_told_by_that_name(self):
        found = one_problem(environ={"INTERVAL": "often"})
        assert found.startswith("analysis.interval")
        assert "(environment variable INTERVAL)" in found

    def test_the_queries_go_by_the_window_and_step_of_the_analysis_unless_they_have_their_own(self):
        assert load(None, {}).analysis.prometheus_span() == (600, 30)
        own = {"GPU_ARBITER_ANALYSIS__PROMETHEUS": "{window: 1h, step: 2m}"}
        assert load(None, own).analysis.prometheus_span() == (3600, 120)
        assert load(None, {"GPU_ARBITER_ANALYSIS__PROMETHEUS__STEP": "15s"}).analysis.prometheus_span() == (600, 15)

    @pytest.mark.parametrize(
        "said",
        [
            *("key_file: sk-secret", "api_key: sk-secret", "key_file: [sk-secret]"),
            *("url: sk-secret", "url: 'https://user:sk-secret@x/v1'", "url: 'https://x/v1?key=sk-secret'"),
            *("url: 'https://x/v1#sk-secret'", "url: 'https://[sk-secret'", "url: 'https://:1/sk-secret'"),
        ],
    )
    def test_a_key_in_the_wrong_place_is_refused_and_not_shown(self, said: str):
        found = one_problem(overrides=(f"analysis.ai={{{said}}}",))
        assert "analysis.ai." in found
        assert "sk-secret" not in found

    def test_the_key_of_a_model_is_no_setting(self):
        environ = {"GPU_ARBITER_AI_API_KEY": "sk-secret", "AI_API_KEY": "sk-secret"}
        assert load(None, environ) == Config()
