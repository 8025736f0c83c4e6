"""The sections of what the analysis does about GPUs that are held and hardly used: actions, webhook, notifications.

Law: no secret is in any of them, but for tokens that people have in the address of a webhook; what may hold one is not
shown when it is refused.
"""

import re
from collections.abc import Iterator
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import PlainValidator, WithJsonSchema

from gpuarbiter_server.config import kinds
from gpuarbiter_server.config.masks import MASK, masked_by
from gpuarbiter_server.config.problems import Fault, not_shown
from gpuarbiter_server.config.sections import Section, live, restart

NEVER, WHEN_WAITING, ALWAYS = YIELDS = ("never", "when_waiting", "always")
_LIMITS = ("low", "idle")
_MOST_RUNS = 1000
_MOST_ATTEMPTS = 20


def _url(value: object) -> str:
    allowed = (
        "the address of a webhook, such as https://control.example/gpus, or an empty text; without user and password: "
        "what proves who sends is the signature"
    )
    if MASK in str(value):
        allowed += f"; {MASK} stands for what is not shown: write it, or leave the key out"
    if not isinstance(value, str) or not re.fullmatch(r"|https?://[!-~]{1,1000}", value):
        raise not_shown(allowed)
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise not_shown(allowed) from None
    if value and (not parts.hostname or "@" in parts.netloc or parts.fragment):
        raise not_shown(allowed)
    return value


def host_alone(url: str) -> str:
    """An address as it can be shown: paths and queries of webhooks have tokens in them."""
    return re.sub(r"(?<=//)([^/?]*)[/?].*", rf"\1/{MASK}", url)


Yield = Annotated[
    str,
    PlainValidator(kinds.word(YIELDS)),
    WithJsonSchema({"enum": list(YIELDS)}),
    kinds.Kind(kinds.one_of(list(YIELDS))),
]
Limit = Annotated[
    str,
    PlainValidator(kinds.word(_LIMITS)),
    WithJsonSchema({"enum": list(_LIMITS)}),
    kinds.Kind(kinds.one_of(list(_LIMITS))),
]
Runs = Annotated[
    int,
    PlainValidator(kinds.whole(1, _MOST_RUNS)),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": _MOST_RUNS}),
    kinds.Kind(f"1 to {_MOST_RUNS}"),
]
Attempts = Annotated[
    int,
    PlainValidator(kinds.whole(1, _MOST_ATTEMPTS)),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": _MOST_ATTEMPTS}),
    kinds.Kind(f"1 to {_MOST_ATTEMPTS}"),
]
Url = Annotated[
    str,
    PlainValidator(_url),
    masked_by(host_alone),
    WithJsonSchema({"type": "string", "pattern": "^(|https?://.+)$"}),
    kinds.Kind("http:// or https:// address"),
]


class ActionsSection(Section):
    """What is done about GPUs that are held and hardly used, and when."""

    yield_: Yield = live(
        NEVER,
        "Whether the holder of a lease is asked to yield: never; when a request waits that could have one of its GPUs; "
        "always. It is asked once, and may go on.",
        alias="yield",
    )
    below: Limit = live("low", "Which GPUs: those below `thresholds.low`, or only those below `thresholds.idle`.")
    after_runs: Runs = live(2, "So many runs one after the other have to find a GPU so.")
    spare_active: kinds.Flag = live(True, "Leave GPUs alone that are judged active, such as those that work in bursts.")
    min_confidence: kinds.Ratio = live(0.5, "How sure the analysis has to be of what it thinks of a GPU.")
    hold_down: kinds.Duration = live(
        3600.0, "After an action, its GPU and holder are left alone for so long, unless they did well in between."
    )
    dry_run: kinds.Flag = live(False, "Do none of it, and log what would be done.")


class ControlSection(Section):
    """A webhook that is told of each such GPU."""

    enabled: kinds.Flag = restart(False, "Whether it is told.")
    url: Url = restart("", "Its address. What is behind the host may hold a token, and is not shown.")
    timeout: kinds.PositiveDuration = restart(5.0, "How long one attempt may take.")
    attempts: Attempts = restart(5, "How often a delivery is tried before it is put aside.")
    secret_file: kinds.File = restart(
        "",
        "A file with the secret that deliveries are signed with. `GPU_ARBITER_CONTROL_SECRET` in the environment wins. "
        "Neither: they are not signed.",
    )


class NotifySection(Section):
    """Services that are told of such GPUs, one message for each run that finds new ones."""

    urls_file: kinds.File = restart(
        "",
        "A file with their addresses as apprise takes them, one a line. `GPU_ARBITER_NOTIFY_URLS` in the environment, "
        "with spaces between them, wins. Neither: nobody is told.",
    )
    timeout: kinds.PositiveDuration = restart(60.0, "How long one message may take, to all of them.")


def actions_faults(control: ControlSection) -> Iterator[Fault]:
    """What is missing."""
    if control.enabled and not control.url:
        yield Fault(("analysis", "control", "url"), "", "a value, because analysis.control.enabled is true")
