"""The places that say something: the file, the environment, the flags.

Law: every name in the environment that begins with GPU_ARBITER_ is either a setting, a known name of
the clients and tools, Kubernetes' own, or an error. Of the others, only the older names are looked at.
"""

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as FilePath

from gpuarbiter_server.config import tree
from gpuarbiter_server.config.keys import all_keys
from gpuarbiter_server.config.layers import Layer, Stack
from gpuarbiter_server.config.model import BUILT_IN_POLICIES, Config
from gpuarbiter_server.config.older_names import OLDER_NAMES, as_today
from gpuarbiter_server.config.problems import UNKNOWN_KEY, Path, Problem, dotted

PREFIX = "GPU_ARBITER_"
FLAG = "--set"
# The secrets themselves, which no configuration file and no flag holds.
ADMIN_TOKEN = "GPU_ARBITER_ADMIN_TOKEN"  # noqa: S105 -- its name
AI_API_KEY = "GPU_ARBITER_AI_API_KEY"
CONTROL_SECRET = "GPU_ARBITER_CONTROL_SECRET"  # noqa: S105 -- its name
NOTIFY_URLS = "GPU_ARBITER_NOTIFY_URLS"
# What clients, tools and the command line read from the environment, and secrets; none is a setting.
RESERVED_NAMES = (
    ADMIN_TOKEN,
    AI_API_KEY,
    CONTROL_SECRET,
    NOTIFY_URLS,
    "GPU_ARBITER_ADDRESS",
    "GPU_ARBITER_TOKEN",
    "GPU_ARBITER_ON_UNAVAILABLE",
    "GPU_ARBITER_SIM_DIR",
    "GPU_ARBITER_REQUIRE_TOOLS",
    "GPU_ARBITER_SOAK",
    "GPU_ARBITER_CONFIG",
    "GPU_ARBITER_LEASE_ID",
    "GPU_ARBITER_FENCING_TOKEN",
    "GPU_ARBITER_TASK",
    "GPU_ARBITER_GPU_KEYS",
    "GPU_ARBITER_MEMORY_BYTES",
)
# Kubernetes gives every pod variables for every Service of its namespace; a Service called gpu-arbiter, or
# gpu-arbiter-metrics, must not keep the arbiter from starting.
# Source: https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_NAME = re.compile(
    r".*_(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)", re.ASCII
)
_SERVICE_URL = re.compile(r"(tcp|udp|sctp)://.*")
_NAME = r'(?:"[^"]*"|[^".=]+)'
_OVERRIDE = re.compile(rf"({_NAME}(?:\.{_NAME})*)=(.*)", re.DOTALL)


def add_file(stack: Stack, path: FilePath) -> None:
    """Puts a file on the stack, or the problem of reading it."""
    source = str(path)
    try:
        with path.open("rb") as file:
            text = file.read(tree.MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        stack.problems.append(Problem("", None, source, reason, wrong="the file cannot be read"))
        return
    read = tree.parse(text, source)
    policies = read.value.get("policies") if isinstance(read.value, dict) else None
    if isinstance(policies, dict):
        # In a file, `ASR:` with nothing behind it is a task type whose policy is that of `defaults`.
        policies |= {name: {} for name, policy in policies.items() if policy is None}
    stack.add(Layer(source, read.value, read.lines), read.problems)


def add_environment(stack: Stack, environ: Mapping[str, str]) -> None:
    """Puts the variables on the stack; those of whole sections below those of single keys, older names below all."""
    for older, meant in OLDER_NAMES.items():
        if environ.get(older, "").strip():
            _add(stack, meant.path, as_today(older, environ[older]), _variable(older))
    names: dict[Path, str] = {}
    for name in sorted(environ):
        if not name.upper().startswith(PREFIX) or name.upper() in RESERVED_NAMES or _is_kubernetes(name, environ[name]):
            continue
        path, source = _path(name, stack), _variable(name)
        if path[0] not in Config.model_fields:
            stack.problems.append(Problem(dotted(path), None, source, _unknown(name), wrong=UNKNOWN_KEY))
        elif path in names:
            stack.problems.append(
                Problem(
                    dotted(path), None, source, f"{names[path]} is another; keep one", wrong="two variables for one key"
                )
            )
        else:
            names[path] = name
    for path, name in sorted(names.items(), key=lambda item: len(item[0])):
        # An empty variable counts as one that is not set: `VAR=${OTHER:-}` is how people pass things on.
        _add(stack, path, environ[name], _variable(name), counts=bool(environ[name].strip()))


def add_overrides(stack: Stack, overrides: Sequence[str]) -> None:
    """Puts "dotted.key=value" texts on the stack, in their order."""
    for text in overrides:
        match = _OVERRIDE.fullmatch(text)
        if not match:
            stack.problems.append(Problem("", text, FLAG, "KEY=VALUE, such as defaults.max_wait=5s"))
            continue
        path = tuple(part.strip('"') for part in re.findall(_NAME, match[1]))
        _add(stack, path, match[2], f"{FLAG} {dotted(path)}")


def variable(path: Path) -> str:
    """The environment variable of a key."""
    return PREFIX + "__".join(path).upper()


def _variable(name: str) -> str:
    return f"environment variable {name}"


def _add(stack: Stack, path: Path, text: str, source: str, *, counts: bool = True) -> None:
    read = tree.parse(text, source, path)
    value = read.value
    for name in reversed(path):
        value = {name: value}
    stack.add(Layer(source, value, {}, counts), read.problems)


def _path(name: str, stack: Stack) -> Path:
    """The key that a variable is for, whatever the case of its letters."""
    parts = name[len(PREFIX) :].split("__")
    path = [part.lower() for part in parts]
    if path[0] == "policies" and len(path) > 1:
        path[1] = _task_type(parts[1], stack)
    return tuple(path)


def _task_type(said: str, stack: Stack) -> str:
    """The task type that is meant: the only one that differs in case alone, else as it is written."""
    configured = stack.tree.get("policies", {})
    alike = [name for name in {**BUILT_IN_POLICIES, **configured} if name.lower() == said.lower()]
    return alike[0] if len(alike) == 1 else said


def _is_kubernetes(name: str, value: str) -> bool:
    if name.upper().endswith("_PORT") and _SERVICE_URL.fullmatch(value):
        return True
    return _SERVICE_NAME.fullmatch(name.upper()) is not None


def _unknown(name: str) -> str:
    # Without the prefix, which is alike in all of them.
    known = [full.removeprefix(PREFIX) for full in (*RESERVED_NAMES, *_variables())]
    near = difflib.get_close_matches(name.upper().removeprefix(PREFIX), known, n=1)
    meant = f"; did you mean {PREFIX}{near[0]}?" if near else ""
    return f"allowed after {PREFIX}: {', '.join(Config.model_fields).upper()}{meant}"


def _variables() -> Iterator[str]:
    return (variable(key.path) for key in all_keys())
