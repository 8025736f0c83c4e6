"""The pages that --help shows."""

import argparse
import importlib
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from gpuarbiter.cli import COMMANDS, EXAMPLES, main, parser

MODULES = {name: importlib.import_module(f"gpuarbiter.cli.{name.replace('-', '_')}") for name in COMMANDS}
DOCS = (Path(__file__).parents[3] / "docs" / "cli.md").read_text()


@pytest.fixture(autouse=True)
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def page(name: str) -> argparse.ArgumentParser:
    (sub,) = [each for each in parser()._actions if isinstance(each, argparse._SubParsersAction)]
    found: argparse.ArgumentParser = sub.choices[name]
    return found


def options(name: str) -> list[argparse.Action]:
    return [each for each in page(name)._actions if each.option_strings]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_page_is_whole(name: str):
    text = page(name).format_help()
    body, examples = text.split("\nexamples:\n")
    assert body.startswith(f"usage: gpu-arbiter {name}")
    assert "\nexit codes:\n  " in body
    assert not [line for line in body.splitlines() if len(line) > 79]
    assert len(examples.splitlines()) >= 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_does_and_what_is_so_without_it(name: str):
    for option in options(name):
        assert option.help, option.option_strings
        assert (option.nargs == 0) or option.metavar or option.choices, f"{option.option_strings} names its value"
        if option.default not in {None, False, "", argparse.SUPPRESS}:
            assert "(default: " in option.help, option.option_strings


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_the_docs(name: str):
    heading = next(line for line in DOCS.splitlines() if re.match(rf"## .*\b{name}\b", line))
    section = re.split(r"^## ", DOCS.partition(heading)[2], flags=re.MULTILINE)[0]
    everywhere = {"--address", "--token", "--json", "--help"}
    missing = [
        flag
        for option in options(name)
        for flag in option.option_strings
        if flag.startswith("--") and flag not in section
    ]
    assert set(missing) <= everywhere
    for variable in getattr(MODULES[name], "ENVIRONMENT", {}):
        assert variable.split(",")[0] in section


def commands_of(line: str) -> list[list[str]]:
    """The arguments of each gpu-arbiter in a shell line."""
    inside = re.sub(r"<\((.*)\)", r"; \1", line)
    words = shlex.split(re.split(r" \| | >", inside)[0])
    starts = [place for place, word in enumerate(words) if word == "gpu-arbiter"]
    return [words[start + 1 :] for start in starts]


def shown() -> list[str]:
    modules: list[Any] = [*MODULES.values()]
    return [line for module in modules for line, _ in module.EXAMPLES] + [line for line, _ in EXAMPLES]


@pytest.mark.parametrize("line", shown())
def test_every_example_is_understood(line: str):
    assert commands_of(line)
    for arguments in commands_of(line):
        if arguments[-1] != "--help":
            parser().parse_args(arguments)


def test_a_narrow_terminal_gets_narrow_pages(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("COLUMNS", "60")
    with pytest.raises(SystemExit):
        main(["drain", "--help"])
    body = capsys.readouterr().out.split("\nexamples:\n")[0]
    assert max(map(len, body.splitlines())) <= 59
