"""The page as a scraper reads it, in both formats, and the text of single series."""

import math
from itertools import pairwise

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_families
from prometheus_client.parser import text_string_to_metric_families as classic_families

from gpuarbiter_server.telemetry import exposition, series
from gpuarbiter_server.telemetry.catalogue import CATALOGUE, Label, Metric
from gpuarbiter_server.telemetry.catalogue import Values as Domain
from gpuarbiter_server.telemetry.series import MOST_EXPECTED, Distributions, Facts, Values, escaped, number
from support.messages import acquire, release
from support.server import serving

COUNTER = Metric("things", "counter", "Things.", (Label("kind", Domain.FREE),))
GAUGE = Metric("level", "gauge", "Level.", (Label("kind", Domain.FREE),))
HISTOGRAM = Metric("took_seconds", "histogram", "Took.", (Label("kind", Domain.FREE),), (0.1, 1.0))


def text(*families: exposition.Family, openmetrics: bool = False) -> str:
    return b"".join(exposition.parts(families, openmetrics=openmetrics)).decode()


async def test_both_formats_parse_and_show_the_same_samples():
    async with serving("policies.ASR.priority=90") as arbiter:
        _, lease = await arbiter.granted(acquire())
        await arbiter.stub.Release(release(lease))
        await arbiter.snapshot()
        classic = b"".join(arbiter.page()).decode()
        modern = b"".join(arbiter.page(openmetrics=True)).decode()
    assert modern.endswith("\n# EOF\n")
    assert modern.count("# EOF") == 1
    shown = [
        {(sample.name, *sorted(sample.labels.items())) for family in families for sample in family.samples}
        for families in (classic_families(classic), open_families(modern))
    ]
    assert shown[0] == shown[1]
    assert {family.name for family in open_families(modern)} == {metric.family_name for metric in CATALOGUE}


async def test_no_series_is_there_twice_and_the_samples_of_a_family_stand_together():
    async with serving(gpus=2) as arbiter:
        lines = b"".join(arbiter.page()).decode().splitlines()
    series = [line.rsplit(" ", 1)[0] for line in lines if not line.startswith("#")]
    assert len(set(series)) == len(series)
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(set(names)) == len(names)


def test_a_page_comes_in_parts_that_are_whole_lines():
    values = Values(GAUGE)
    for index in range(5_000):
        values[f"kind-{index}",].set(index)
    parts = list(exposition.parts([values], openmetrics=True))
    assert len(parts) > 3
    assert all(part.endswith(b"\n") for part in parts)
    assert max(map(len, parts)) < 50_000
    assert b"".join(parts).count(b"\n") == 5_000 + 3


@pytest.mark.parametrize("value", ["a", 'say "x"', "back\\slash", "two\nlines", "", "ünï", "{}=,"])
def test_whatever_a_label_says_it_is_read_back(value: str):
    values = Values(GAUGE)
    values[value,].set(1.5)
    for families in (classic_families(text(values)), open_families(text(values, openmetrics=True))):
        ((sample,),) = [family.samples for family in families]
        assert (sample.labels, sample.value) == ({"kind": value}, 1.5)
    assert "\n" not in escaped(value)


@pytest.mark.parametrize("value", [0, 1, -1, 0.1, 1e-9, 2**53, 2**63, 1.7e300, 24 * 1024**3, math.inf, -math.inf, 1e22])
def test_a_number_is_read_back_as_it_was(value: float):
    assert float(number(value)) == value


def test_what_is_no_number_says_so():
    assert number(math.nan) == "NaN"


def test_a_value_is_shown_as_it_is_now():
    values = Values(COUNTER)
    series = values["a",]
    for expected in (1, 2, 5):
        series.inc(expected - (series.value or 0))
        assert f'gpu_arbiter_things_total{{kind="a"}} {expected}\n' in text(values)


def test_too_many_label_sets_come_with_their_first_use():
    few, many = Values(COUNTER), Values(COUNTER)
    few.expect(str(number) for number in range(MOST_EXPECTED))
    many.expect(str(number) for number in range(MOST_EXPECTED + 1))
    assert (len(few), len(many)) == (MOST_EXPECTED, 0)
    many["7",].inc()
    assert 'gpu_arbiter_things_total{kind="7"} 1\n' in text(many)


def test_a_gauge_without_a_value_is_not_shown_but_keeps_its_family():
    values = Values(GAUGE, start=None)
    values["a",].set(3)
    values["a",].set(None)
    assert text(values) == "# HELP gpu_arbiter_level Level.\n# TYPE gpu_arbiter_level gauge\n"
    values["a",].set(0)
    assert text(values).endswith('gpu_arbiter_level{kind="a"} 0\n')


def test_buckets_count_what_is_at_most_their_bound():
    times = Distributions(HISTOGRAM)
    for value in (0.05, 0.1, 0.5, 1.0, 2.0, 3.0):
        times["a",].observe(value)
    (family,) = classic_families(text(times))
    shown = {(sample.name.rsplit("_", 1)[1], sample.labels.get("le")): sample.value for sample in family.samples}
    assert shown == {
        ("bucket", "0.1"): 2,
        ("bucket", "1.0"): 4,
        ("bucket", "+Inf"): 6,
        ("count", None): 6,
        ("sum", None): pytest.approx(6.65),
    }
    buckets = [value for (kind, _), value in shown.items() if kind == "bucket"]
    assert all(low <= high for low, high in pairwise(buckets))


def test_what_is_observed_while_a_page_is_made_is_on_the_next_one(monkeypatch: pytest.MonkeyPatch):
    times = Distributions(HISTOGRAM)
    times["a",].observe(0.5)
    values = Values(COUNTER)
    values["a",].inc()

    def meanwhile(value: float) -> str:
        """Another thread has its turn while a number is written."""
        monkeypatch.undo()
        times["a",].observe(0.5)
        values["a",].inc()
        return number(value)

    families: tuple[tuple[exposition.Family, str], ...] = (
        (times, '_count{kind="a"} 2\n'),
        (values, '_total{kind="a"} 3\n'),
    )
    for family, expected in families:
        monkeypatch.setattr(series, "number", meanwhile)
        text(family)
        assert expected in text(family)


def test_exemplars_stand_in_openmetrics_alone_at_the_bucket_of_their_value():
    times = Distributions(HISTOGRAM)
    times["a",].observe(0.5, ("f" * 32, "1" * 16))
    times["a",].observe(0.6)
    assert "trace_id" not in text(times)
    (family,) = open_families(text(times, openmetrics=True))
    exemplars = {sample.labels["le"]: sample.exemplar for sample in family.samples if sample.exemplar}
    assert set(exemplars) == {"1.0"}
    assert exemplars["1.0"].labels == {"trace_id": "f" * 32, "span_id": "1" * 16}
    assert exemplars["1.0"].value == 0.5
    times["a",].observe(0.7, ("e" * 32, "2" * 16))
    assert "f" * 32 not in text(times, openmetrics=True)
    assert "trace_id" not in text(times)


def test_a_text_that_is_no_text_does_not_cost_the_page():
    facts = Facts(Metric("thing", "info", "A thing.", (Label("name", Domain.FREE),)), [(("a\ud800b",), 1)])
    assert 'name="a?b"' in text(facts)


def test_facts_are_written_as_they_are_given():
    facts = Facts(Metric("thing", "info", "A thing.", (Label("name", Domain.FREE),)), [(("a",), 1), (("b",), 1)])
    assert text(facts) == (
        "# HELP gpu_arbiter_thing_info A thing.\n# TYPE gpu_arbiter_thing_info gauge\n"
        'gpu_arbiter_thing_info{name="a"} 1\ngpu_arbiter_thing_info{name="b"} 1\n'
    )
    assert "# TYPE gpu_arbiter_thing info\n" in text(facts, openmetrics=True)
