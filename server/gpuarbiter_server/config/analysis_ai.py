"""The section of the chat model that judges beside the rules: its keys, their kinds, and what must fit together.

Law: the key of the server is in none of them. What may hold one by mistake is not shown when it is refused.
"""

import re
from collections.abc import Iterator
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import PlainValidator, WithJsonSchema

from gpuarbiter_server.config import kinds
from gpuarbiter_server.config.problems import Fault, not_shown
from gpuarbiter_server.config.sections import Section, live, restart

ASKED_ABOUT = ("low", "all")
_ROUTE = "/chat/completions"
_MOST_WORKERS = 64
_MOST_REQUESTS = 1_000_000
_MOST_TOKENS = 32_768


def _url(value: object) -> str:
    allowed = (
        "the address of a server, such as https://models.example/v1, or an empty text; "
        "without user, password and query: the key has a place of its own"
    )
    if not isinstance(value, str) or not re.fullmatch(r"|https?://[!-~]{1,500}", value):
        raise not_shown(allowed)
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        raise not_shown(allowed) from None
    if value and (not parts.hostname or "@" in parts.netloc or parts.query or parts.fragment):
        raise not_shown(allowed)
    # Where people have the whole address of the route.
    return value.rstrip("/").removesuffix(_ROUTE).rstrip("/")


def _model(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[!-~]{0,200}", value):
        raise ValueError("the name of a model: at most 200 printable characters without spaces")
    return value


Url = Annotated[
    str,
    PlainValidator(_url),
    WithJsonSchema({"type": "string", "pattern": "^(|https?://.+)$"}),
    kinds.Kind("http:// or https:// address"),
]
Model = Annotated[str, PlainValidator(_model), WithJsonSchema({"type": "string", "maxLength": 200}), kinds.Kind("name")]
AskedAbout = Annotated[
    str,
    PlainValidator(kinds.word(ASKED_ABOUT)),
    WithJsonSchema({"enum": list(ASKED_ABOUT)}),
    kinds.Kind(kinds.one_of(list(ASKED_ABOUT))),
]
Workers = Annotated[
    int,
    PlainValidator(kinds.whole(1, _MOST_WORKERS)),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": _MOST_WORKERS}),
    kinds.Kind(f"1 to {_MOST_WORKERS}"),
]
Requests = Annotated[
    int,
    PlainValidator(kinds.whole(1, _MOST_REQUESTS)),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": _MOST_REQUESTS}),
    kinds.Kind(f"1 to {_MOST_REQUESTS}"),
]
Tokens = Annotated[
    int,
    PlainValidator(kinds.whole(1, _MOST_TOKENS)),
    WithJsonSchema({"type": "integer", "minimum": 1, "maximum": _MOST_TOKENS}),
    kinds.Kind(f"1 to {_MOST_TOKENS}"),
]


class AiSection(Section):
    """A chat model that judges beside the rules; its server speaks the protocol of OpenAI."""

    enabled: kinds.Flag = live(False, "Whether a model is asked; the figures and names of GPUs leave for its server.")
    url: Url = restart(
        "", "The server: the address that `/chat/completions` follows, such as `https://models.example/v1`."
    )
    model: Model = live("", "Which of its models.")
    key_file: kinds.File = restart(
        "", "A file with the key of the server, read anew for each run. `AI_API_KEY` in the environment wins."
    )
    ask_about: AskedAbout = live("low", "Which GPUs: those below `thresholds.low`, the lowest first, or all.")
    threshold: kinds.Ratio = live(0.7, "An answer that is less sure does not count: the judgement of the rules stands.")
    timeout: kinds.PositiveDuration = live(30.0, "How long an answer may take, with what it takes to try again.")
    max_workers: Workers = live(4, "Questions at once.")
    max_requests_per_minute: Requests = live(30, "What is over it keeps the judgement of the rules.")
    max_requests_per_day: Requests = live(2000, "The same for 24 hours: the limit of what it can cost.")
    max_answer_tokens: Tokens = live(1000, "The longest answer; models that think before they answer need more.")
    cache: kinds.Duration = live(
        3600.0, "How long an answer counts for GPUs that look the same as the one that was asked about; 0s: not at all."
    )


def ai_faults(section: AiSection) -> Iterator[Fault]:
    """What is missing."""
    if section.enabled:
        for name in ("url", "model"):
            if not getattr(section, name):
                yield Fault(("analysis", "ai", name), "", "a value, because analysis.ai.enabled is true")
