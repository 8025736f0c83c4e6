"""Completion, as the shells do it."""

import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpuarbiter._completion import bash, fish, tree, zsh
from gpuarbiter.cli import COMMANDS, main, parser
from support.screen import FORKS, Screen

WANTED = [
    ("gpu-arbiter re", {"release", "resume", "revoke"}),
    ("gpu-arbiter --vers", {"--version"}),
    ("gpu-arbiter drain --al", {"--all"}),
    ("gpu-arbiter run --gpu 0 --until", {"--until-ready"}),
    ("gpu-arbiter run --on-yield USR", {"USR1", "USR2"}),
    ("gpu-arbiter run --memory ", set()),
    ("gpu-arbiter run --gpu 0 mine-", {"mine-one", "mine-two"}),
    ("gpu-arbiter run --shared -- mine-", {"mine-one", "mine-two"}),
    ("gpu-arbiter run mine-one --sh", set()),
    ("gpu-arbiter events --format c", {"csv", "chrome-trace"}),
    ("gpu-arbiter completion f", {"fish"}),
]
BASH = """
source "$1"
COMP_WORDS=("${@:2}") COMP_CWORD=$(($# - 2))
_gpu_arbiter
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """With two commands of its own, and gpu-arbiter."""
    for name in ("mine-one", "mine-two"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / "home").mkdir()
    path = f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "HOME": str(tmp_path / "home"), "TERM": "dumb", "PS1": "% "}


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[[str], Path]:
    """The file with the script for a shell."""

    def write(shell: str) -> Path:
        assert main(["completion", shell]) == 0
        path = tmp_path / f"completion.{shell}"
        path.write_text(capsys.readouterr().out)
        return path

    return write


def done(*command: str, env: dict[str, str]) -> str:
    ended = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert ended.stderr == ""
    return ended.stdout


def test_bash(script: Callable[[str], Path], environment: dict[str, str]):
    path = str(script("bash"))
    for line, wanted in WANTED:
        words = [*shlex.split(line), *([""] if line.endswith(" ") else [])]
        found = done("bash", "--norc", "-c", BASH, "bash", path, *words, env=environment)
        assert set(found.split()) == wanted, line


@pytest.mark.tool("fish")
def test_fish(script: Callable[[str], Path], environment: dict[str, str]):
    path = script("fish")
    lines = "; ".join(f"complete -C {shlex.quote(line)}; echo ." for line, _ in WANTED)
    answers = done("fish", "--no-config", "-c", f"source {path}; {lines}", env=environment).split(".\n")
    for (line, wanted), answer in zip(WANTED, answers[: len(WANTED)], strict=True):
        assert {each.split("\t")[0] for each in answer.splitlines()} == wanted, line


@FORKS
@pytest.mark.tool("zsh")
def test_zsh(script: Callable[[str], Path], environment: dict[str, str]):
    screen = Screen(environment, "zsh", "-f", "-i")
    screen.type(f"autoload -Uz compinit; compinit -u -D; source {script('zsh')}; setopt nobeep; echo rea''dy\n")
    assert screen.shows("ready")
    for line, wanted in (
        ("gpu-arbiter rev\t", "gpu-arbiter revoke "),
        ("gpu-arbiter drain --al\t", "drain --all "),
        ("gpu-arbiter run --gpu 0 --on-yield WIN\t", "--on-yield WINCH "),
        ("gpu-arbiter run --gpu 0 mine-t\t", "run --gpu 0 mine-two "),
        ("gpu-arbiter run --shared -- mine-o\t", "-- mine-one "),
        ("gpu-arbiter events --format ch\t", "--format chrome-trace "),
        ("gpu-arbiter completion fi\t", "completion fish "),
    ):
        screen.text = ""
        screen.type(line)
        assert screen.shows(wanted)
        screen.type("\x15")
    screen.type("exit 0\n")
    assert screen.exit_code() == 0


@pytest.mark.parametrize("shell", [bash, fish, zsh])
def test_every_command_and_option_is_known(shell: "bash | fish | zsh"):
    whole = parser()
    commands = tree.commands(whole)
    assert [command.name for command in commands] == list(COMMANDS)
    made = shell.script(commands, tree.options(whole))
    for command in commands:
        assert command.name in made
        for option in command.options:
            assert option.flags[-1].removeprefix("--") in made
