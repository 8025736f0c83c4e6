"""Completion for zsh: for a folder of $fpath (as _gpu-arbiter), or to be sourced."""

from gpuarbiter._completion.tree import Command, Option

_SCRIPT = """\
#compdef gpu-arbiter
# zsh completion for gpu-arbiter: source <(gpu-arbiter completion zsh), after compinit
_gpu_arbiter() {{
    local curcontext=$curcontext state line
    local -A opt_args
    _arguments -C \\
{options}
        '1:command:->command' \\
        '*::argument:->argument'
    case $state in
        command)
            local -a commands=(
{names}
            )
            _describe -t commands command commands
            ;;
        argument)
            case $words[1] in
{pages}
            esac
            ;;
    esac
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _gpu_arbiter "$@"
else
    compdef _gpu_arbiter gpu-arbiter
fi
"""


def script(commands: tuple[Command, ...], options: tuple[Option, ...]) -> str:
    """The script."""
    return _SCRIPT.format(
        options="\n".join(f"        {_spec(each)} \\" for each in options),
        names="\n".join(f"                {_quoted(each.name + ':' + each.help)}" for each in commands),
        pages="\n".join(_page(each) for each in commands),
    )


def _page(command: Command) -> str:
    specs = [_spec(option) for option in command.options]
    if command.rest:
        specs.append("'*:::command:_normal'")
    elif command.values:
        specs.append(_quoted(f"1:value:({' '.join(command.values)})"))
    # With -S, what follows "--" are no options of ours; with -A, neither is what follows the first argument.
    start = "_arguments -S -A '-*'" if command.rest else "_arguments"
    body = " \\\n                        ".join([start, *specs])
    return f"                {command.name})\n                    {body}\n                    ;;"


def _spec(option: Option) -> str:
    """An option as _arguments takes it: '(-h --help)'{-h,--help}'[what it does]:VALUE:(one another)'."""
    what = option.help.replace("%(prog)s", "gpu-arbiter").replace("[", "(").replace("]", ")").replace(":", "\\:")
    tail = f"[{what}]"
    if option.value:
        tail += f":{option.value}:" + (f"({' '.join(option.values)})" if option.values else " ")
    if option.repeats:
        return _quoted("*" + option.flags[0] + tail)
    if len(option.flags) > 1:
        return f"'({' '.join(option.flags)})'{{{','.join(option.flags)}}}{_quoted(tail)}"
    return _quoted(option.flags[0] + tail)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
