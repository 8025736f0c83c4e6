"""Compiles the library, once per version of its source and user."""

import hashlib
import os
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from fakes.nvml.library import compiler, require_compiler

SOURCE = Path(__file__).with_name("faults.c")
NAME = "faults.so"
FLAGS = ("-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-pthread")
LIBRARIES = ("-ldl",)


@cache
def library() -> Path:
    """The compiled library, for LD_PRELOAD. Skips the test without a compiler."""
    require_compiler()
    digest = hashlib.sha256(SOURCE.read_bytes() + repr((FLAGS, LIBRARIES)).encode()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"gpu-arbiter-faults-{os.getuid()}-{digest}"
    built = folder / NAME
    if not built.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        draft = folder / f".{NAME}.{os.getpid()}"
        subprocess.run([compiler() or "cc", *FLAGS, "-o", str(draft), str(SOURCE), *LIBRARIES], check=True)
        draft.replace(built)  # several test processes may build it at the same time
    return built
