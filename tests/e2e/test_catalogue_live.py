"""A real Prometheus scrapes a real arbiter under the mixed load: every metric is there, and exemplars lead to traces.

Scrapes for some seconds, and for as many as GPU_ARBITER_SOAK says (120 when it says nothing sensible).
"""

import asyncio
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.harness.client import Client, acquire_request
from e2e.harness.mixed_load import SETTINGS, MixedLoad
from e2e.harness.otlp import Receiver
from e2e.harness.prometheus import Prometheus, scrape
from fakes.nvml import FakeNvml
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter_server.telemetry.catalogue import CATALOGUE, Metric
from support import soak
from support.messages import holder
from support.process import Arbiterd

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]
Tool = Callable[[str], str]

_LONGEST_SECONDS = 60.0
_INTERVAL_SECONDS = 0.2
# Lasts only while something goes wrong; shown elsewhere.
NEVER_HERE = {"gpu_arbiter_spans_dropped_total", "gpu_arbiter_journal_errors_total"}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.close()


def moved(metric: Metric) -> str:
    """A query that answers once the metric has shown something, and not just that it is there."""
    name = f"{metric.full_name}_count" if metric.kind == "histogram" else metric.full_name
    if metric.full_name in NEVER_HERE or metric.kind == "gauge":
        return name
    return f"{name} > 0"


@pytest.mark.tool("prometheus")
@pytest.mark.timeout(400)
async def test_every_metric_of_the_catalogue_exists_and_exemplars_lead_to_their_traces(
    arbiterd: Start, tool: Tool, tmp_path: Path, receiver: Receiver
) -> None:
    fake = FakeNvml(tmp_path, gpus=2)
    arbiter = arbiterd(*SETTINGS, more=fake.env | receiver.env)
    config = scrape("gpu-arbiter", arbiter.http, "1s")
    asked = {metric.full_name: moved(metric) for metric in CATALOGUE}
    began = time.time()
    least = soak.duration(0.0, long=120.0)
    with Prometheus(tool("prometheus"), config, tmp_path / "prometheus") as prometheus:
        async with MixedLoad(arbiter, fake) as load:
            while (asked and time.time() < began + _LONGEST_SECONDS) or time.time() < began + least:
                load.check()
                asked = {name: query for name, query in asked.items() if not prometheus.query(query)}
                await asyncio.sleep(_INTERVAL_SECONDS)
        assert asked == {}
        assert prometheus.problems() == []
        traces = {span.trace_id.hex(): span.name for span in list(receiver.spans)}
        for name, span in (("queue_wait", "gpu_lease.acquire"), ("lease_hold", "gpu_lease.hold")):
            series = f"gpu_arbiter_{name}_seconds_bucket"
            found = [
                exemplar["labels"]
                for each in prometheus.exemplars(series, began, time.time())
                for exemplar in each["exemplars"]
            ]
            assert found, series
            exported = {(each.trace_id.hex(), each.span_id.hex()) for each in receiver.named(span)}
            # The last may be on their way still.
            known = [labels for labels in found if (labels["trace_id"], labels["span_id"]) in exported]
            assert len(known) >= len(found) - 5, (len(known), len(found))
        assert traces


@pytest.mark.tool("promtool")
def test_promtool_finds_nothing_wrong_with_the_page(arbiterd: Start, tool: Tool) -> None:
    arbiter = arbiterd("policies.ASR={hold_objective: 5s}")
    with urllib.request.urlopen(f"http://{arbiter.http}/metrics") as page:
        text = page.read()
    checked = subprocess.run([tool("promtool"), "check", "metrics"], input=text, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


async def test_ten_thousand_names_from_hostile_clients_do_not_lengthen_the_page(
    arbiterd: Start, connect: Connect
) -> None:
    # What comes of an analysis is new on the page, and none of theirs.
    settings = ("cooldown=0s", "log_level=warning", "telemetry.namespaces=[team-a]", "analysis.enabled=false")
    arbiter = arbiterd(*settings)
    client = connect(arbiter)

    def lines() -> int:
        with urllib.request.urlopen(f"http://{arbiter.http}/metrics") as page:
            return sum(not line.startswith(b"#") for line in page.read().splitlines())

    session = client.session()
    await session.write(pb.SessionRequest(call_id=1, open={"holder": holder("hostile")}))
    await session.read()

    async def one(number: int) -> None:
        who = holder(f"client-{number}", namespace=f"namespace-{number}", pod=f"pod-{number}")
        request = acquire_request(f"task-{number}", who, request_id=f"request-{number}")
        await session.write(pb.SessionRequest(call_id=2 * number, acquire=request))
        await session.write(pb.SessionRequest(call_id=2 * number + 1, cancel={"acquire_call_id": 2 * number}))
        while (await session.read()).call_id != 2 * number + 1:
            pass

    await one(1)
    before = lines()
    for number in range(2, 10_000):
        await one(number)
    session.cancel()
    assert lines() == before
