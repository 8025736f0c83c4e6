"""What is asked of a Prometheus, and what becomes of answers that are none."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from gpuarbiter_server.analysis import prometheus
from gpuarbiter_server.analysis.prometheus import Prometheus
from gpuarbiter_server.analysis.sources import SourceError

Handler = Callable[[httpx.Request], Coroutine[Any, Any, httpx.Response]]
NOON = 1_800_000_000.0


def source(handler: Handler, *, timeout: float = 10.0, max_workers: int = 2) -> Prometheus:
    made = Prometheus(
        "http://prometheus:9090/prefix",
        selector='{pod!=""}',
        window=600.0,
        step=30.0,
        timeout=timeout,
        max_workers=max_workers,
        wall=lambda: NOON,
    )
    made._client = httpx.AsyncClient(transport=httpx.MockTransport(handler), base_url="http://prometheus:9090/prefix")
    return made


def asked(request: httpx.Request) -> dict[str, str]:
    return {name: value for name, (value,) in parse_qs(request.content.decode()).items()}


def answer(*result: dict[str, Any]) -> httpx.Response:
    return httpx.Response(200, json={"status": "success", "data": {"resultType": "matrix", "result": list(result)}})


async def test_a_password_is_sent_and_not_said(caplog: pytest.LogCaptureFixture):
    sent: list[str] = []

    def handler(request: httpx.Request) -> httpx.Response:
        sent.append(request.headers["authorization"])
        return answer()

    for url, expected in (
        ("http://us%3Aer:s%40cret@prometheus:9090/prefix", httpx.BasicAuth("us:er", "s@cret")),
        ("http://token@prometheus:9090", httpx.BasicAuth("token", "")),
    ):
        made = prometheus.client(url, 1.0)
        made._transport = httpx.MockTransport(handler)
        with caplog.at_level(logging.DEBUG):
            asked = await made.post("/api/v1/query_range")
        assert sent.pop() == expected._auth_header
        assert "@" not in str(asked.request.url)
        await made.aclose()
    assert "HTTP Request" in caplog.text
    assert "cret" not in caplog.text


async def test_an_address_without_a_password_is_asked_without_one():
    made = prometheus.client("http://prometheus:9090/prefix", 1.0)
    made._transport = httpx.MockTransport(lambda request: httpx.Response(200, text=str(request.headers)))
    assert "authorization" not in (await made.get("/")).text
    await made.aclose()


async def test_each_metric_is_asked_for_once_whatever_the_number_of_gpus_and_not_all_at_a_time():
    queries: list[dict[str, str]] = []
    under_way, most = 0, 0

    async def handler(request: httpx.Request) -> httpx.Response:
        nonlocal under_way, most
        assert request.url.path == "/prefix/api/v1/query_range"
        query = asked(request)
        queries.append(query)
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0)
        under_way -= 1
        if "GPU_UTIL" not in query["query"]:
            return answer()
        values = [[NOON - 30, "50"], [NOON, "75"], [NOON - 60, "NaN"]]
        return answer(*({"metric": {"UUID": f"GPU-{each:03}"}, "values": values} for each in range(500)))

    made = source(handler)
    found = await made.windows()
    await made.close()
    assert len(found) == 500
    assert [sample.utilization for sample in found[0].samples] == [0.5, 0.75]
    assert found[0].steps == 20
    assert sorted(query["query"] for query in queries) == sorted(
        f'DCGM_FI_DEV_{name}{{pod!=""}}'
        for name in (
            *("GPU_UTIL", "MEM_COPY_UTIL", "FB_USED", "FB_FREE"),
            *("POWER_USAGE", "POWER_MGMT_LIMIT", "SM_CLOCK"),
        )
    )
    assert {(query["start"], query["end"], query["step"]) for query in queries} == {
        ("1799999430.000", "1800000000.000", "30")
    }
    assert most == 2


@pytest.mark.parametrize(
    ("response", "said"),
    [
        (httpx.Response(200, text="<html>"), "this is no answer of a Prometheus: b'<html>'"),
        (httpx.Response(502, text="bad gateway"), "this is no answer of a Prometheus: b'bad gateway'"),
        (httpx.Response(200, text="[]"), "this is no answer of a Prometheus"),
        (httpx.Response(200, text='{"status": "success", "data": {}}'), "this is no answer of a Prometheus"),
        (httpx.Response(400, json={"status": "error", "error": "parse error"}), 'GPU_UTIL{pod!=""}: parse error'),
        (httpx.Response(200, text="[" * 100_000), "this is no answer of a Prometheus"),
        (answer({"metric": {}}), "this is no answer of a Prometheus"),
        (httpx.Response(200, json={"status": "success", "data": {"result": "x"}}), "this is no answer of a Prometheus"),
        (answer({"metric": {}, "values": [["x", "y"]]}), "this is no answer of a Prometheus"),
        (httpx.Response(200, text="x" * 2000), "has more than 0 MiB"),
    ],
)
async def test_an_answer_that_is_none_fails_the_run_and_is_named(
    response: httpx.Response, said: str, monkeypatch: pytest.MonkeyPatch
):
    if "MiB" in said:
        monkeypatch.setattr(prometheus, "_MOST_BYTES", 1000)

    async def handler(request: httpx.Request) -> httpx.Response:
        return response if "GPU_UTIL" in asked(request)["query"] else answer()

    made = source(handler)
    with pytest.raises(SourceError) as caught:
        await made.windows()
    assert said in str(caught.value)
    assert len(str(caught.value)) < 400
    await made.close()


async def test_one_that_is_not_there_or_does_not_answer_fails_the_run():
    async def refuses(_request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("All connection attempts failed")

    async def drips() -> AsyncIterator[bytes]:
        while True:
            yield b" "
            await asyncio.sleep(0.001)

    async def hangs(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=drips())

    for handler, said in ((refuses, "All connection attempts failed"), (hangs, "no answer to DCGM_FI_DEV_")):
        made = source(handler, timeout=0.05)
        with pytest.raises(SourceError, match=said):
            await made.windows()
        await made.close()
