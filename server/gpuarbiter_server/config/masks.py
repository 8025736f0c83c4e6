"""Secrets in what is configured: masked where they are shown, and what was shown is taken back for what it stands for.

Law: whoever reads the configuration, edits it and sends it back has changed no secret.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import PlainSerializer, SerializationInfo

# The context of a model_dump that is shown to somebody.
MASKED = {"masked": True}
MASK = "…"


def masked_by(mask: Callable[[Any], Any]) -> PlainSerializer:
    """How a kind of value that can hold a secret is written: with `mask` where somebody sees it, else as it is."""

    def write(value: Any, info: SerializationInfo) -> Any:
        return mask(value) if info.context == MASKED else value

    return PlainSerializer(write)


def without_password(url: str) -> str:
    """A URL as it can be shown."""
    return re.sub(r"//[^/?#]*@", f"//{MASK}@", url)


def unmasked(said: Any, shown: Any, kept: Any) -> Any:
    """What somebody says who may have seen only what is shown of what is kept."""
    if isinstance(said, Mapping) and isinstance(shown, Mapping):
        return {
            name: unmasked(value, shown[name], kept[name]) if name in shown else value for name, value in said.items()
        }
    # What is no secret is as it was said: what equals it may be of another kind, such as 1 and true.
    return kept if said == shown != kept else said
