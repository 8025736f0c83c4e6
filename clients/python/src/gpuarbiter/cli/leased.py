"""The part of `gpu-arbiter run` between the grant and the release.

Law: the lease is held in the guard's name, and given back only when the command and all it left running are gone.
"""

import argparse
import queue
import signal
import time
from contextlib import nullcontext

from gpuarbiter import Arbiter, Lease, LeaseOptions, WorkReport, _holder
from gpuarbiter._guard.command import Guarded, Unguarded
from gpuarbiter._values import WorkResult
from gpuarbiter.cli import exit_codes, granted, ready
from gpuarbiter.cli.asking import Asking
from gpuarbiter.cli.client import connect
from gpuarbiter.cli.forwarding import Signals
from gpuarbiter.cli.granted import Granted
from gpuarbiter.cli.news import Asked, Lost
from gpuarbiter.cli.output import Messages
from gpuarbiter.cli.supervisor import Supervisor
from gpuarbiter.cli.terminal import Terminal

# How long what is to end has before it is killed.
END_SECONDS = 10.0


class Run:
    """One run, from the question for a GPU to the exit code."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        messages: Messages,
        events: "queue.SimpleQueue[object]",
        signals: Signals,
        guarded: Guarded | Unguarded,
    ) -> None:
        self._arguments = arguments
        self._messages = messages
        self._events = events
        self._signals = signals
        self._guarded = guarded

    def code(self) -> int:
        """Runs it; the exit code.

        Raises:
            ArbiterError: no lease could be had.
        """
        pid = self._guarded.guard_pid
        client_id = _holder.default_client_id()
        held = nullcontext() if pid is None else _holder.held_by(pid, self._guarded.attest)
        with held, connect(self._arguments, client_id) as arbiter:
            self._messages.progress("waiting for the arbiter")
            joined = granted.outer(arbiter, self._arguments)
            if joined is not None:
                return self._joined(joined, arbiter.address)
            return self._leased(arbiter, client_id)

    def _joined(self, joined: Granted, address: str) -> int:
        self._messages.remark(
            "joined",
            f"joins the lease around it, {joined.lease.lease_id} on {','.join(joined.keys)}; --new-lease asks anew",
            lease_id=joined.lease.lease_id,
            gpus=list(joined.keys),
        )
        for option, given in (("--until-ready", self._arguments.until_ready), ("--on-yield", self._arguments.on_yield)):
            if given is not None:
                self._messages.note("ignored", f"{option} says nothing here: the lease is the outer run's")
        self._guarded.cover(END_SECONDS, {})
        self._signals.begin_forwarding()
        return self._run(joined.environment(address), None)[0]

    def _leased(self, arbiter: Arbiter, client_id: str) -> int:
        facts = {"address": arbiter.address, "client_id": client_id, "token": self._arguments.token or None}

        def cover(request_id: str) -> None:
            self._guarded.cover(END_SECONDS, {**facts, "request_id": request_id})

        with Asking(arbiter, self._arguments, self._messages).lease(self._options(), cover) as lease:
            self._messages.clear()
            if self._answers_already():
                return exit_codes.NOT_READY
            self._signals.begin_forwarding()
            started = time.monotonic()
            code, result = self._run(granted.whole(lease.message).environment(arbiter.address), lease)
            lease.report(WorkReport(result=result, duration=time.monotonic() - started))
        return code

    def _options(self) -> LeaseOptions:
        arguments = self._arguments
        return {
            "memory": arguments.memory,
            "count": arguments.count,
            "gpus": arguments.gpu or (),
            # While a model loads nobody else is to be there.
            "shared": False if arguments.until_ready else True if arguments.shared else None,
            "priority": arguments.priority,
            "max_hold": arguments.hold,
            "ttl": arguments.ttl,
            "on_yield": lambda _lease, request: self._events.put(Asked(request)),
            "on_lost": lambda lease: self._events.put(Lost(lease.lost_reason, lease.lost_detail)),
        }

    def _answers_already(self) -> bool:
        url = self._arguments.until_ready
        if url is None or ready.problem_of(url):
            return False
        self._messages.error(f"{url} answers before the command has begun: another server is there", reason="NOT_READY")
        return True

    def _run(self, environment: dict[str, str], lease: Lease | None) -> tuple[int, WorkResult]:
        """Runs the command to its end; the exit code, and how the work turned out."""
        program = self._arguments.argv[0]
        with Terminal(inner=lease is None) as terminal:
            try:
                group = self._guarded.start(self._arguments.argv, environment)
            except OSError as error:
                self._messages.error(f"{program}: {error.strerror}")
                not_found = isinstance(error, FileNotFoundError)
                return (exit_codes.NOT_FOUND if not_found else exit_codes.CANNOT_EXECUTE), "FAILED"
            on_yield = self._arguments.on_yield
            supervisor = Supervisor(self._guarded, self._messages, self._events, lambda: terminal.lend(group), on_yield)
            waiting = self._wait_until_ready(lease)
            try:
                code = supervisor.follow(END_SECONDS)
            finally:
                if waiting is not None:
                    waiting.stop()
                if not self._guarded.end(END_SECONDS):
                    why = "some processes of the command cannot be ended; the GPU is theirs until they are gone"
                    self._messages.note("left", why)
                    self._guarded.outlast()
        # Ctrl-C on a lent terminal reaches the command without passing here.
        ended = {exit_codes.SIGNALLED + number for number in (signal.SIGINT, signal.SIGTERM)}
        if supervisor.failure is not None or supervisor.signalled or code in ended:
            return code, "CANCELLED"
        return code, "OK" if code == 0 else "FAILED"

    def _wait_until_ready(self, lease: Lease | None) -> ready.Waiting | None:
        arguments = self._arguments
        if arguments.until_ready is None or lease is None:
            return None
        waiting = ready.Waiting(arguments.until_ready, lease, arguments.memory, arguments.ready_timeout, self._events)
        waiting.start()
        return waiting
