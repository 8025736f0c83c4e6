"""Completion for fish."""

from collections.abc import Iterator

from gpuarbiter._completion.tree import Command, Option

_HEAD = """\
# fish completion for gpu-arbiter: gpu-arbiter completion fish | source
complete -c gpu-arbiter -f
"""
_REST = """\
# The command that follows the options of `gpu-arbiter {name}`, word by word; fails where none has begun.
function __gpu_arbiter_{name}_rest
    set -l words $argv
    contains -- "$words[2]" {name}; or return 1
    set -e words[1 2]
    while set -q words[1]
        switch $words[1]
            case --
                set -e words[1]
                break
            case {options}
                set -e words[1]
                set -q words[1]; and set -e words[1]
            case '-*'
                set -e words[1]
            case '*'
                break
        end
    end
    set -q words[1]; or return 1
    printf '%s\\n' $words
end
"""


def script(commands: tuple[Command, ...], options: tuple[Option, ...]) -> str:
    """The script."""
    rests = "".join(_rest(command) for command in commands if command.rest)
    return _HEAD + rests + "".join(f"{line}\n" for line in _lines(commands, options))


def _rest(command: Command) -> str:
    taking = [flag for option in command.options if option.value for flag in option.flags]
    return _REST.format(name=command.name, options=" ".join(taking))


def _lines(commands: tuple[Command, ...], options: tuple[Option, ...]) -> Iterator[str]:
    for option in options:
        yield f"complete -c gpu-arbiter -n __fish_use_subcommand {_option(option)}"
    for command in commands:
        what = f"-a {command.name} -d {_quoted(command.help)}"
        yield f"complete -c gpu-arbiter -n __fish_use_subcommand {what}"
    for command in commands:
        here = f"__fish_seen_subcommand_from {command.name}"
        rest = f"__gpu_arbiter_{command.name}_rest"
        if command.rest:
            here += f"; and not {rest} (commandline -opc) >/dev/null"
        for option in command.options:
            yield f"complete -c gpu-arbiter -n '{here}' {_option(option)}"
        if command.values:
            yield f"complete -c gpu-arbiter -n '{here}' -a {_quoted(' '.join(command.values))}"
        if command.rest:
            words = f"{rest} (commandline -opc) (commandline -ct)"
            what = f"-a '(__fish_complete_subcommand --commandline ({words}))'"
            yield f"complete -c gpu-arbiter -n '{words} >/dev/null' {what}"


def _option(option: Option) -> str:
    words = [("-l " if flag.startswith("--") else "-s ") + flag.lstrip("-") for flag in option.flags]
    if option.value:
        words.append("-x")
    if option.values:
        words.append(f"-a {_quoted(' '.join(option.values))}")
    return " ".join([*words, f"-d {_quoted(option.help.replace('%(prog)s', 'gpu-arbiter'))}"])


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
