"""Who a holder is: by the attestation socket, where there is one, before its own word."""

import contextlib
import logging
from collections.abc import Callable

from gpuarbiter_server.api.attestation import AttestationServer
from gpuarbiter_server.config import Config
from gpuarbiter_server.core.model import Holder, ProcessId
from gpuarbiter_server.runtime.local_machine import LocalMachine

log = logging.getLogger(__name__)


def attestation(config: Config) -> AttestationServer | None:
    """The attestation socket beside the gRPC one, where there is one."""
    path = config.listen.socket_path()
    return None if path is None else AttestationServer(path.with_name(path.name + ".attest"))


async def start_attestation(server: AttestationServer, stack: contextlib.AsyncExitStack) -> None:
    """Attestation is a help, not a condition: without it pids are proved by /proc alone."""
    try:
        await server.start()
    except OSError as error:
        log.warning("no attestation socket: %s", error)
    else:
        stack.push_async_callback(server.close)


def prover(machine: LocalMachine, attestation: AttestationServer | None) -> Callable[[Holder, str], ProcessId | None]:
    """Whose process a holder's is: the kernel's word before its own."""

    def prove(holder: Holder, token: str) -> ProcessId | None:
        attested = attestation.resolve(token) if attestation is not None and token else None
        return attested or machine.trust(holder)

    return prove
