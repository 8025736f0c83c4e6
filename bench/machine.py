"""What the figures were taken on: the machine, and the versions of what took part."""

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

_PACKAGES = ("grpcio", "protobuf", "uvloop", "redis", "aetcd")
_PROGRAMS = ("redis-server", "etcd", "h2load")


def described() -> str:
    """In one line."""
    packages = (f"{name} {version(name)}" for name in _PACKAGES)
    programs = (f"{name} {_version(name)}" for name in _PROGRAMS)
    return ", ".join((_processor(), f"CPython {platform.python_version()}", *packages, *programs))


def _processor() -> str:
    model = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.machine(),
    )
    return f"{os.cpu_count()} × {model}, Linux {platform.release()}"


def _version(program: str) -> str:
    """The first number with dots that it says of itself."""
    if shutil.which(program) is None:
        return "not installed"
    said = subprocess.run([program, "--version"], check=True, capture_output=True, text=True).stdout
    found = re.search(r"\d+(\.\d+)+", said)
    return found[0] if found else "of unknown version"
