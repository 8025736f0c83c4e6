"""File, environment and flags -> one Config, or every reason why not; and changes to it while it is in force.

Law: flag > environment > file > default, key by key. Each layer is a merge patch on the one below, so
that null gives a key its default back. Nothing but the given file and mapping is read.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpuarbiter_server.config import tree
from gpuarbiter_server.config.keys import all_keys, value_at
from gpuarbiter_server.config.layers import Layer, Stack
from gpuarbiter_server.config.masks import unmasked
from gpuarbiter_server.config.model import Config
from gpuarbiter_server.config.problems import dotted
from gpuarbiter_server.config.sections import Section
from gpuarbiter_server.config.sources import add_environment, add_file, add_overrides

_IN_FORCE = "the configuration in force"
_PATCH = "the patch"


def load(path: Path | None, environ: Mapping[str, str], overrides: Sequence[str] = ()) -> Config:
    """The configuration that these come to.

    Args:
        path: the file; None where there is none.
        environ: the environment; of names that do not begin with GPU_ARBITER_ only those in `older_names` count.
        overrides: "dotted.key=value", the value in YAML; of two for one key, the later one counts.

    Raises:
        ConfigError: with every problem.
    """
    stack = Stack()
    if path:
        add_file(stack, path)
    add_environment(stack, environ)
    add_overrides(stack, overrides)
    return stack.config()


def merge_patch(config: Config, patch_yaml: str) -> Config:
    """The configuration with a change: a YAML merge patch (RFC 7386) on its file form.

    A key that is set to null has its default again; a task type, none of its own. An empty patch changes
    nothing, and neither does a secret as it is shown.

    Raises:
        ConfigError: with every problem; nothing is changed then.
    """
    in_force = config.file_form()
    read = tree.parse(patch_yaml, _PATCH)
    said = unmasked(read.value, config.file_form(masked=True), in_force)
    stack = Stack()
    stack.add(Layer(_IN_FORCE, in_force, {}))
    stack.add(Layer(_PATCH, said, read.lines), read.problems)
    return stack.config()


def restart_needed(old: Config, new: Config) -> list[str]:
    """The dotted keys that differ and take effect at the next start only."""
    before, after = old.file_form(), new.file_form()
    return [
        dotted(key.path)
        for key in all_keys()
        if key.needs_restart and value_at(before, key.path) != value_at(after, key.path)
    ]


def json_schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of the file, for editors; the arbiter itself checks more."""
    schema = Config.model_json_schema(by_alias=True)
    schema["properties"]["policies"]["additionalProperties"] = False
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "gpu-arbiterd configuration"}


def patch_schema(section: type[Section]) -> dict[str, Any]:
    """The JSON schema of a merge patch on a section, in one piece: no key is needed, and each can be null."""
    schema = section.model_json_schema(by_alias=True)
    return _patch_of(schema, schema.get("$defs", {}))


def _patch_of(section: Mapping[str, Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: _or_null(key, sections) for name, key in section["properties"].items()},
    }


def _or_null(key: Mapping[str, Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    below = key.get("$ref")
    said = dict(key) if below is None else _patch_of(sections[below.removeprefix("#/$defs/")], sections)
    # A patch has no defaults: what it does not say stays as it is.
    said.pop("default", None)
    return {"anyOf": [said, {"type": "null"}]}
