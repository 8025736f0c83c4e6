"""The page that --help shows of a command: what it does, its options, exit codes, environment, examples.

Law: a page is made of what the command's module says: its docstring, `add_arguments`, EXIT_CODES (or
MORE_EXIT_CODES, beside those of all), ENVIRONMENT and EXAMPLES. What all commands share stands here. Lines end at 79
columns, or where a narrower terminal does.
"""

import argparse
import inspect
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

# Of examples: the line, and what it does.
Examples = Sequence[tuple[str, str]]

_WIDTH = 79
_COLUMN = 26
_EXIT_CODES = {
    "0": "done",
    "1": "it failed; one line on stderr says why, with the reason in brackets",
    "2": "wrong usage",
    "130": "Ctrl-C",
}
_ENVIRONMENT = {
    "GPU_ARBITER_ADDRESS": "where the arbiter is, unless --address says so",
    "GPU_ARBITER_TOKEN": "the bearer token, unless --token says so",
}


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Of a page, as wide as the terminal up to 79 columns."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=_COLUMN, width=_width())
        # The same column on each page, and in each table of it.
        self._action_max_length = _COLUMN - 2


def asks_an_arbiter(module: Any) -> bool:
    """Whether a command talks to an arbiter."""
    return bool(getattr(module, "ARBITER", True))


def writes_json(module: Any) -> bool:
    """Whether a command has another form of what it writes, for programs."""
    return bool(getattr(module, "JSON", True))


def description(module: Any) -> str:
    """The docstring, paragraph by paragraph; indented ones stay as they are."""
    text = inspect.cleandoc(module.__doc__)
    paragraphs = text.split("\n\n")
    return "\n\n".join(each if each.startswith(" ") else textwrap.fill(each, _width()) for each in paragraphs)


def epilog(module: Any) -> str:
    """What stands below the options."""
    codes = getattr(module, "EXIT_CODES", None) or _EXIT_CODES | getattr(module, "MORE_EXIT_CODES", {})
    environment = (_ENVIRONMENT if asks_an_arbiter(module) else {}) | getattr(module, "ENVIRONMENT", {})
    parts = [_table("exit codes", codes)]
    if environment:
        parts.append(_table("environment", environment))
    return "\n\n".join([*parts, examples(module.EXAMPLES)])


def examples(lines: Examples) -> str:
    """Each with what it does above it."""
    return "examples:\n" + "\n".join(f"  # {what}\n  {line}" for line, what in lines)


def _table(title: str, rows: Mapping[str, str]) -> str:
    lines = [f"{title}:"]
    for name, meaning in rows.items():
        head = f"  {name}".ljust(_COLUMN)
        if len(head) >= _COLUMN and head[-1] != " ":
            lines.append(head)
            head = " " * _COLUMN
        lines.append(textwrap.fill(meaning, _width(), initial_indent=head, subsequent_indent=" " * _COLUMN))
    return "\n".join(lines)


def _width() -> int:
    return max(2 * _COLUMN, min(_WIDTH, shutil.get_terminal_size().columns - 1))
