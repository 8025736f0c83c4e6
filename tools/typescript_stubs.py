"""The TypeScript stubs of the contract, made by buf and protoc-gen-es out of clients/ts/node_modules.

Law: where the npm packages are not installed there is nothing to make, and that is said; `make check` installs them.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLIENT = ROOT / "clients" / "ts"


def typescript_stubs() -> dict[Path, str]:
    """The generated files of the TypeScript client, by path."""
    if not (CLIENT / "node_modules" / ".bin" / "protoc-gen-es").exists():
        print("not looked at: clients/ts/src/gen (its npm packages are not installed)", file=sys.stderr)
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        command = ["npx", "--no-install", "buf", "generate", "--output", scratch]
        subprocess.run(command, cwd=CLIENT, check=True)
        return {CLIENT / path.relative_to(scratch): path.read_text() for path in sorted(Path(scratch).rglob("*.ts"))}
