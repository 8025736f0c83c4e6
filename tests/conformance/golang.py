"""The Go worker of docs/go.md, built as the page says: its program and its buf.gen.yaml are taken from there.

Law: versions are pinned in tests/conformance/go; stubs, caches and the program lie under .build, one process builds.
"""

import fcntl
import os
import re
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "go.md"
PROTO = ROOT / "proto"
PINS = Path(__file__).with_name("go")
BUILD = ROOT / ".build" / "go"
_BUF = ROOT / "clients" / "ts" / "node_modules" / ".bin" / "buf"
_BLOCK = re.compile(r"^```(go|yaml)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_FILES = {"go": "main.go", "yaml": "buf.gen.yaml"}


def environment(tools: Path) -> dict[str, str]:
    """For go: nothing outside of .build is written. `tools`: where the generators of the stubs are."""
    own = {"GOMODCACHE": str(BUILD / "mod"), "GOCACHE": str(BUILD / "cache"), "GOFLAGS": "-modcacherw"}
    return dict(os.environ) | own | {"PATH": f"{tools}:{os.environ['PATH']}"}


def build(tools: Path) -> Path:
    """The program.

    Raises:
        FileNotFoundError: its packages can neither be found nor be had from the Go module proxy, or buf is missing.
    """
    if not _BUF.exists():
        raise FileNotFoundError(f"there is no {_BUF}: `make check` installs the npm packages")
    BUILD.mkdir(parents=True, exist_ok=True)
    env = environment(tools)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        worker, stamp = BUILD / "worker", BUILD / "stamp"
        made_of = "".join(path.read_text() for path in (PAGE, *sorted(PINS.iterdir()), *sorted(PROTO.rglob("*.proto"))))
        if stamp.exists() and stamp.read_text() == made_of:
            return worker / "worker"
        shutil.rmtree(worker, ignore_errors=True)
        shutil.copytree(PINS, worker)
        for language, text in _BLOCK.findall(PAGE.read_text()):
            (worker / _FILES[language]).write_text(text)
        fetched = _run(worker, env, "go", "mod", "download")
        if fetched.returncode:
            raise FileNotFoundError(f"the Go packages cannot be had: {fetched.stderr}")
        for command in (
            (str(_BUF), "generate", str(PROTO)),
            ("go", "mod", "verify"),
            ("go", "vet", "."),
            ("go", "build", "-o", "worker", "."),
        ):
            made = _run(worker, env, *command)
            assert made.returncode == 0, f"{command}:\n{made.stdout}{made.stderr}"
        unformatted = _run(worker, env, "gofmt", "-l", "main.go").stdout
        assert not unformatted, "docs/go.md: its program is not as gofmt writes it"
        stamp.write_text(made_of)
    return worker / "worker"


def _run(folder: Path, env: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=900, check=False)
