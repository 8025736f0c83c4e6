"""An older configuration -> today's file: the camelCase JSON of the arbiter, or the YAML of an earlier analyzer.

Law: what comes out loads, and nothing is lost in silence: what has no equivalent is named in a note.
"""

from typing import NamedTuple

import yaml

from gpuarbiter_server.config import older_json, older_yaml, tree
from gpuarbiter_server.config.making import SOURCE, Making
from gpuarbiter_server.config.problems import ConfigError


class Migrated(NamedTuple):
    """Today's file, and what a person should look at; the file has the notes as comments, too."""

    yaml: str
    notes: tuple[str, ...]


def migrate(old: str) -> str:
    """Today's file for an older one, with the notes as comments.

    Raises:
        ConfigError: it is neither JSON nor YAML, no older configuration, or has values that are not allowed.
    """
    return migrate_with_notes(old).yaml


def migrate_with_notes(old: str) -> Migrated:
    """The same, with the notes apart from the file; raises as `migrate` does."""
    read = tree.parse(old, SOURCE)
    if read.problems:
        raise ConfigError(read.problems)
    form = older_yaml if older_yaml.is_one(read.value) else older_json
    making = Making(read.lines)
    form.take_over(read.value, making)
    making.check()
    heading = [f"Made from {form.NAME} by gpu-arbiterd config migrate.", *(f"Note: {note}" for note in making.notes)]
    body = yaml.safe_dump(making.made, sort_keys=False, allow_unicode=True)
    return Migrated("".join(f"# {line}\n" for line in heading) + body, tuple(making.notes))
