"""Compiles the fake library, once per version of its source and user."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_name("nvml.c")
NAME = "libnvidia-ml.so.1"
FLAGS = ("-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread", f"-Wl,-soname,{NAME}")


def compiler() -> str | None:
    return os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def require_compiler() -> None:
    """Skips the test where the library cannot be built."""
    if compiler() is None:
        pytest.skip("no C compiler (cc) to build the fake NVML library with")


@cache
def library() -> Path:
    """The compiled library; its folder is for LD_LIBRARY_PATH. Skips the test without a compiler."""
    require_compiler()
    digest = hashlib.sha256(SOURCE.read_bytes() + repr(FLAGS).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"gpu-arbiter-fake-nvml-{os.getuid()}-{digest}"
    built = folder / NAME
    if not built.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        draft = folder / f".{NAME}.{os.getpid()}"
        subprocess.run([compiler() or "cc", *FLAGS, "-o", str(draft), str(SOURCE)], check=True)
        draft.replace(built)  # several test processes may build it at the same time
    return built
