"""Holders as processes that can be killed, stopped and continued."""

import asyncio
import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToJson

from e2e.harness.client import acquire_request
from e2e.harness.waiting import PATIENCE_SECONDS

_PROGRAM = Path(__file__).with_name("holder_main.py")


class Told:
    """A process that tells lines of JSON, each with its `event`."""

    def __init__(self, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    async def next(self) -> dict[str, Any]:
        """The next line."""
        line = await asyncio.to_thread(self._lines.get, timeout=PATIENCE_SECONDS)
        assert line, f"{self.process.args} ended"
        told: dict[str, Any] = json.loads(line)
        return told

    async def until(self, event: str) -> dict[str, Any]:
        """The next line of this event; others before it are passed over, except for failures."""
        while (told := await self.next())["event"] != event:
            assert told["event"] != "failed", told
        return told

    def send(self, command: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL; returns once the process is gone."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        self.kill()
        self._reader.join()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")


class Holder(Told):
    """One that speaks the bare contract; `how` it says who it is: pid, attestation=PATH or nobody."""

    def __init__(self, target: str, how: str = "pid", **request: Any) -> None:
        wishes = acquire_request(**{"client": "holder"} | request)
        super().__init__([sys.executable, _PROGRAM, target, MessageToJson(wishes), how])
        self._children: list[int] = []

    async def ready(self) -> None:
        await self.until("ready")

    async def child(self) -> int:
        """Has it start a process that outlives it; its pid."""
        self.send("child")
        self._children.append((await self.until("child"))["pid"])
        return self._children[-1]

    async def granted(self) -> dict[str, Any]:
        """Has it ask, and waits for the lease (as JSON of the contract)."""
        self.send("acquire")
        lease: dict[str, Any] = (await self.until("granted"))["message"]["lease"]
        return lease

    async def ask(self, command: str, answer: str) -> dict[str, Any]:
        self.send(command)
        return await self.until(answer)

    def close(self) -> None:
        super().close()
        for pid in self._children:
            end(pid)


def end(pid: int) -> None:
    """SIGKILL for a process of ours that is not our child; fine when it is gone."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
