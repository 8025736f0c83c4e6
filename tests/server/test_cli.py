"""The command line of gpu-arbiterd, apart from what `serve` does once it runs."""

import asyncio
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from gpuarbiter_server import __version__, cli
from gpuarbiter_server.config import Config, load


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("GPU_ARBITER_"):
            monkeypatch.delenv(name)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    code = cli.main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_show_prints_what_is_in_force_as_a_file(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    file = tmp_path / "arbiter.yaml"
    file.write_text("queue_limit: 3\naging: 2s\n")
    code, out, err = run(capsys, "config", "show", "--config", str(file), "--set", "aging=4s")
    assert (code, err) == (0, "")
    shown = yaml.safe_load(out)
    assert (shown["queue_limit"], shown["aging"], shown["cooldown"]) == (3, "4s", "15s")
    again = tmp_path / "shown.yaml"
    again.write_text(out)
    assert load(again, {}, ()).file_form() == load(file, {}, ["aging=4s"]).file_form()


def test_the_file_can_be_named_by_the_environment(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "arbiter.yaml"
    file.write_text("queue_limit: 3\n")
    monkeypatch.setenv("GPU_ARBITER_CONFIG", str(file))
    monkeypatch.setenv("GPU_ARBITER_AGING", "7s")
    _, out, _ = run(capsys, "config", "show")
    assert (yaml.safe_load(out)["queue_limit"], yaml.safe_load(out)["aging"]) == (3, "7s")


def test_validate_says_that_it_is_valid(capsys: pytest.CaptureFixture[str]):
    assert run(capsys, "config", "validate") == (0, "the configuration is valid\n", "")


@pytest.mark.parametrize("command", [("config", "show"), ("config", "validate"), ("serve",)])
def test_every_problem_is_told_and_the_exit_code_is_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: tuple[str, ...]
):
    file = tmp_path / "arbiter.yaml"
    file.write_text("queue_limt: 3\naging: soon\n")
    code, out, err = run(capsys, *command, "--config", str(file))
    assert (code, out) == (2, "")
    assert err.startswith("gpu-arbiterd: the configuration has 2 problems:\n")
    for text in ("queue_limt: unknown key", f"{file} line 1", "did you mean queue_limit", "aging: 'soon'", "line 2"):
        assert text in err


def test_a_file_that_is_not_there_is_a_problem(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    code, _, err = run(capsys, "config", "validate", "--config", str(tmp_path / "none.yaml"))
    assert code == 2
    assert "none.yaml" in err
    assert "cannot be read" in err


def test_schema_prints_the_schema(capsys: pytest.CaptureFixture[str]):
    code, out, _ = run(capsys, "config", "schema")
    schema = json.loads(out)
    assert code == 0
    assert set(schema["properties"]) == set(Config().file_form())


def test_the_admin_token_is_printed_and_made_where_there_is_none_yet(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    at = ("token", "--set", f"journal.path={tmp_path}/state")
    code, made, err = run(capsys, *at)
    assert (code, err) == (0, "")
    assert made == (tmp_path / "state" / "admin-token").read_text()
    assert run(capsys, *at) == (0, made, "")
    monkeypatch.setenv("GPU_ARBITER_ADMIN_TOKEN", "one-from-the-environment")
    assert run(capsys, *at) == (0, "one-from-the-environment\n", "")
    assert "one-from" not in run(capsys, "config", "show")[1]


def test_why_there_is_no_admin_token_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    code, out, err = run(capsys, "token", "--set", "journal.durability=memory")
    assert (code, out) == (2, "")
    assert "the journal is in memory" in err
    code, out, err = run(capsys, "token", "--set", f"auth.admin_token={tmp_path}/none")
    assert (code, out) == (1, "")
    assert err.startswith("gpu-arbiterd: the admin token")


def test_a_token_where_its_file_belongs_is_not_shown(capsys: pytest.CaptureFixture[str]):
    code, _, err = run(capsys, "config", "validate", "--set", "auth.admin_token=s3cret-s3cret-s3cret")
    assert code == 2
    assert "auth.admin_token: not allowed (--set auth.admin_token); auto, or the absolute path of a file" in err
    assert "s3cret" not in err


def test_migrate_prints_todays_file_and_its_notes_beside(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    old = tmp_path / "old.json"
    old.write_text('{"gpuArbiter": {"enabled": true, "defaultQueueLimit": 4, "unheard": 1}}')
    code, out, err = run(capsys, "config", "migrate", str(old))
    assert code == 0
    assert yaml.safe_load(out)["queue_limit"] == 4
    assert err.startswith("note: ")
    assert "unheard" in err


@pytest.mark.parametrize("content", [b"[1]", b"{", b"\xff\xfe"])
def test_what_cannot_be_migrated_says_so(capsys: pytest.CaptureFixture[str], tmp_path: Path, content: bytes):
    old = tmp_path / "old.json"
    old.write_bytes(content)
    code, out, err = run(capsys, "config", "migrate", str(old))
    assert (code, out) == (2, "")
    assert err.startswith("gpu-arbiterd: ")


def test_migrate_needs_a_file_that_is_there(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    code, _, err = run(capsys, "config", "migrate", str(tmp_path / "none.json"))
    assert code == 2
    assert "none.json cannot be read" in err


@pytest.mark.parametrize(
    "arguments", [(), ("nonsense",), ("config",), ("serve", "--nonsense"), ("config", "migrate")], ids=" ".join
)
def test_bad_usage_exits_with_2(capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]):
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    assert ended.value.code == 2
    assert "usage: gpu-arbiterd" in capsys.readouterr().err


def test_version_and_help(capsys: pytest.CaptureFixture[str]):
    for option, said in (
        ("--version", f"gpu-arbiterd {__version__}"),
        ("--help", "gpu-arbiterd serve --set gpus=sim:"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main([option])
        assert ended.value.code == 0
        assert said in capsys.readouterr().out


def test_without_uvloop_it_runs_on_the_loop_that_python_has(monkeypatch: pytest.MonkeyPatch):
    assert cli._loop_factory() is not None
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert cli._loop_factory() is None
    with asyncio.Runner(loop_factory=cli._loop_factory()) as runner:
        assert runner.run(asyncio.sleep(0, "done")) == "done"


def test_log_levels_are_settings_in_other_words(capsys: pytest.CaptureFixture[str]):
    levels = ("--log-level", "loud", "--log-level", "store=debug", "--log-level", "events=quiet")
    code, _, err = run(capsys, "serve", *levels)
    assert code == 2
    assert "log_level: 'loud' is not allowed" in err
    assert "log_levels: {'events': 'quiet', 'store': 'debug'} is not allowed" in err


def test_a_reader_that_has_seen_enough_is_no_trouble(tmp_path: Path):
    command = [sys.executable, "-m", "gpuarbiter_server.cli", "config", "schema"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="standard streams are files of POSIX here")
def test_streams_that_are_closed_get_their_places_back():
    code = (
        "import os, sys; from gpuarbiter_server import cli; cli._open_what_is_closed();"
        "print('nobody reads this'); print('nor this', file=sys.stderr);"
        "sys.exit(40 + os.open(os.devnull, os.O_RDONLY))"
    )
    closed = f"exec {shlex.quote(sys.executable)} -c {shlex.quote(code)} <&- >&- 2>&-"
    assert subprocess.run(["/bin/sh", "-c", closed], check=False).returncode >= 43
