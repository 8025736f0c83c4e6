"""Which GPUs call for an action, and which are left alone."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuarbiter_server.analysis.actions import Finding, Rules, Watch
from gpuarbiter_server.analysis.model import Holder, Result, Sample, Status, Verdict
from gpuarbiter_server.analysis.service import Settings, evaluate

from .windows import SOMEBODY, window

AT_ONCE = Rules(after_runs=1)


def idle(gpu_id: str = "gpu:0", *holders: Holder, **changes: Any) -> Result:
    """A GPU whose memory is held without work."""
    (found,) = evaluate([window([0.0] * 20, holders=holders or (SOMEBODY,))], Settings())
    judgement = replace(found.judgement, **{name: changes.pop(name) for name in ("verdict",) if name in changes})
    return replace(found, gpu=replace(found.gpu, gpu_id=gpu_id), judgement=judgement, **changes)


def named(findings: list[Finding]) -> list[str]:
    return [each.name for each in findings]


def test_a_gpu_that_is_held_without_work_is_found_after_so_many_runs() -> None:
    watch = Watch()
    assert watch.findings([idle()], Rules(after_runs=3), 0) == []
    assert watch.findings([idle()], Rules(after_runs=3), 300) == []
    (found,) = watch.findings([idle()], Rules(after_runs=3), 600)
    assert (found.name, found.holder, found.repeated, found.whole) == (
        "gpu:0 (team-a/trainer-0, score 12)",
        SOMEBODY,
        False,
        True,
    )


def test_runs_that_somebody_asks_for_in_a_hurry_count_as_one() -> None:
    watch, rules = Watch(), Rules(after_runs=3, apart=150)
    moments = (0, 1, 2, 140, 151, 152, 300)
    assert [watch.findings([idle()], rules, moment) for moment in moments] == [[]] * len(moments)
    (found,) = watch.findings([idle()], rules, 301)
    assert not found.repeated


def test_a_run_that_finds_it_well_used_begins_anew() -> None:
    watch, rules = Watch(), Rules(after_runs=2)
    watch.findings([idle()], rules, 0)
    watch.findings([idle(status=Status.NORMAL)], rules, 300)
    assert watch.findings([idle()], rules, 600) == []
    assert len(watch.findings([idle()], rules, 900)) == 1


@pytest.mark.parametrize(
    ("result", "rules"),
    [
        (idle(status=Status.NORMAL), AT_ONCE),
        (idle(status=Status.HIGH), AT_ONCE),
        (idle(status=Status.LOW), replace(AT_ONCE, status=Status.IDLE)),
        (idle(verdict=Verdict.ACTIVE), AT_ONCE),
        (idle(), replace(AT_ONCE, confidence=0.95)),
        (idle("gpu:0", SOMEBODY._replace(held=599.0)), AT_ONCE),
    ],
    ids=["normal", "high", "low where idle is asked for", "active", "too unsure", "held for less than the window"],
)
def test_what_is_left_alone(result: Result, rules: Rules) -> None:
    assert Watch().findings([result], rules, 0) == []


@pytest.mark.parametrize(
    ("result", "rules"),
    [
        (idle(status=Status.LOW), AT_ONCE),
        (idle(status=Status.IDLE), replace(AT_ONCE, status=Status.IDLE)),
        (idle(verdict=Verdict.SUSPICIOUS), AT_ONCE),
        (idle(verdict=Verdict.ACTIVE), replace(AT_ONCE, spare_active=False)),
        (idle(), replace(AT_ONCE, confidence=0.9)),
        (idle("gpu:0", SOMEBODY._replace(held=600.0)), AT_ONCE),
        (idle("gpu:0", SOMEBODY._replace(held=None)), AT_ONCE),
    ],
    ids=[
        "low",
        "idle",
        "suspicious",
        "active ones too",
        "just sure enough",
        "held for the window",
        "nobody knows how long",
    ],
)
def test_what_is_not(result: Result, rules: Rules) -> None:
    assert len(Watch().findings([result], rules, 0)) == 1


def test_what_a_model_thinks_has_no_say() -> None:
    found = idle()
    active, waste = (replace(found.judgement, verdict=verdict) for verdict in (Verdict.ACTIVE, Verdict.IDLE))
    assert Watch().findings([replace(found, judgement=active, opinion=waste)], AT_ONCE, 0) == []
    assert len(Watch().findings([replace(found, judgement=waste, opinion=active)], AT_ONCE, 0)) == 1


def test_what_nobody_holds_is_free_and_not_wasted() -> None:
    (free,) = evaluate([window([0.0] * 20, holders=())], Settings())
    assert Watch().findings([free], AT_ONCE, 0) == []


def test_a_utilization_that_is_not_known_is_no_reason_to_act() -> None:
    blind = [Sample(None, None, 0.1 * 80 * 2**30, 60.0, 1e9)] * 20
    (found,) = evaluate([replace(window([0.0]), samples=tuple(blind), steps=20)], Settings())
    assert (found.status, found.judgement.verdict) == (Status.LOW, Verdict.IDLE)
    assert Watch().findings([found], AT_ONCE, 0) == []


def test_within_the_hold_down_it_is_a_repetition() -> None:
    watch = Watch()
    repeated = [watch.findings([idle()], AT_ONCE, now)[0].repeated for now in (0, 300, 3599, 3600, 3900)]
    assert repeated == [False, True, True, False, True]


def test_who_did_well_in_between_is_told_again() -> None:
    watch = Watch()
    watch.findings([idle()], AT_ONCE, 0)
    watch.findings([idle(verdict=Verdict.ACTIVE)], AT_ONCE, 300)
    assert not watch.findings([idle()], AT_ONCE, 600)[0].repeated


def test_a_gpu_without_samples_for_once_has_not_done_well() -> None:
    watch = Watch()
    watch.findings([idle()], AT_ONCE, 0)
    watch.findings([], AT_ONCE, 300)
    assert watch.findings([idle()], AT_ONCE, 600)[0].repeated


def test_what_is_gone_for_longer_than_the_hold_down_is_forgotten() -> None:
    watch = Watch()
    watch.findings([idle()], AT_ONCE, 0)
    watch.findings([], AT_ONCE, 3600)
    assert watch._seen == {}


def test_another_holder_or_another_node_is_another_case() -> None:
    watch = Watch()
    first = idle()
    watch.findings([first], AT_ONCE, 0)
    next_lease = idle("gpu:0", SOMEBODY._replace(lease_id="lease-2"))
    elsewhere = replace(first, gpu=replace(first.gpu, hostname="node-2"))
    found = watch.findings([next_lease, elsewhere], AT_ONCE, 300)
    assert [each.repeated for each in found] == [False, False]


def test_a_pod_is_a_case_of_its_own_where_no_lease_is_known() -> None:
    watch = Watch()
    watch.findings([idle("gpu:0", Holder("team-a", "one"))], AT_ONCE, 0)
    (same, other) = watch.findings([idle("gpu:0", Holder("team-a", "one"), Holder("team-a", "two"))], AT_ONCE, 300)
    assert (same.repeated, other.repeated) == (True, False)
    assert same.whole


def test_of_several_holders_those_who_have_it_long_enough() -> None:
    new = SOMEBODY._replace(lease_id="lease-2", pod="new", held=10.0)
    other = SOMEBODY._replace(lease_id="lease-3", pod="other")
    found = Watch().findings([idle("gpu:0", SOMEBODY, new, other)], AT_ONCE, 0)
    assert [each.holder.pod for each in found] == ["trainer-0", "other"]


def test_a_lease_is_found_whole_when_all_its_gpus_are() -> None:
    both = SOMEBODY._replace(gpus=2)
    one_works = [idle("gpu:0", both), idle("gpu:1", both, status=Status.HIGH)]
    assert [each.whole for each in Watch().findings(one_works, AT_ONCE, 0)] == [False]
    neither = [idle("gpu:0", both), idle("gpu:1", both)]
    assert [each.whole for each in Watch().findings(neither, AT_ONCE, 0)] == [True, True]


def test_the_lowest_comes_first() -> None:
    found = Watch().findings([idle("gpu:0", score=12.0), idle("gpu:1", score=3.0)], AT_ONCE, 0)
    assert named(found) == ["gpu:1 (team-a/trainer-0, score 3)", "gpu:0 (team-a/trainer-0, score 12)"]


def test_the_table_has_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gpuarbiter_server.analysis.actions._MOST_TARGETS", 3)
    watch = Watch()
    watch.findings([idle(f"gpu:{n}") for n in range(3)], AT_ONCE, 0)
    watch.findings([idle(f"gpu:{n}") for n in range(3, 5)], AT_ONCE, 300)
    assert [target.gpu_id for target in watch._seen] == ["gpu:2", "gpu:3", "gpu:4"]


@given(st.lists(st.tuples(st.sampled_from(["idle", "busy", "away"]), st.integers(0, 3000)), max_size=40))
def test_in_any_life_it_is_told_of_after_so_many_runs_and_once_in_a_hold_down(life: list[tuple[str, int]]) -> None:
    watch, rules, now = Watch(), Rules(after_runs=2), 0
    told: float | None = None
    in_a_row = 0
    for state, pause in life:
        now += pause
        results = {"idle": [idle()], "busy": [idle(status=Status.NORMAL)], "away": []}[state]
        news = [each for each in watch.findings(results, rules, now) if not each.repeated]
        if state == "busy":
            in_a_row, told = 0, None
        elif state == "idle":
            in_a_row += 1
        elif told is None or now - told >= rules.hold_down:
            # Nothing is remembered of a GPU that is away and was told of long ago, or never.
            in_a_row, told = 0, None
        assert len(news) == (state == "idle" and in_a_row >= 2 and (told is None or now - told >= rules.hold_down))
        if news:
            told = now


def test_what_a_webhook_is_told() -> None:
    (found,) = Watch().findings([idle(score=11.456)], AT_ONCE, 0)
    assert found.facts(1_800_000_000.25) == {
        "gpu_id": "gpu:0",
        "pod": "trainer-0",
        "namespace": "team-a",
        "hostname": "node-1",
        "score": 11.46,
        "status": "low",
        "timestamp": "2027-01-15T08:00:00.250Z",
        "lease": "lease-1",
        "client_id": "",
    }


def test_a_holder_without_a_pod_goes_by_its_client_id() -> None:
    (found,) = Watch().findings([idle("gpu:0", Holder("", "", "lease-9", 600.0, client_id="asr"))], AT_ONCE, 0)
    assert found.name == "gpu:0 (asr, score 12)"
    assert found.facts(0.0)["client_id"] == "asr"


def test_a_holder_without_names_goes_by_its_lease() -> None:
    (found,) = Watch().findings([idle("gpu:0", Holder(lease_id="lease-9", held=600.0))], AT_ONCE, 0)
    assert found.name == "gpu:0 (lease-9, score 12)"
