"""Proves that the contract only ever grows: `buf breaking` against what is published.

The reference is the main branch of the remote where there is one, otherwise the parent commit. The first
commit that has a contract has nothing to be compared with.
"""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def _git(*arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def reference() -> str | None:
    """The commit to compare with; None when there is none with a contract."""
    head = _git("rev-parse", "HEAD")
    for candidate in ("origin/main", "HEAD~1"):
        commit = _git("rev-parse", "--verify", "--quiet", f"{candidate}^{{commit}}")
        if commit and commit != head and _git("cat-file", "-e", f"{commit}:buf.yaml") is not None:
            return commit
    return None


def main() -> int:
    """Returns buf's exit code."""
    commit = reference()
    if commit is None:
        print("contract: nothing published to compare with")
        return 0
    against = f"{ROOT / '.git'}#ref={commit}"
    command = ["npx", "--no-install", "buf", "breaking", str(ROOT), "--against", against]
    code = subprocess.run(command, cwd=ROOT / "clients" / "ts", check=False).returncode
    print(f"contract: {'compatible with' if code == 0 else 'breaks'} {commit[:12]}")
    return code


if __name__ == "__main__":
    sys.exit(main())
