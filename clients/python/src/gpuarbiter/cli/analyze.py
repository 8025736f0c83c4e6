"""Shows who uses which GPU how much, and what to think of it: the last run of the arbiter's analysis, the lowest first.

It asks the HTTP side of the arbiter, where the metrics are. What is not known is a dash, never a zero.

With --json: the list that /results answers, as it is.
"""

import argparse
import json
from collections.abc import Sequence
from typing import Any

from gpuarbiter.cli import exit_codes, kinds
from gpuarbiter.cli.output import Messages

ARBITER = False
MORE_EXIT_CODES = {
    "1": "nobody answers, or the run failed, or its source is another; results that are stale are shown all the same"
}
EXAMPLES = (
    ("gpu-arbiter analyze", "the last run"),
    ("gpu-arbiter analyze --now --low", "look now, and show who hardly uses what is held"),
    ("gpu-arbiter analyze --json | jq '.[] | select(.status == \"idle\").gpu_id'", "for programs"),
)
_DEFAULT = "http://127.0.0.1:9402"
# What the arbiter calls them.
_SOURCES = {"own": "own samples", "prometheus": "Prometheus"}
_OK, _FAILED = 200, 503
_COLUMNS = ("GPU", "NAMESPACE", "HOLDER", "UTIL", "MEMORY", "POWER", "SCORE", "STATUS", "JUDGED", "SURE", "WHY")
_NONE = "-"


class _NoAnswerError(ValueError):
    """What came is not what the analysis answers."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options."""
    parser.add_argument(
        "--url",
        type=kinds.site,
        default=_DEFAULT,
        metavar="URL",
        help=f"the arbiter's HTTP side (default: {_DEFAULT})",
    )
    parser.add_argument(
        "--source",
        choices=_SOURCES,
        help="show it only if the figures come from there: the arbiter's own samples, or its Prometheus",
    )
    parser.add_argument("--now", action="store_true", help="look first, instead of showing the last run")
    parser.add_argument("--low", action="store_true", help="only GPUs that score below the low threshold")


def run(arguments: argparse.Namespace, messages: Messages) -> int:
    """Shows it."""
    try:
        return _run(arguments, messages)
    except (KeyError, TypeError):
        raise _NoAnswerError(f"what {arguments.url} answers is not what an analysis does") from None


def _run(arguments: argparse.Namespace, messages: Messages) -> int:
    code = 0
    if arguments.source is not None:
        _refuse_another(arguments.url, _SOURCES[arguments.source])
    if arguments.now:
        asked = _ask(arguments.url, "/analyze", method="POST")
        if asked["status"] != "ok":
            code = exit_codes.FAILURE
            messages.error(_clean(asked["message"]))
    results = _ask(arguments.url, "/results/low")["gpus"] if arguments.low else _ask(arguments.url, "/results")
    if arguments.json:
        messages.result(json.dumps(results, indent=2, ensure_ascii=False))
        return code
    nothing = "no GPU scores that low" if arguments.low else "no GPUs"
    messages.result("\n\n".join(_text(results, _ask(arguments.url, "/health"), nothing)))
    return code


def _refuse_another(url: str, wanted: str) -> None:
    """An arbiter has one source, and its configuration says which: from here it can only be made sure of."""
    source = _ask(url, "/health")["source"]
    if source != wanted:
        raise _NoAnswerError(
            f"the analysis of {url} goes by {_clean(str(source))}, not by {wanted}: analysis.prometheus.url decides"
        )


def _ask(url: str, path: str, *, method: str = "GET") -> Any:
    from gpuarbiter._check.site import Site

    answer = Site(url).ask(path, method=method)
    if answer.problem:
        raise _NoAnswerError(f"nobody answers at {url}: {answer.problem}")
    if answer.status not in {_OK, _FAILED}:
        raise _NoAnswerError(f"{url}{path} answers {answer.said}; is the analysis off (analysis.enabled)?")
    try:
        return json.loads(answer.body)
    except ValueError:
        raise _NoAnswerError(f"{url}{path} answers no JSON: is this an arbiter?") from None


def _text(results: Sequence[Any], health: Any, nothing: str) -> list[str]:
    from gpuarbiter.cli.tables import table

    head = f"by {health['source']}, {health['last_analysis'] or 'no run yet'}"
    if health["stale"]:
        head += f"  [stale: {health['error'] or 'no newer result'}]"
    elif health["error"]:
        head += f"  [failed: {health['error']}]"
    rows = [_row(each) for each in sorted(results, key=lambda each: each["score"] + 0)]
    return [_clean(head), table(_COLUMNS, rows) if rows else nothing]


def _row(gpu: Any) -> Sequence[str]:
    judged = gpu["ai_analysis"]
    return [
        _clean(text)
        for text in (
            str(gpu["gpu_id"]),
            str(gpu["namespace"] or _NONE),
            str(gpu["pod"] or gpu.get("client_id") or _NONE),
            _figure(gpu["gpu_util"], ".0f", "%"),
            _figure(gpu["mem_used_mb"], ".0f", " MiB"),
            _figure(gpu["power_usage"], ".0f", " W"),
            f"{gpu['score']:.1f}",
            str(gpu["status"]),
            _verdict(judged) if judged else _NONE,
            f"{judged['confidence']:.2f}" if judged else _NONE,
            str(judged["reason"]) if judged else _NONE,
        )
    ]


def _verdict(judged: Any) -> str:
    # Arbiters that ask no model may not say by whom it is.
    return str(judged["status"]) + (" (model)" if judged.get("source") == "model" else "")


def _figure(value: float | None, form: str, unit: str) -> str:
    return _NONE if value is None else f"{value:{form}}{unit}"


def _clean(text: str) -> str:
    """What others wrote is not to reach the terminal as it is."""
    from gpuarbiter._top.text import clean

    return clean(text)
