"""What the runner owns: an arbiter, the line to it, and its own view of both, over the bare contract."""

import json
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc

from fakes.fault_proxy import Fault, FaultProxy
from fakes.polling import until
from gpuarbiter.v1 import admin_pb2, admin_pb2_grpc, gpu_arbiter_pb2_grpc
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from support.process import ISOLATED, Arbiterd, environment

# So that a lease that ended leaves nothing behind, nobody is asked to yield who is only slow, and tests end at once.
_SETTINGS = {"cooldown": "0s", "defaults.max_hold": "0s", "shutdown_grace": "0s", "log_level": "warning"}


class Stage:
    """An arbiter that can die and come back at the same address, on the same state."""

    def __init__(self, settings: Mapping[str, Any], *, restarts: bool) -> None:
        # With a short name: a Unix socket's path has at most 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="conformance-"))
        self._settings = _SETTINGS | {"journal.durability": "full" if restarts else "memory"} | dict(settings)
        self._starts: list[Arbiterd] = []
        # Its own from the start on: the UUIDs of simulated GPUs come of it, too.
        self.address = f"127.0.0.1:{_free_port()}"
        self._stalled = False
        self._proxy: FaultProxy | None = None
        # A place at which nobody listens, and nobody will.
        self._nowhere = socket.socket()
        self._nowhere.bind(("127.0.0.1", 0))
        self.start()

    @property
    def env(self) -> dict[str, str]:
        """For programs that are to use this arbiter alone."""
        return environment(self.folder)

    @property
    def socket(self) -> str:
        """Its Unix socket, as clients take it."""
        return self._starts[-1].socket

    @property
    def nowhere(self) -> str:
        """An address that refuses connections."""
        return f"127.0.0.1:{self._nowhere.getsockname()[1]}"

    @property
    def proxy(self) -> FaultProxy:
        """A line to the arbiter that can go bad."""
        if self._proxy is None:
            self._proxy = FaultProxy(self.address).__enter__()
        return self._proxy

    # -- the arbiter's life --

    def start(self) -> None:
        """Starts it; returns once it answers."""
        wanted = self._settings | {"listen.grpc": self.address}
        flags = [part for key, value in wanted.items() for part in ("--set", f"{key}={_yaml(value)}")]
        self._starts.append(Arbiterd("serve", *ISOLATED, *flags, folder=self.folder, env=self.env))
        self._starts[-1].wait_until_ready()

    def become(self, what: str) -> None:
        """Something befalls it."""
        effects: dict[str, Callable[[], None]] = {
            "killed": self.kill,
            "stopped": self.stop,
            "stalled": self._stall,
            "running": self._go_on,
            "forgetful": self._forget,
        }
        effects[what]()

    def _stall(self) -> None:
        self._starts[-1].signal(signal.SIGSTOP)
        self._stalled = True

    def _go_on(self) -> None:
        """It was stalled, or is gone."""
        if self._stalled:
            self._starts[-1].signal(signal.SIGCONT)
            self._stalled = False
        else:
            self.start()

    def _forget(self) -> None:
        shutil.rmtree(self.folder / "state")
        self.start()

    def kill(self) -> None:
        """SIGKILL; returns once it is gone."""
        self._starts[-1].signal(signal.SIGKILL)
        self._starts[-1].wait()

    def stop(self) -> None:
        """SIGTERM; returns once it is gone."""
        self._starts[-1].signal(signal.SIGTERM)
        self._starts[-1].wait()

    def close(self) -> None:
        """Ends everything; the arbiter must have had no trouble of its own."""
        if self._proxy is not None:
            self._proxy.__exit__(None, None, None)
        self._nowhere.close()
        for each in self._starts:
            each.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        for each in self._starts:
            assert "Traceback" not in each.output, each.output

    def idle(self) -> None:
        """Ends what the last scenario has left."""
        if self._proxy is not None:
            self._proxy.heal()
        with self.arbiter() as arbiter, self.admin() as admin:
            admin.Resume(admin_pb2.ResumeRequest(all=True))

            def nothing_left() -> bool:
                snapshot = _snapshot(arbiter)
                for lease in snapshot.leases:
                    admin.Revoke(admin_pb2.RevokeRequest(lease_id=lease.lease_id))
                return not snapshot.leases and not snapshot.queue_length

            until(nothing_left, "for what the last scenario left to be over")

    # -- its line --

    def disturb(self, what: str) -> None:
        """Something befalls the line."""
        effects: dict[str, Callable[[], None]] = {
            "cut": self.proxy.cut,
            "reset": self.proxy.reset,
            # Nothing arrives over the connections that stand; new ones are good.
            "silent": self._silence,
            "slow": lambda: self.proxy.become(Fault(delay=0.05)),
            "refused": self.proxy.refuse,
            "healed": self.proxy.heal,
        }
        effects[what]()

    def _silence(self) -> None:
        self.proxy.become(Fault(black_hole=True))
        self.proxy.become(Fault(), existing=False)

    # -- what can be seen and done --

    @contextmanager
    def arbiter(self) -> Iterator[Any]:
        """The service GpuArbiter."""
        with grpc.insecure_channel(self.address) as channel:
            stub: Any = gpu_arbiter_pb2_grpc.GpuArbiterStub
            yield stub(channel)

    @contextmanager
    def admin(self) -> Iterator[Any]:
        """The service GpuArbiterAdmin."""
        with grpc.insecure_channel(self.address) as channel:
            stub: Any = admin_pb2_grpc.GpuArbiterAdminStub
            yield stub(channel)

    @contextmanager
    def state(self) -> Iterator[Callable[[], dict[str, Any]]]:
        """Looks at the state, in the words of the driver protocol."""
        with self.arbiter() as arbiter:

            def look() -> dict[str, Any]:
                snapshot = _snapshot(arbiter)
                return {
                    "holding": [lease.request_id for lease in snapshot.leases],
                    "waiting": [ticket.request_id for ticket in snapshot.queue],
                    "cordoned": [gpu.key for gpu in snapshot.gpus if gpu.cordoned],
                }

            yield look


class Stages:
    """Lends arbiters: one for the scenarios in a row that want the same of it, one for each that kills it."""

    def __init__(self) -> None:
        self._key = ""
        self._stage: Stage | None = None

    @contextmanager
    def lend(self, settings: Mapping[str, Any], *, restarts: bool) -> Iterator[Stage]:
        """An arbiter that nobody uses."""
        key = json.dumps(settings, sort_keys=True)
        if restarts or key != self._key:
            self.close()
        if self._stage is None:
            self._stage = Stage(settings, restarts=restarts)
        self._key = "" if restarts else key
        try:
            yield self._stage
        except BaseException:
            # Whatever went wrong is not to go wrong in the next one.
            self.close()
            raise
        if restarts:
            self.close()
        else:
            self._stage.idle()

    def close(self) -> None:
        """Ends the one that is there."""
        stage, self._stage = self._stage, None
        if stage is not None:
            stage.close()


def _snapshot(arbiter: Any) -> Any:
    return next(iter(arbiter.Snapshot(pb.SnapshotRequest(), wait_for_ready=True, timeout=10))).snapshot


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
