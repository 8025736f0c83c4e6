"""Where the time of one lease goes: the CPU of the server's loop for a pair over a Session, step by step.

`python -m bench.steps` runs the whole server in this process, with a stand-in for gRPC's side of one stream, so that
what is left is what is ours. The CPU of a pair is measured without a profiler; the shares of the steps are cProfile's,
which makes small functions look dearer than they are.
"""

import asyncio
import cProfile
import os
import pstats
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

import gpuarbiter_server
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import lease_pb2
from gpuarbiter_server import app, config
from gpuarbiter_server.api import wire
from gpuarbiter_server.api.service import GpuArbiterService
from gpuarbiter_server.app import serving
from gpuarbiter_server.telemetry import logs

_PAIRS, _ROUNDS = 1_500, 5
_HOLDER = lease_pb2.Holder(client_id="bench")
_ROOT = f"{Path(gpuarbiter_server.__file__).parent}/"
# The beginning of a file's name below the package; the first that fits counts.
_STEPS = {
    "api/wire": "bytes to messages and back",
    "api/check": "the limits of the contract",
    "api/limit": "the limits of the contract",
    "api/convert_in": "messages to events",
    "api/calls": "messages to events",
    "api/convert_out": "effects to messages",
    "api/status": "effects to messages",
    "api/": "the session: calls by id, order, back-pressure",
    "core/": "decisions: queue, admission, ledger, tokens",
    "runtime/journal": "handing over to the journal",
    "runtime/": "turns: events in, effects out, timers",
    "telemetry/": "metrics, log lines, spans",
    "store/": "handing over to the history",
}


class _Stream:
    """A client's stream as a handler sees it, without gRPC."""

    def __init__(self) -> None:
        def uncounted(_direction: str, _name: str) -> Callable[[], None]:
            return lambda: None

        self.requests: asyncio.Queue[bytes] = asyncio.Queue()
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()
        self._decode = wire.decoder(pb.SessionRequest, uncounted)
        self._encode = wire.encoder(pb.SessionResponse, uncounted)

    def invocation_metadata(self) -> tuple[()]:
        """Nothing."""
        return ()

    async def read(self) -> Any:
        """The next message."""
        return self._decode(await self.requests.get())

    async def write(self, message: pb.SessionResponse) -> None:
        """Takes an answer."""
        self.answers.put_nowait(self._encode(message))


async def _pairs(service: GpuArbiterService) -> tuple[Callable[[int, int], Awaitable[None]], asyncio.Task[None]]:
    stream: Any = _Stream()
    session = asyncio.create_task(service.session(None, stream))

    async def ask(call_id: int, answers: int, **call: Any) -> None:
        stream.requests.put_nowait(pb.SessionRequest(call_id=call_id, **call).SerializeToString())
        for _ in range(answers):
            await stream.answers.get()

    async def run(first: int, count: int) -> None:
        for number in range(first, first + count):
            request = pb.AcquireRequest(request_id=f"r{number}", task_type="BENCH", holder=_HOLDER)
            await ask(2 * number + 1, 1, acquire=request)
            await ask(2 * number + 2, 2, release=pb.ReleaseRequest(request_id=f"r{number}"))

    await ask(0, 1, open=pb.SessionOpen(holder=_HOLDER))
    return run, session


async def _measure(durability: str) -> tuple[float, float, Counter[str]]:
    """CPU seconds of a pair, on the loop's thread and on all; and the steps' time under the profiler."""
    made: list[GpuArbiterService] = []

    def keeping(*arguments: Any) -> GpuArbiterService:
        made.append(GpuArbiterService(*arguments))
        return made[0]

    serving.GpuArbiterService = keeping  # type: ignore[assignment, misc]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_RUNTIME_DIR"] = folder
        settings = config.load(
            None,
            {},
            [
                "gpus=[{key: 'gpu:0', memory: 24GiB}]",
                f"listen={{grpc: off, http: '127.0.0.1:0', socket: '{folder}/a.sock'}}",
                f"journal={{path: {folder}/state, durability: {durability}}}",
                "log_level=warning",
            ],
        )
        ready = asyncio.Event()
        writer = logs.start()
        server = asyncio.create_task(app.serve(settings, log_writer=writer, ready=lambda _: ready.set()))
        await ready.wait()
        run, session = await _pairs(made[0])
        await run(0, 200)
        times = []
        for turn in range(1, _ROUNDS + 1):
            loop, everything = time.thread_time(), time.process_time()
            await run(turn * _PAIRS, _PAIRS)
            times.append(((time.thread_time() - loop) / _PAIRS, (time.process_time() - everything) / _PAIRS))
        profile = cProfile.Profile()
        profile.enable()
        await run((_ROUNDS + 1) * _PAIRS, _PAIRS)
        profile.disable()
        session.cancel()
        os.kill(os.getpid(), signal.SIGTERM)
        await server
        writer.close()
    return min(loop for loop, _ in times), min(all_ for _, all_ in times), _by_step(profile)


def _by_step(profile: cProfile.Profile) -> Counter[str]:
    """What is written in C counts for whoever calls it."""
    spent: Counter[str] = Counter()
    for (file, _, _), (_, _, own, _, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if file == "~":
            for (caller, _, _), (_, _, share, _) in callers.items():
                spent[_step(caller)] += share
        else:
            spent[_step(file)] += own
    return spent


def _step(file: str) -> str:
    inside = file.removeprefix(_ROOT)
    if inside == file:
        return "asyncio, protobuf, and the stand-in for gRPC"
    return next((step for start, step in _STEPS.items() if inside.startswith(start)), "the rest")


def main() -> None:
    """Prints a table for each durability."""
    for durability in ("memory", "full"):
        loop, everything, steps = uvloop.run(_measure(durability))
        total = sum(steps.values())
        cpu = f"{loop * 1e6:.0f} µs of the loop, {everything * 1e6:.0f} of all threads"
        print(f"\njournal.durability: {durability}: {cpu}\n")
        print("| step | µs |\n| --- | --- |")
        for step, spent in steps.most_common():
            print(f"| {step} | {spent / total * loop * 1e6:.0f} |")


if __name__ == "__main__":
    main()
