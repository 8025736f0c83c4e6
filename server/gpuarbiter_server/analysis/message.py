"""What a notification says of the GPUs that call for an action.

Law: pure. A holder chooses its own names, so they are hostile: nothing in them formats, links, mentions or breaks a
line, in whatever service shows them. The length has a bound.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from gpuarbiter_server.analysis.actions import Finding
from gpuarbiter_server.analysis.model import Language, Verdict

# The rest is to be had over HTTP.
_MOST_NAMED = 20
_LONGEST_NAME = 80
_LONGEST_REASON = 300
# What means something in Markdown, in HTML, or in the text of Slack, Feishu, Discord and the like, and what is no text.
_UNSAFE = re.compile(r"[^\w .,;%()/+…—、，。；：（）:-]")
# What formats a word, names an emoji, or begins a link.
_AT_EDGES = re.compile(r"(?<![^\W_])_|_(?![^\W_])|:(?![ 0-9]|$)|(?<=/)/")
# What makes a link of a bare domain.
_DOMAIN = re.compile(r"\.(?=[^\W\d])")


class Message(NamedTuple):
    """One notification."""

    title: str
    body: str


class _Words(NamedTuple):
    title: str
    line: str
    more: str
    verdicts: dict[Verdict, str]


_WORDS = {
    Language.ENGLISH: _Words(
        "GpuArbiter: GPUs that are held and hardly used: {count}",
        "{gpu} on {host} ({who}): score {score}, {verdict}. {reason}",
        "and {count} more",
        {Verdict.ACTIVE: "active", Verdict.IDLE: "idle", Verdict.SUSPICIOUS: "suspicious"},
    ),
    Language.CHINESE: _Words(
        "GpuArbiter：被持有但几乎未使用的 GPU：{count} 个",
        "{host} 上的 {gpu}（{who}）：评分 {score}，{verdict}。{reason}",
        "另有 {count} 个",
        {Verdict.ACTIVE: "活跃", Verdict.IDLE: "空闲", Verdict.SUSPICIOUS: "可疑"},
    ),
}


def message(findings: Sequence[Finding], language: Language) -> Message:
    """One for all of them, the first by name."""
    words = _WORDS[language]
    lines = [_line(each, words) for each in findings[:_MOST_NAMED]]
    if len(findings) > _MOST_NAMED:
        lines.append(words.more.format(count=len(findings) - _MOST_NAMED))
    return Message(words.title.format(count=len(findings)), "\n".join(lines))


def _line(finding: Finding, words: _Words) -> str:
    result, holder = finding.result, finding.holder
    names = filter(None, (holder.namespace, holder.name))
    return words.line.format(
        gpu=plain(result.gpu.gpu_id, _LONGEST_NAME),
        host=plain(result.gpu.hostname, _LONGEST_NAME),
        who=", ".join(plain(name, _LONGEST_NAME) for name in names),
        score=f"{result.score:.0f}",
        verdict=words.verdicts[result.judgement.verdict],
        reason=plain(result.judgement.reason, _LONGEST_REASON),
    )


def plain(text: str, most: int) -> str:
    """A text that is nothing but text, one line of at most so many characters."""
    text = _DOMAIN.sub("·", _AT_EDGES.sub("?", _UNSAFE.sub("?", text)))
    return text if len(text) <= most else text[: most - 1] + "…"
