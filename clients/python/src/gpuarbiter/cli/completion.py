"""Prints a script that makes a shell complete the commands and options of gpu-arbiter.

It is made of the parser itself, so it knows what this version knows. After the options of `run` it completes the
command as the shell does by itself.
"""

import argparse

from gpuarbiter.cli.output import Messages

ARBITER = False
JSON = False
SHELLS = ("bash", "zsh", "fish")
EXIT_CODES = {"0": "done", "2": "wrong usage"}
EXAMPLES = (
    ("source <(gpu-arbiter completion bash)", "in ~/.bashrc"),
    ("source <(gpu-arbiter completion zsh)", "in ~/.zshrc, after compinit"),
    ("gpu-arbiter completion fish >~/.config/fish/completions/gpu-arbiter.fish", "once"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument("shell", choices=SHELLS, help="bash, zsh or fish")


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Prints it."""
    from gpuarbiter._completion import bash, fish, tree, zsh
    from gpuarbiter.cli import parser

    whole = parser()
    made = {"bash": bash, "zsh": zsh, "fish": fish}[arguments.shell]
    messages.result(made.script(tree.commands(whole), tree.options(whole)).rstrip("\n"))
    return 0
