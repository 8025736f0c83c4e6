"""Where the key of a model's server comes from, and what counts as one."""

import subprocess
import sys
from pathlib import Path

import pytest

from gpuarbiter_server.analysis.asking import KeyTroubleError
from gpuarbiter_server.app.judging import key, model_settings, opinions
from support.server import configured


def test_the_environment_wins_over_the_file_and_no_key_is_fine(tmp_path: Path):
    file = tmp_path / "key"
    file.write_text("from-file\n")
    ours, older = {"GPU_ARBITER_AI_API_KEY": " ours "}, {"AI_API_KEY": "older"}
    assert key({**ours, **older}, str(file)) == "ours"
    assert key({**older, "GPU_ARBITER_AI_API_KEY": " "}, str(file)) == "older"
    assert key({}, str(file)) == "from-file"
    file.write_text("another")
    assert key({}, str(file)) == "another"
    assert key({}, "") == ""


@pytest.mark.parametrize("content", [b"sk-secret more", b"sk-secret\nmore", b"sk-secret\xff", b"", b"sk-secret" * 600])
def test_what_can_be_no_key_is_told_without_it(tmp_path: Path, content: bytes):
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(KeyTroubleError) as refused:
        key({}, str(file))
    assert str(refused.value).startswith(f"the key in {file} ")
    assert "sk-secret" not in repr(refused.value)
    assert refused.value.__cause__ is None


def test_a_file_that_cannot_be_read_is_told_and_so_is_a_bad_key_in_the_environment(tmp_path: Path):
    with pytest.raises(KeyTroubleError, match=r"cannot be read: No such file or directory$"):
        key({}, str(tmp_path / "none"))
    with pytest.raises(KeyTroubleError, match=r"cannot be read: Is a directory$"):
        key({}, str(tmp_path))
    with pytest.raises(KeyTroubleError, match="the key in the environment is none: expected one line"):
        key({"AI_API_KEY": "sk secret"}, "")


async def test_every_setting_reaches_who_asks():
    on = configured(
        "analysis={language: zh, thresholds: {low: 30}, ai: {enabled: true, url: 'http://127.0.0.1:9/v1', model: m, "
        "ask_about: all, threshold: 0.5, timeout: 9s, max_workers: 2, max_requests_per_minute: 3, "
        "max_requests_per_day: 5, max_answer_tokens: 77, cache: 1m}}"
    )
    settings = model_settings(on.analysis)
    default = model_settings(configured().analysis)
    assert [name for name in settings.__slots__ if getattr(settings, name) == getattr(default, name)] == []
    assert opinions(on.analysis, count=lambda _: None).enabled
    # Off, and without the address that is taken at the start only.
    assert not opinions(configured().analysis, count=lambda _: None).enabled


def test_an_arbiter_that_asks_no_model_and_tells_nobody_does_not_load_the_libraries():
    libraries = {"openai", "httpx2", "httpx", "apprise"}
    code = f"import sys; from gpuarbiter_server.app import serving; print({libraries} & sys.modules.keys())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"
