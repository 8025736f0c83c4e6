"""The attestation socket: the kernel's word on which process this is.

Imports nothing but the standard library, for the guard of `gpu-arbiter run`.
"""

import socket
from pathlib import Path

_SECONDS = 1.0
_BYTES = 4096


def read_attestation(path: Path) -> str:
    """What the attestation socket gives this process: one line. Empty when it does not, within a second."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(_SECONDS)
            line.connect(str(path))
            with line.makefile("rb") as answer:
                return answer.readline(_BYTES).decode("ascii").strip()
    except (OSError, ValueError, AttributeError):  # AttributeError: no AF_UNIX on this system
        return ""
