"""Completion for bash, 3.2 (of macOS) and newer, with or without the bash-completion package."""

import shlex
from collections.abc import Iterator

from gpuarbiter._completion.tree import Command, Option

_SCRIPT = """\
# bash completion for gpu-arbiter: source <(gpu-arbiter completion bash)
_gpu_arbiter_options() {{
    case $1 in
{options}
    esac
}}

# The values of an option, or "-" where only the user knows; nothing where none follows it.
_gpu_arbiter_values() {{
    case $1$2 in
{values}
    esac
}}

_gpu_arbiter() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} command= at=1 words= values
    COMPREPLY=()
    while ((at < COMP_CWORD)); do
        case ${{COMP_WORDS[at]}} in
            {names}) command=${{COMP_WORDS[at]}}; break ;;
        esac
        ((at++))
    done
    if [[ -z $command ]]; then
        COMPREPLY=($(compgen -W {first} -- "$current"))
        return
    fi
    # Where the options end: at "--", or at the first word that is neither one nor the value of one.
    for ((at++; at < COMP_CWORD; at++)); do
        case ${{COMP_WORDS[at]}} in
            --) ((at++)); break ;;
            -*)
                if [[ -n $(_gpu_arbiter_values "$command" "${{COMP_WORDS[at]}}") ]]; then
                    if ((at + 1 == COMP_CWORD)); then
                        values=$(_gpu_arbiter_values "$command" "${{COMP_WORDS[at]}}")
                        [[ $values == - ]] || COMPREPLY=($(compgen -W "$values" -- "$current"))
                        return
                    fi
                    ((at++))
                fi
                ;;
            *) break ;;
        esac
    done
    case $command in
        {rest})
            if ((at < COMP_CWORD)) || [[ $at -eq $COMP_CWORD && $current != -* ]]; then
                if declare -F _command_offset >/dev/null; then
                    _command_offset "$at"
                elif ((at == COMP_CWORD)); then
                    COMPREPLY=($(compgen -c -- "$current"))
                else
                    COMPREPLY=($(compgen -f -- "$current"))
                fi
                return
            fi
            ;;
    esac
    words="$(_gpu_arbiter_options "$command") $(_gpu_arbiter_values "$command" '')"
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o bashdefault -F _gpu_arbiter gpu-arbiter
"""


def script(commands: tuple[Command, ...], options: tuple[Option, ...]) -> str:
    """The script."""
    names = [each.name for each in commands]
    first = names + [flag for option in options for flag in option.flags]
    return _SCRIPT.format(
        names="|".join(names),
        first=shlex.quote(" ".join(first)),
        rest="|".join(each.name for each in commands if each.rest),
        options="\n".join(_case(each.name, " ".join(_flags(each))) for each in commands),
        values="\n".join(line for each in commands for line in _values(each)),
    )


def _flags(command: Command) -> list[str]:
    return [flag for option in command.options for flag in option.flags]


def _values(command: Command) -> Iterator[str]:
    for option in command.options:
        if option.value:
            yield _case("|".join(command.name + flag for flag in option.flags), " ".join(option.values) or "-")
    if command.values:
        yield _case(command.name, " ".join(command.values))


def _case(pattern: str, words: str) -> str:
    return f"        {pattern}) echo {shlex.quote(words)} ;;"
