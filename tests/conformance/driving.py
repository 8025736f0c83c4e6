"""A client library behind the driver protocol: a program that reads commands and writes answers, as lines of JSON.

Law: every command has one answer, whenever it comes; what holders are told comes as events in between. A driver that
ends without having been asked to fails whatever waits for it, at once.
"""

import itertools
import json
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

# What a driver may need to start on a busy machine, and to end: it gives back what is held.
_START_SECONDS = 60.0
_END_SECONDS = 20.0


class DeviationError(AssertionError):
    """The client, or the arbiter, did something else than the scenario says."""


class Mailbox:
    """What the drivers of one scenario have said so far."""

    def __init__(self) -> None:
        self._news = threading.Condition()
        self.answers: dict[int, dict[str, Any]] = {}
        # For each name of a lease, in their order.
        self.events: dict[str, list[dict[str, Any]]] = {}
        self.said: list[str] = []
        self._failure = ""

    def put(self, line: str) -> None:
        """Takes in a line of a driver."""
        with self._news:
            self.said.append(f"<- {line.strip()}")
            try:
                message = json.loads(line)
                if "event" in message:
                    self.events.setdefault(message["lease"], []).append(message)
                else:
                    self.answers[message["id"]] = message
            except (ValueError, KeyError, TypeError) as error:
                self._failure = f"a driver wrote {line!r}: {error!r}"
            self._news.notify_all()

    def fail(self, why: str) -> None:
        """Nothing more can be expected."""
        with self._news:
            self._failure = why
            self._news.notify_all()

    def wait(self, look: Callable[[], T | None], within: float, what: str) -> T:
        """What `look` finds, once it finds something.

        Raises:
            DeviationError: it does not in time.
        """
        deadline = time.monotonic() + within
        with self._news:
            while (found := look()) is None:
                if self._failure:
                    raise DeviationError(self._failure)
                left = deadline - time.monotonic()
                if left <= 0:
                    raise DeviationError(f"waited {within:g} s in vain for {what}")
                self._news.wait(left)
        return found


class Driver:
    """A driver's process."""

    _numbers = itertools.count(1)

    def __init__(self, command: Sequence[str], env: Mapping[str, str], folder: Path, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._errors = folder / f"driver-{next(self._numbers)}.log"
        with self._errors.open("w") as errors:
            self.process = subprocess.Popen(
                command, env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
            )
        # It is killed, or told to end.
        self._over = False
        self.killed = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def errors(self) -> str:
        """What it wrote to stderr."""
        return self._errors.read_text()

    def send(self, op: str, **fields: Any) -> int:
        """Sends a command; returns its number."""
        number = next(self._numbers)
        line = json.dumps({"id": number, "op": op, **fields}, allow_nan=False)
        self._mailbox.said.append(f"-> {line}")
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(f"{line}\n")
            self.process.stdin.flush()
        except OSError as error:
            raise DeviationError(f"the driver is gone: {error}\n{self.errors}") from error
        return number

    def ask(self, op: str, within: float = _START_SECONDS, **fields: Any) -> dict[str, Any]:
        """Sends a command and waits for its answer."""
        return self.answer(self.send(op, **fields), within, op)

    def answer(self, number: int, within: float, what: str) -> dict[str, Any]:
        """The answer to a command."""
        answer = self._mailbox.wait(lambda: self._mailbox.answers.get(number), within, f"the answer to {what}")
        if answer["kind"] == "failed":
            raise DeviationError(f"the driver failed in {what}: {answer['message']}\n{self.errors}")
        return answer

    def kill(self) -> None:
        """SIGKILL."""
        self._over = self.killed = True
        self.process.kill()
        self._close()

    def end(self) -> None:
        """Has it close its clients and end.

        Raises:
            DeviationError: it does not end, or not well.
        """
        self._over = True
        if self.process.poll() is None:
            assert self.process.stdin is not None
            self.process.stdin.close()
            try:
                self.process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise DeviationError(f"the driver did not end within {_END_SECONDS:g} s\n{self.errors}") from None
        self._close()
        if self.process.returncode or "Traceback" in self.errors:
            raise DeviationError(f"the driver ended with {self.process.returncode}\n{self.errors}")

    def _close(self) -> None:
        self.process.wait(_END_SECONDS)
        self._reader.join(_END_SECONDS)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._mailbox.put(line)
        if not self._over:
            self._mailbox.fail(f"the driver ended with {self.process.wait()}\n{self.errors}")
