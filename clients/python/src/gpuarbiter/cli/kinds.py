"""Types of arguments; argparse turns an ArgumentTypeError into a line of usage."""

import argparse
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from urllib.parse import urlsplit

from gpuarbiter._units import parse_bytes, parse_duration

T = TypeVar("T")


def _checked(parse: Callable[[str], T]) -> Callable[[str], T]:
    def kind(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return kind


size: Callable[[str], int] = _checked(parse_bytes)
duration: Callable[[str], timedelta] = _checked(parse_duration)


def _ratio(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise ValueError(f"{text!r} is out of range; 0 to 1")
    return value


ratio: Callable[[str], float] = _checked(_ratio)


def _since(text: str) -> datetime:
    try:
        ago = parse_duration(text)
    except ValueError:
        pass
    else:
        try:
            return datetime.now(UTC) - ago
        except OverflowError:
            raise ValueError(f"{text!r} ago is before the year 1") from None
    try:
        moment = datetime.fromisoformat(text.strip())
        # As events are shown, without a zone it is UTC.
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        allowed = 'write how long ago ("10m", "2h"), or an ISO time ("2026-01-31T12:00Z")'
        raise ValueError(f"{text!r} is no time; {allowed}") from None


since: Callable[[str], datetime] = _checked(_since)


def _site(text: str) -> str:
    parts = urlsplit(text.strip())
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(f"{text!r} is no base URL; write one such as http://127.0.0.1:9402")
    path = parts.path.rstrip("/").removesuffix("/metrics")
    return f"{parts.scheme}://{parts.netloc}{path}"


site: Callable[[str], str] = _checked(_site)


def _readiness(text: str) -> str:
    parts = urlsplit(text.strip())
    whole = {
        "http": bool(parts.hostname),
        "https": bool(parts.hostname),
        "tcp": bool(parts.hostname and parts.port and not parts.path),  # a bad port is a ValueError that says so
        "unix": parts.path.startswith("/") and not parts.netloc,
    }
    if not whole.get(parts.scheme) or parts.fragment:
        raise ValueError(
            f"{text!r} cannot be asked; write http://127.0.0.1:8000/health, tcp://127.0.0.1:8000 or unix:/path/socket"
        )
    _ = parts.port
    return text.strip()


readiness: Callable[[str], str] = _checked(_readiness)


def _signal_name(text: str) -> signal.Signals:
    name = text.strip().upper()
    try:
        return signal.Signals(int(name)) if name.isdigit() else signal.Signals[f"SIG{name.removeprefix('SIG')}"]
    except (KeyError, ValueError):
        raise ValueError(f"{text!r} is no signal; write a name such as TERM or USR1, or its number") from None


signal_name: Callable[[str], signal.Signals] = _checked(_signal_name)


def _positive(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ValueError(f"{text!r} is no count; write 1 or more")
    return int(text)


positive: Callable[[str], int] = _checked(_positive)
