"""What a notification says, whatever holders call themselves."""

import re
from dataclasses import replace

import pytest

from gpuarbiter_server.analysis.actions import Finding, Rules, Watch
from gpuarbiter_server.analysis.message import message, plain
from gpuarbiter_server.analysis.model import Holder, Language
from gpuarbiter_server.analysis.service import Settings, evaluate

from .windows import SOMEBODY, window

HOSTILE = (
    "<!channel>",
    "@everyone",
    '<at user_id="all"></at>',
    "[free GPUs](https://evil.example)",
    "https://evil.example/x",
    "evil.example",
    "*bold* _thin_ ~gone~ `code` ||hidden||",
    ":rotating_light:",
    "<script>alert(1)</script>",
    "line\nbreak\r\u2028and\x1b[31m",
    "\u202etxet",
    "&lt;b&gt;",
    "# heading",
    "{0} {gpu} %s $HOME",
    "x" * 5000,
)


def findings(*holders: Holder, language: Language = Language.ENGLISH) -> list[Finding]:
    windows = [replace(window([0.0] * 20, holders=(each,)), gpu_id=f"gpu:{n}") for n, each in enumerate(holders)]
    return Watch().findings(evaluate(windows, Settings(language=language)), Rules(after_runs=1), 0)


def test_one_message_names_all() -> None:
    said = message(findings(SOMEBODY, Holder("team-b", "asr-3", "lease-2", 600.0)), Language.ENGLISH)
    assert said.title == "GpuArbiter: GPUs that are held and hardly used: 2"
    why = "score 12, suspicious. 40.0 GiB of memory have been held for 10 min without any work."
    assert said.body.splitlines() == [
        f"gpu:0 on node-1 (team-a, trainer-0): {why}",
        f"gpu:1 on node-1 (team-b, asr-3): {why}",
    ]


def test_in_chinese() -> None:
    said = message(findings(SOMEBODY, language=Language.CHINESE), Language.CHINESE)
    assert said.title == "GpuArbiter：被持有但几乎未使用的 GPU：1 个"
    assert (
        said.body
        == "node-1 上的 gpu:0（team-a, trainer-0）：评分 12，可疑。占用 40.0 GiB 显存已达 10 分钟，期间没有任何计算。"
    )


def test_of_very_many_the_first_are_named() -> None:
    said = message(findings(*(SOMEBODY._replace(lease_id=f"l{n}") for n in range(50))), Language.ENGLISH)
    assert said.title.endswith(": 50")
    assert len(said.body.splitlines()) == 21
    assert said.body.endswith("\nand 30 more")


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("language", Language)
def test_a_hostile_name_is_nothing_but_text(name: str, language: Language) -> None:
    found = findings(Holder(name, name, "lease-1", 600.0), language=language)
    # Reasons name the holder, too.
    found = [
        replace(each, result=replace(each.result, judgement=replace(each.result.judgement, reason=name)))
        for each in found
    ]
    said = message(found, language)
    assert len(said.body) < 700
    assert len(said.body.splitlines()) == 1
    assert not re.search(r"[<>@#*~`\[\]{}|&$\\\x00-\x1f\u202e\u2028]|//|\b_|_\b|\w\.[a-z]|:\w+:", said.body)


@pytest.mark.parametrize("text", ["asr_v2-0", "gpu:0", "40.0 GiB", "10.0.0.1:9400", "训练任务", "a/b", "50 %"])
def test_harmless_names_stay_as_they_are(text: str) -> None:
    assert plain(text, 80) == text


def test_a_domain_stays_readable() -> None:
    assert plain("node-1.example.com", 80) == "node-1·example·com"
