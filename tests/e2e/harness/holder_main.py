"""A holder as a process of its own, on the bare contract; driven by lines on stdin, tells lines of JSON on stdout.

It is started with a target and a request (JSON), and with how to say who it is: `pid` (its pid, with the facts that
prove it), `attestation=PATH` (what the kernel says at that socket), or `nobody`.

Commands: `child` starts a process that outlives it, `acquire`, `hang-up` ends the stream, `release`, `renew`.
"""

import json
import subprocess
import sys
import threading
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict, Parse

from gpuarbiter import _holder
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb
from gpuarbiter.v1 import gpu_arbiter_pb2_grpc, lease_pb2

_printing = threading.Lock()


def tell(event: str, **facts: Any) -> None:
    with _printing:
        print(json.dumps({"event": event, **facts}), flush=True)


def introduce(request: pb.AcquireRequest, how: str) -> None:
    """Adds to the holder what it is to say of itself."""
    if how == "pid":
        request.holder.CopyFrom(_holder.holder(request.holder.client_id))
    elif how.startswith("attestation="):
        token = _holder.read_attestation(_holder.Path(how.partition("=")[2]))
        assert token, "the attestation socket said nothing"
        request.holder.attestation = token


class Holder:
    def __init__(self, target: str, request: pb.AcquireRequest, how: str) -> None:
        self._stub: Any = gpu_arbiter_pb2_grpc.GpuArbiterStub(grpc.insecure_channel(target))
        self._request = request
        self._how = how
        self._lease = lease_pb2.Lease()
        self._stream: Any = None

    def do(self, command: str) -> None:
        if command == "child":
            # Of a session of its own, so that nothing which ends us ends it, and without our pipes.
            child = subprocess.Popen(
                ["sleep", "600"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            tell("child", pid=child.pid)
        elif command == "acquire":
            introduce(self._request, self._how)
            self._stream = self._stub.Acquire(self._request)
            threading.Thread(target=self._follow, daemon=True).start()
        elif command == "hang-up":
            self._stream.cancel()
        elif command == "release":
            request = pb.ReleaseRequest(lease_id=self._lease.lease_id, fencing_token=self._lease.fencing_token)
            self._answer("released", self._stub.Release, request)
        elif command == "renew":
            request = pb.RenewRequest(lease_id=self._lease.lease_id, fencing_token=self._lease.fencing_token)
            self._answer("renewed", self._stub.Renew, request)
        else:
            raise ValueError(command)

    def _follow(self) -> None:
        try:
            for message in self._stream:
                kind = message.WhichOneof("event")
                if kind == "granted":
                    self._lease = message.granted.lease
                tell(kind, message=MessageToDict(getattr(message, kind)))
        except grpc.RpcError as error:
            tell("failed", code=error.code().name, message=error.details())
        else:
            tell("over")

    @staticmethod
    def _answer(event: str, method: Any, request: Any) -> None:
        try:
            tell(event, message=MessageToDict(method(request, timeout=10)))
        except grpc.RpcError as error:
            tell("failed", code=error.code().name, message=error.details())


def main() -> None:
    target, request, how = sys.argv[1:]
    holder = Holder(target, Parse(request, pb.AcquireRequest()), how)
    tell("ready")
    for line in sys.stdin:
        holder.do(line.strip())


if __name__ == "__main__":
    main()
