"""The line to one arbiter: channel, credentials, and every failure turned into an ArbiterError.

Law: the channel is opened at the first call (in asyncio it belongs to the running loop); there is one.
"""

import threading
from typing import Any

import grpc

from gpuarbiter import _address, _holder, _status
from gpuarbiter._aio import backend
from gpuarbiter.v1 import admin_pb2_grpc, gpu_arbiter_pb2_grpc, lease_pb2
from gpuarbiter.v1 import gpu_arbiter_pb2 as pb

CALL_SECONDS = 10.0


class AsyncConnection:
    """One channel, and the calls over it."""

    def __init__(
        self,
        address: str | None,
        *,
        client_id: str | None,
        token: str | None,
        credentials: grpc.ChannelCredentials | None,
    ) -> None:
        self.target = _address.resolve(address)
        self._client_id = client_id
        self._token = token
        self._credentials = credentials
        self._lock = threading.Lock()
        self._channel: Any = None
        self._stubs: dict[type, Any] = {}
        self.closed = False

    def _stub(self, kind: type) -> Any:
        with self._lock:
            if self.closed:
                raise RuntimeError("this Arbiter is closed")
            if self._channel is None:
                self._channel = backend.open_channel(self.target, _address.CHANNEL_OPTIONS, self._credentials)
            if kind not in self._stubs:
                self._stubs[kind] = kind(self._channel)
            return self._stubs[kind]

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        return (("authorization", f"Bearer {self._token}"),) if self._token else ()

    def stream(self, method: str, request: Any, *, seconds: float | None = None, admin: bool = False) -> Any:
        """Starts a call that answers with a stream; `seconds` bounds the whole of it."""
        stub = self._stub(admin_pb2_grpc.GpuArbiterAdminStub if admin else gpu_arbiter_pb2_grpc.GpuArbiterStub)
        call = getattr(stub, method)(request, metadata=self._metadata(), timeout=seconds)
        return backend.Stream(call, self.target)

    async def unary(self, method: str, request: Any, *, seconds: float = CALL_SECONDS, admin: bool = False) -> Any:
        """One call with one answer, within `seconds`.

        Raises:
            ArbiterError: the call failed.
        """
        stub = self._stub(admin_pb2_grpc.GpuArbiterAdminStub if admin else gpu_arbiter_pb2_grpc.GpuArbiterStub)
        try:
            return await getattr(stub, method)(request, metadata=self._metadata(), timeout=seconds)
        except backend.RpcError as failure:
            raise _status.from_rpc(failure, self.target) from failure

    async def holder(self) -> lease_pb2.Holder:
        """Who asks. Attested anew each time, where a socket is there: a restarted arbiter knows no old ones."""
        path = _holder.attestation_socket(self.target)
        attestation = "" if path is None else await backend.blocking(_holder.read_attestation, path)
        return _holder.holder(self._client_id, attestation=attestation)

    async def attest(self, request: pb.AcquireRequest) -> None:
        """Proves the process of a request anew: who joins a restarted arbiter with an old proof has none there."""
        path = _holder.attestation_socket(self.target)
        if path is not None:
            proof = await backend.blocking(_holder.read_attestation, path)
            request.holder.attestation = proof or request.holder.attestation

    async def close(self) -> None:
        """Closes the channel; what still runs over it is cancelled."""
        with self._lock:
            self.closed = True
            channel, self._channel = self._channel, None
            self._stubs.clear()
        if channel is not None:
            await channel.close()
