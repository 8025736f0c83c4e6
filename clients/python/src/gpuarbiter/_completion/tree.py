"""The commands and their options, as completion needs them."""

import argparse
import signal
from collections.abc import Sequence
from dataclasses import dataclass

# Of the platform, so that what is offered is understood.
_SIGNALS = tuple(sorted(each.name.removeprefix("SIG") for each in signal.Signals if not each.name.startswith("SIGRT")))


@dataclass(frozen=True, slots=True)
class Option:
    """An option; `values` are all that it takes, `value` names what else follows it."""

    flags: tuple[str, ...]
    help: str
    value: str = ""
    values: tuple[str, ...] = ()
    repeats: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A command; `rest` says that a command of its own follows its options, `values` are those of an argument."""

    name: str
    help: str
    options: tuple[Option, ...]
    values: tuple[str, ...] = ()
    rest: bool = False


def commands(parser: argparse.ArgumentParser) -> tuple[Command, ...]:
    """Every command of the parser, in its order."""
    (sub,) = [each for each in parser._actions if isinstance(each, argparse._SubParsersAction)]  # noqa: SLF001 -- there is no other way to ask
    help_of = {each.dest: each.help or "" for each in sub._choices_actions}  # noqa: SLF001
    return tuple(_command(name, help_of[name], page) for name, page in sub.choices.items())


def options(parser: argparse.ArgumentParser) -> tuple[Option, ...]:
    """The options of a parser."""
    return tuple(_option(each) for each in parser._actions if each.option_strings)  # noqa: SLF001


def _command(name: str, help_text: str, page: argparse.ArgumentParser) -> Command:
    arguments = [each for each in page._actions if not each.option_strings]  # noqa: SLF001
    values = tuple(str(value) for each in arguments for value in each.choices or ())
    rest = any(each.nargs == argparse.REMAINDER for each in arguments)
    return Command(name, help_text, options(page), values, rest)


def _option(action: argparse.Action) -> Option:
    takes_value = action.nargs != 0
    values: Sequence[str] = [str(value) for value in action.choices or ()]
    if action.metavar == "SIGNAL":
        values = _SIGNALS
    return Option(
        tuple(action.option_strings),
        action.help or "",
        str(action.metavar or action.dest).upper() if takes_value else "",
        tuple(values),
        repeats=isinstance(action, argparse._AppendAction),  # noqa: SLF001
    )
