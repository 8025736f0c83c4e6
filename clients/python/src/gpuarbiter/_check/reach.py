"""The line to the arbiter, from its address to somebody who takes the call.

Law: what the system says of an address is told in its own words, with what to do about it.
"""

import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from gpuarbiter import _address, _settings
from gpuarbiter._check.lines import Line, Status

ADDRESS = "address"
CALL = "somebody listens"
OUTAGE = "without an arbiter"
CONNECT_SECONDS = 3.0

_START = "start it (gpu-arbiterd serve, or systemctl start gpu-arbiter), or say where it is with --address"


class Reach:
    """The lines up to a connection; `target` is where it leads, once it does."""

    def __init__(self, address: str | None) -> None:
        self._address = address
        self.target: str | None = None

    def lines(self) -> Iterator[Line]:
        """Every line until one fails."""
        yield _outage()
        try:
            target = _address.resolve(self._address)
        except ValueError as error:
            yield Line(ADDRESS, Status.FAIL, str(error), f"correct {self._said()}")
            return
        yield Line(ADDRESS, Status.PASS, f"{target} ({self._said()})")
        path = _address.socket_path(target)
        line = _tcp(target) if path is None else _unix(path)
        if line.status is Status.PASS:
            self.target = target
        yield line

    def _said(self) -> str:
        if self._address is not None:
            return "--address"
        return _address.ADDRESS_VARIABLE if os.environ.get(_address.ADDRESS_VARIABLE) else "the default"


def _outage() -> Line:
    variable = _settings.ON_UNAVAILABLE_VARIABLE
    try:
        chosen = _settings.on_unavailable(None)
    except ValueError as error:
        return Line(OUTAGE, Status.FAIL, str(error), f"correct {variable}, or unset it")
    if chosen == "proceed":
        found = f"programs go on without a lease ({variable}=proceed)"
        return Line(OUTAGE, Status.WARN, found, "unset it where two programs on one GPU do harm")
    return Line(OUTAGE, Status.PASS, "programs fail")


def _tcp(target: str) -> Line:
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except socket.gaierror as error:
        return Line(CALL, Status.FAIL, f"{host}: {error.strerror}", "correct the name of the host")
    except TimeoutError:
        return Line(CALL, Status.FAIL, f"no answer within {CONNECT_SECONDS:g}s", "look for a firewall in between")
    except OSError as error:
        return Line(CALL, Status.FAIL, error.strerror or str(error), _START)
    return Line(CALL, Status.PASS, f"a connection to {target}")


def _unix(path: Path) -> Line:
    found, todo = _unix_problem(path)
    return Line(CALL, Status.FAIL, found, todo) if found else Line(CALL, Status.PASS, f"a connection to {path}")


def _unix_problem(path: Path) -> tuple[str, str]:
    """What is wrong with a socket, and what to do; both empty when nothing is."""
    try:
        if not stat.S_ISSOCK(path.stat().st_mode):
            return f"{path} is no socket", "correct the path"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
            line.settimeout(CONNECT_SECONDS)
            line.connect(str(path))
    except FileNotFoundError:
        return f"{path} does not exist", _START
    except PermissionError:
        return f"{path}: permission denied{_owner(path)}", "join that group, or run as that user"
    except ConnectionRefusedError:
        return f"nobody listens on {path}: it is left from an arbiter that has ended", _START
    except OSError as error:
        return error.strerror or str(error), _START
    return "", ""


def _owner(path: Path) -> str:
    """Whose the socket is, or the nearest folder above it that can be looked at."""
    import grp
    import pwd

    for place in (path, *path.parents):
        try:
            found = place.stat()
            user, group = pwd.getpwuid(found.st_uid).pw_name, grp.getgrgid(found.st_gid).gr_name
        except (OSError, KeyError):
            continue
        return f" ({place} belongs to {user}:{group}, {stat.filemode(found.st_mode)})"
    return ""
