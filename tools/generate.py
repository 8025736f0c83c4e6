"""Writes every generated file, or with --check proves that the committed ones are current.

A generator is a function that returns the files it makes, by path; nothing is written before all
of them have run, so that a failing one leaves the tree as it was.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import resources
from pathlib import Path

from grpc_tools import protoc

from tools.dashboards import dashboards
from tools.limits_reference import limits_reference
from tools.metrics_reference import metrics_reference
from tools.reference import configuration_reference
from tools.typescript_stubs import typescript_stubs
from tools.unasync import sync_client

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
CLIENT = ROOT / "clients" / "python" / "src"

Files = dict[Path, str]


def stubs() -> Files:
    """The Python stubs of the contract: messages, their types, and the gRPC bindings."""
    sources = sorted(str(path.relative_to(PROTO)) for path in PROTO.rglob("*.proto"))
    well_known = resources.files("grpc_tools") / "_proto"
    with tempfile.TemporaryDirectory() as scratch:
        code = protoc.main(
            [
                "protoc",
                f"-I{PROTO}",
                f"-I{well_known}",
                f"--python_out={scratch}",
                f"--pyi_out={scratch}",
                f"--grpc_python_out={scratch}",
                *sources,
            ]
        )
        if code:
            raise SystemExit(f"protoc failed with {code}")
        made = {CLIENT / path.relative_to(scratch): path.read_text() for path in Path(scratch).rglob("*.py*")}
    # admin and gpu_arbiter alone hold services; the other bindings would be empty.
    return {path: text for path, text in made.items() if not path.stem.endswith("_grpc") or "Stub" in text}


GENERATORS: list[Callable[[], Files]] = [
    stubs,
    typescript_stubs,
    sync_client,
    configuration_reference,
    limits_reference,
    metrics_reference,
    dashboards,
]


def stale(files: Files) -> Iterator[Path]:
    """The files whose committed text is not what the generators make."""
    for path, text in files.items():
        if not path.exists() or path.read_text() != text:
            yield path


def main() -> int:
    """Writes or checks; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is not current")
    arguments = parser.parse_args()
    files: Files = {}
    for generator in GENERATORS:
        files |= generator()
    behind = list(stale(files))
    for path in behind:
        print(f"{'not current' if arguments.check else 'writing'}: {path.relative_to(ROOT)}")
        if not arguments.check:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path])
    if arguments.check and behind:
        print("run `make proto` and commit the result", file=sys.stderr)
        return 1
    print(f"{len(files)} generated files are current" if not behind else f"{len(behind)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
