"""Where the journal is kept."""

import os
from pathlib import Path

import pytest

from gpuarbiter_server.config import Config, ConfigError, load
from gpuarbiter_server.config.state import default_state_directory
from gpuarbiter_server.core.policy import Settings


@pytest.mark.parametrize(
    ("environ", "path"),
    [
        ({"STATE_DIRECTORY": "/var/lib/arbiter", "XDG_STATE_HOME": "/s"}, "/var/lib/arbiter"),
        ({"STATE_DIRECTORY": "/var/lib/arbiter:/var/lib/other"}, "/var/lib/arbiter"),
        ({"STATE_DIRECTORY": "relative", "XDG_STATE_HOME": "/s"}, "/s/gpu-arbiter"),
        ({"XDG_STATE_HOME": "/s", "HOME": "/home/u"}, "/s/gpu-arbiter"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/home/u"}, "/home/u/.local/state/gpu-arbiter"),
        ({"HOME": "/home/u"}, "/home/u/.local/state/gpu-arbiter"),
    ],
)
def test_the_journal_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], path: str):
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    assert default_state_directory(environ) == Path(path)


@pytest.mark.parametrize("environ", [{}, {"HOME": "/root"}, {"XDG_STATE_HOME": ""}])
def test_the_journal_of_root_is_the_systems(monkeypatch: pytest.MonkeyPatch, environ: dict[str, str]):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert default_state_directory(environ) == Path("/var/lib/gpu-arbiter")


def test_without_a_variable_the_home_is_that_of_the_list_of_users(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 7)
    monkeypatch.setattr(Path, "home", lambda: Path("/home/listed"))
    assert default_state_directory({}) == Path("/home/listed/.local/state/gpu-arbiter")


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch):
    def nowhere() -> Path:
        raise RuntimeError

    monkeypatch.setattr(os, "geteuid", lambda: 7)
    monkeypatch.setattr(Path, "home", nowhere)
    with pytest.raises(ConfigError, match=r"journal.path: .*this user has no home directory that auto could take"):
        default_state_directory({})


def test_what_is_configured_wins(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/arbiter")
    assert Config().journal.directory() == Path("/var/lib/arbiter")
    assert load(None, {}, ["journal.path=/srv/state"]).journal.directory() == Path("/srv/state")


def test_without_a_journal_there_is_no_directory():
    assert load(None, {}, ["journal.durability=memory", "journal.path=/srv/state"]).journal.directory() is None


def test_the_recovery_grace_reaches_the_core():
    assert Config().settings().recovery_grace == Settings().recovery_grace == 10.0
    assert load(None, {}, ["recovery_grace=3s"]).settings().recovery_grace == 3.0
