"""A source: a Prometheus that scrapes DCGM exporters. One range query for each metric, however many GPUs there are.

Law: every wait and every answer has a bound. A query that fails fails the run (the last result stays); a metric that
is not there is only missing.
"""

import asyncio
import contextlib
import json
import math
from collections.abc import Callable
from typing import Any

import httpx

from gpuarbiter_server.analysis import dcgm
from gpuarbiter_server.analysis.dcgm import Series
from gpuarbiter_server.analysis.model import GpuWindow
from gpuarbiter_server.analysis.sources import SourceError

# 10,000 GPUs with 20 steps are 8 MB.
_MOST_BYTES = 64 * 1024**2
_SHOWN = 200


class Prometheus:
    """The GPUs that a selector, such as `{pod!=""}`, finds.

    url: with user:password@ where it asks for those. window, step, timeout: seconds; timeout is that of one query.
    wall: seconds since 1970.
    """

    name = "Prometheus"

    def __init__(
        self,
        url: str,
        *,
        selector: str,
        window: float,
        step: float,
        timeout: float,
        max_workers: int,
        wall: Callable[[], float],
    ) -> None:
        self._selector = selector
        self._step = step
        self._steps = max(1, round(window / step))
        self._timeout = timeout
        self._wall = wall
        # One answer at a time: threads that read several leave the loop one turn in so many.
        self._reading = asyncio.Lock()
        self._turns = asyncio.Semaphore(max_workers)
        self._client = client(url, timeout)

    async def windows(self) -> list[GpuWindow]:
        """Every GPU that has samples in the window that ends now; SourceError when a query fails."""
        end = self._wall()
        found: dict[str, list[Series]] = {}

        async def find(metric: str) -> None:
            found[metric] = await self._range(metric, end)

        try:
            async with asyncio.TaskGroup() as queries:
                for metric in dcgm.METRICS:
                    queries.create_task(find(metric))
        except ExceptionGroup as group:
            # The cause is one as a rule: the first says it, and has ended the others.
            raise group.exceptions[0] from None
        return await asyncio.to_thread(self._windows, found)

    def _windows(self, found: dict[str, list[Series]]) -> list[GpuWindow]:
        made = dcgm.windows(found, steps=self._steps, step=self._step)
        # Here, on a thread: to give back what a large fleet takes would hold up the loop.
        found.clear()
        return made

    async def close(self) -> None:
        """Hangs up."""
        await self._client.aclose()

    async def _range(self, metric: str, end: float) -> list[Series]:
        query = {
            "query": f"{dcgm.PREFIX}{metric}{self._selector}",
            "start": f"{end - (self._steps - 1) * self._step:.3f}",
            "end": f"{end:.3f}",
            "step": f"{self._step:g}",
        }
        async with self._turns:
            try:
                async with asyncio.timeout(self._timeout):
                    body = await self._ask(query)
            except TimeoutError:
                raise SourceError(f"no answer to {query['query']} within {self._timeout:g} s") from None
            except httpx.HTTPError as error:
                raise SourceError(f"{query['query']}: {error or type(error).__name__}") from None
        async with self._reading:
            return await asyncio.to_thread(_series, body, query["query"])

    async def _ask(self, query: dict[str, str]) -> bytes:
        body = bytearray()
        async with self._client.stream("POST", "/api/v1/query_range", data=query) as answer:
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > _MOST_BYTES:
                    raise SourceError(f"the answer to {query['query']} has more than {_MOST_BYTES >> 20} MiB")
        return bytes(body)


def client(url: str, timeout: float) -> httpx.AsyncClient:
    """A client of this address alone. The password is kept out of what it says of itself, such as log lines."""
    address = httpx.URL(url)
    auth = httpx.BasicAuth(address.username, address.password) if address.userinfo else None
    # What the environment says of proxies is meant for the internet.
    return httpx.AsyncClient(base_url=address.copy_with(userinfo=b""), auth=auth, timeout=timeout, trust_env=False)


def _series(body: bytes, query: str) -> list[Series]:
    """The series of an answer; SourceError where it is none."""
    found: Any = None
    # What it has too little of, or of another kind, is told below.
    with contextlib.suppress(ValueError, TypeError, KeyError, AttributeError, RecursionError):
        answer = json.loads(body, object_hook=_series_or_other)
        if answer["status"] != "success":
            raise SourceError(f"{query}: {str(answer.get('error'))[:_SHOWN]}")
        found = answer["data"]["result"]
    if not isinstance(found, list) or not all(isinstance(each, Series) for each in found):
        raise SourceError(f"{query}: this is no answer of a Prometheus: {body[:_SHOWN]!r}")
    return found


def _series_or_other(said: dict[str, Any]) -> Any:
    """A part of an answer. A series is made of it as soon as it is read: its many lists are not gathered first."""
    if not {"metric", "values"} <= said.keys():
        return said
    return Series(
        {str(name): str(value) for name, value in said["metric"].items()},
        {float(at): value for at, text in said["values"] if math.isfinite(value := float(text))},
    )
