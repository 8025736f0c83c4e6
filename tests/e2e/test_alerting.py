"""From the arbiter to whoever is on call: a real Prometheus scrapes it, a real Alertmanager sends the page and its end.

The rules, the routes and the inhibitions are those of deploy/, hastened as e2e/harness/shipped.py says.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.harness import shipped
from e2e.harness.arbiters import holds
from e2e.harness.client import Client
from e2e.harness.prometheus import Alertmanager, Prometheus
from e2e.harness.waiting import eventually
from e2e.harness.webhook import Webhook
from gpuarbiter.v1 import lease_pb2
from support import messages
from support.process import Arbiterd

pytestmark = [pytest.mark.tool("prometheus"), pytest.mark.tool("prometheus-alertmanager")]

Start = Callable[..., Arbiterd]
Connect = Callable[[Arbiterd], Client]
Watch = Callable[[Arbiterd], Prometheus]
# Who overstays is asked to yield and never made to, or is not even asked.
WATCHDOGS = {"asks": "{grace: 100ms, revoke: false}", "warns": "{yield: false, revoke: false}"}


@pytest.fixture
def pager() -> Iterator[Webhook]:
    with Webhook() as webhook:
        yield webhook


@pytest.fixture
def watch(pager: Webhook, tool: Callable[[str], str], tmp_path: Path) -> Iterator[Watch]:
    """Has an arbiter watched by a Prometheus and an Alertmanager that pages `pager`."""
    running: list[Prometheus] = []
    with Alertmanager(
        tool("prometheus-alertmanager"), shipped.alertmanager(pager.address), tmp_path / "alertmanager"
    ) as alertmanager:

        def start(arbiter: Arbiterd) -> Prometheus:
            config = shipped.prometheus(tmp_path / "rules", arbiter.http, alertmanager.address)
            running.append(Prometheus(tool("prometheus"), config, tmp_path / "prometheus"))
            return running[-1]

        yield start
        for each in running:
            each.close()


@pytest.mark.parametrize("watchdog", WATCHDOGS.values(), ids=WATCHDOGS)
async def test_a_holder_that_hangs_pages_and_its_end_is_told(
    watchdog: str, arbiterd: Start, connect: Connect, watch: Watch, pager: Webhook
):
    arbiter = arbiterd(f"policies.SHORT={{max_hold: 100ms, watchdog: {watchdog}}}", "gpus=sim:2x24GiB")
    prometheus = watch(arbiter)
    client = connect(arbiter)
    stream = client.acquire("SHORT", client="overstays", candidates=["gpu:1"])
    lease = await stream.granted()
    waiting = client.acquire(client="next", candidates=["gpu:1"], max_wait=60.0)
    await waiting.waits_for("GPU_BUSY")
    hung = {"alertname": "HolderHung"}
    await holds(lambda: pager.told("firing", hung), "the page")
    page = pager.told("firing", hung)[0]
    assert page.path == "/page"
    assert page.labels == {
        "alertname": "HolderHung",
        "severity": "critical",
        "job": "gpu-arbiter",
        "instance": arbiter.http,
        "gpu": "gpu:1",
    }
    assert page.annotations["summary"] == (
        f"A lease on gpu:1 of {arbiter.http} is held past its limit while requests wait."
    )
    assert page.annotations["runbook_url"].endswith("/runbooks/HolderHung")
    assert pager.told("resolved", hung) == []
    await client.release(lease)
    await waiting.granted()
    await holds(lambda: pager.told("resolved", hung), "the word that it is over")
    assert prometheus.problems() == []


async def test_an_arbiter_that_is_away_pages_and_its_return_is_told(arbiterd: Start, watch: Watch, pager: Webhook):
    arbiter = arbiterd()
    prometheus = watch(arbiter)
    await holds(lambda: prometheus.value("up") == 1, "the first scrape")
    down = {"alertname": "ArbiterDown", "instance": arbiter.http}
    assert pager.told("firing", down) == []
    assert arbiter.stop() == 0
    await holds(lambda: pager.told("firing", down), "the page")
    page = pager.told("firing", down)[0]
    assert page.path == "/page"
    assert page.labels == {
        "alertname": "ArbiterDown",
        "severity": "critical",
        "job": "gpu-arbiter",
        "instance": arbiter.http,
    }
    assert pager.told("resolved", down) == []
    again = arbiterd(f"listen.http={arbiter.http}")
    assert again.http == arbiter.http
    await holds(lambda: pager.told("resolved", down), "the word that it is back")
    assert prometheus.problems() == []


async def test_every_recording_rule_has_a_value_while_there_is_work(arbiterd: Start, connect: Connect, watch: Watch):
    arbiter = arbiterd("policies.ASR={priority: 90}", "gpus=sim:2x24GiB", "telemetry.namespaces=[team-a]")
    prometheus = watch(arbiter)
    client = connect(arbiter)
    names = {rule["record"] for group in shipped.groups() for rule in group["rules"] if "record" in rule}
    report = {"result": lease_pb2.WORK_RESULT_OK, "device": lease_pb2.WORK_DEVICE_GPU}

    async def work() -> set[str]:
        who = messages.holder("worker", namespace="team-a")
        lease = await client.acquire("ASR", who).granted()
        await client.release(lease, report=report)
        return names - {sample["metric"]["__name__"] for sample in prometheus.query('{__name__=~".+:gpu_arbiter_.+"}')}

    async def all_have() -> bool:
        return not await work()

    await eventually(all_have, "a value of every recording rule")
    # With real series, too, what is matched goes together; and of an arbiter that is well nothing is told.
    assert prometheus.problems() == []
    assert [each["labels"] for each in prometheus.alerts() if each["state"] == "firing"] == []
