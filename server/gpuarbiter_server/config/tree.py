"""YAML text -> plain mappings, lists and scalars, with the line of each.

Law: whatever the text is, the answer is a tree or a list of problems, in time and memory that its
length bounds. Scalars go by YAML 1.2, so that `off`, `no` and 10:30 are the texts that they look
like; duplicate keys, aliases and tags are refused, since what they mean is not what one sees.
"""

import json
import re
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, cast

import yaml

from gpuarbiter_server.config.problems import Path, Problem, dotted

# PyYAML reads about 200 kB a second; a policy takes some 300 bytes.
MAX_BYTES = 256 * 1024
_MAX_DEPTH = 24
_MAX_DIGITS = 40
_HALVES = re.compile("[\ud800-\udbff][\udc00-\udfff]")

_SCALARS = {
    # Each is a part of what PyYAML takes for the same type: what its writer leaves unquoted, this reads back.
    "null": (r"(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    "bool": (r"(?:true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)$", list("-+0123456789")),
    "float": (
        r"(?:[-+]?(?:[0-9]+\.[0-9]*(?:[eE][-+][0-9]+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
}
_TAG = "tag:yaml.org,2002:"


class _Loader(yaml.SafeLoader):
    """Composes nodes only; no tag ever constructs anything."""

    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 -- PyYAML's own way, filled below
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Hashable) -> yaml.Node | None:
        """Refuses what a short text could grow without bound from: aliases and deep nesting."""
        event = cast("yaml.Event", self.peek_event())  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent):
            raise _refusal("aliases are not supported", event)
        if self.depth >= _MAX_DEPTH:
            raise _refusal(f"nested deeper than {_MAX_DEPTH}", event)
        self.depth += 1
        try:
            return super().compose_node(parent, cast("int", index))
        finally:
            self.depth -= 1


def _refusal(problem: str, event: yaml.Event) -> yaml.YAMLError:
    return yaml.composer.ComposerError(None, None, problem, cast("yaml.Mark", event.start_mark))


for _name, (_pattern, _first) in _SCALARS.items():
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _first)


@dataclass
class Tree:
    """A text read: its value, the line of each part, and what was wrong with it."""

    source: str
    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def refuse(self, path: Path, line: int, wrong: str, allowed: str) -> None:
        """Notes a problem of the text itself."""
        self.problems.append(Problem(dotted(path), None, f"{self.source} line {line}", allowed, wrong))


def parse(text: str | bytes, source: str, at: Path = ()) -> Tree:
    """Reads YAML, and JSON in all its forms; `at` is the key that the text is the value of."""
    tree = Tree(source)
    if len(text) > MAX_BYTES:
        tree.problems.append(Problem(dotted(at), None, source, f"at most {MAX_BYTES} bytes are read", wrong="too long"))
        return tree
    try:
        root = yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        # PyYAML lets the latter two through for an escape or a version number that is out of range.
        try:
            tree.value = _tabbed_json(text)
        except (ValueError, RecursionError):
            tree.problems.append(_syntax_problem(error, source, at))
        return tree
    if root is not None:
        tree.value = _value(root, at, tree)
    return tree


def _tabbed_json(text: str | bytes) -> Any:
    """JSON that is indented with tabs, which YAML's scanner does not take.

    Raises:
        ValueError: for everything else.
    """
    if (b"\t" not in text) if isinstance(text, bytes) else ("\t" not in text):
        raise ValueError
    return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError
    return dict(pairs)


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _syntax_problem(error: Exception, source: str, at: Path) -> Problem:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        line = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = " ".join(part for part in (error.context, error.problem) if part)
    else:
        line, reason = "", " ".join(str(error).split())
    return Problem(dotted(at), None, source + line, reason, wrong="not valid YAML")


def _value(node: yaml.Node, path: Path, tree: Tree) -> Any:
    line = node.start_mark.line + 1
    tree.lines[path] = line

    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        return _mapping(node, path, tree)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        return [_value(item, (*path, str(index)), tree) for index, item in enumerate(node.value)]
    kind = node.tag.removeprefix(_TAG)
    if not isinstance(node, yaml.ScalarNode) or not _fits(kind, node.value):
        tree.refuse(path, line, f"tag {node.tag}", "write a plain mapping, list, text or number")
        return None
    if kind in ("int", "float") and len(node.value) > _MAX_DIGITS:
        tree.refuse(path, line, f"a number of {len(node.value)} digits", f"at most {_MAX_DIGITS} are read")
        return None
    return _scalar(kind, node.value)


def _fits(kind: str, text: str) -> bool:
    """Whether a scalar is what its tag says; an explicit tag (!!int x) may say anything."""
    return kind == "str" or (kind in _SCALARS and re.fullmatch(_SCALARS[kind][0], text) is not None)


def _scalar(kind: str, text: str) -> Any:
    match kind:
        case "null":
            return None
        case "bool":
            return text.lower() == "true"
        case "int":
            return int(text)
        case "float":
            # float() knows "inf" and "nan" without YAML's dot.
            return float(re.sub(r"\.(?=[in])", "", text.lower()))
    return _joined(text)


def _joined(text: str) -> str:
    """JSON escapes a character beyond 16 bits as two halves, which YAML knows nothing of."""
    if not _HALVES.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def _mapping(node: yaml.MappingNode, path: Path, tree: Tree) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        # A key is the text that is written: a task type may be called 7, null or off.
        if not isinstance(key_node, yaml.ScalarNode):
            tree.refuse(path, line, "a key that is no text", "keys are texts")
            continue
        key = _joined(key_node.value)
        below = (*path, key)
        if key in made:
            tree.refuse(below, line, "a second time in one mapping", f"it is on line {tree.lines[below]} already")
            continue
        made[key] = _value(value_node, below, tree)
        tree.lines[below] = line
    return made
