"""The driver of the TypeScript client, compiled against the package as it is published.

Law: what is built lies under .build/conformance, and is built again when a source is newer; one process at a time does.
"""

import fcntl
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLIENT = ROOT / "clients" / "ts"
BUILD = ROOT / ".build" / "conformance"
_SOURCE = Path(__file__).with_name("drivers") / "driver.mts"
_COMPILER = CLIENT / "node_modules" / ".bin" / "tsc"


def command() -> tuple[str, ...]:
    """How to start the driver; it is compiled first, if need be.

    Raises:
        FileNotFoundError: the npm packages of the client are not installed.
    """
    if not _COMPILER.exists():
        raise FileNotFoundError(f"there is no {_COMPILER}: `make check` installs the npm packages")
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = BUILD / "stamp"
        newest = max(path.stat().st_mtime for path in _sources())
        if not stamp.exists() or stamp.stat().st_mtime < newest:
            _build()
            stamp.touch()
            os.utime(stamp, (newest, newest))
    return ("node", str(BUILD / "driver.mjs"))


def _sources() -> list[Path]:
    settings = [*CLIENT.glob("*.json"), _SOURCE, *_SOURCE.parent.glob("tsconfig*.json")]
    return [*(CLIENT / "src").rglob("*.ts"), *settings]


def _build() -> None:
    """The package where Node looks for it, its own packages beside it, and the driver."""
    package = BUILD / "node_modules" / "@gpu-arbiter" / "client"
    shutil.rmtree(BUILD / "node_modules", ignore_errors=True)
    package.mkdir(parents=True)
    shutil.copy(CLIENT / "package.json", package)
    (package / "node_modules").symlink_to(CLIENT / "node_modules")
    _compile(CLIENT / "tsconfig.build.json", "--outDir", str(package / "dist"))
    _compile(_SOURCE.with_name("tsconfig.build.json"))


def _compile(project: Path, *more: str) -> None:
    run = subprocess.run(
        [_COMPILER, "-p", project, *more], cwd=CLIENT, capture_output=True, text=True, timeout=300, check=False
    )
    assert run.returncode == 0, f"{project}:\n{run.stdout}{run.stderr}"
