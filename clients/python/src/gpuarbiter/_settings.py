"""What a client is told by argument or environment, beside the address.

Law: the argument counts, then the environment, then the default; a bad value is a ValueError that says what is
allowed.
"""

import os
from typing import Literal, cast

from gpuarbiter._address import TOKEN_VARIABLE

ON_UNAVAILABLE_VARIABLE = "GPU_ARBITER_ON_UNAVAILABLE"
OnUnavailable = Literal["fail", "proceed"]


def token(argument: str | None) -> str | None:
    """The bearer token; an empty one is none, whatever the environment says."""
    return (os.environ.get(TOKEN_VARIABLE) if argument is None else argument) or None


def on_unavailable(argument: str | None) -> OnUnavailable:
    """Whether to fail or to proceed without a lease when the arbiter cannot be reached."""
    chosen = argument if argument is not None else os.environ.get(ON_UNAVAILABLE_VARIABLE) or "fail"
    if chosen not in {"fail", "proceed"}:
        said = "on_unavailable" if argument is not None else ON_UNAVAILABLE_VARIABLE
        raise ValueError(f'{said} is {chosen!r}; write "fail" or "proceed"')
    return cast("OnUnavailable", chosen)
