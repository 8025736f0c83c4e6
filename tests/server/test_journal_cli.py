"""gpu-arbiterd journal: what it prints, and its exit codes."""

import json
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from gpuarbiter_server import cli, journal_cli
from gpuarbiter_server.core.records import Closed, GpuSaved, LeaseSaved
from gpuarbiter_server.store.journal import Journal

from .store.journals import cooldown, ended, gpu, lease


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("GPU_ARBITER_"):
            monkeypatch.delenv(name)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The directory of a journal of another start of the machine."""
    journal = Journal.open(tmp_path / "state", durability="relaxed")
    journal.begin(epoch=3, boot_id="boot-1", pid_namespace=77, tokens_until=1 << 41)
    journal.commit(
        [
            LeaseSaved(lease(10)),
            Closed(ended(9)),
            GpuSaved(gpu("gpu:0", 10, cordon="maintenance", cooldown=cooldown(9, 100.0))),
            GpuSaved(gpu("gpu:1", 0, cordon="")),
        ]
    )
    journal.close()
    return tmp_path / "state"


def run(capsys: pytest.CaptureFixture[str], folder: Path, *arguments: str) -> tuple[int, str, str]:
    """Exit code, stdout, stderr."""
    code = cli.main(["journal", *arguments, "--set", f"journal.path={folder}"])
    said = capsys.readouterr()
    return code, said.out, said.err


def damage(folder: Path) -> None:
    with closing(sqlite3.connect(folder / "journal.db")) as connection:
        connection.execute("UPDATE lease SET mark = 5")
        connection.commit()


def size(folder: Path) -> str:
    return f"{(folder / 'journal.db').stat().st_size / 1024:.1f} KiB"


class TestInspect:
    def test_shows_what_a_restart_would_go_on_with(self, capsys: pytest.CaptureFixture[str], folder: Path):
        code, out, err = run(capsys, folder, "inspect")
        assert (code, err) == (0, "")
        expected = f"""\
            journal  {folder}/journal.db
            state    in order
            files    journal.db {size(folder)}
            version  1
            epoch    3
            boot     boot-1
            tokens   reserved up to 2199023255552
            ended    1 kept

            LEASE   TASK  CLIENT    GPUS   TOKEN  HELD  HOLD  RECOVERS
            a-mark  ASR   client-1  gpu:0  10     -     8.0s  -

            GPU    UUID          NEWEST TOKEN  CORDONED     COOLDOWN
            gpu:0  GPU-of-gpu:0  10            maintenance  yes
            gpu:1  GPU-of-gpu:1  0             yes          -
            """
        lines = [line.removeprefix(" " * 12) for line in expected.splitlines()]
        assert out.splitlines() == lines[:-1]

    def test_of_this_start_of_the_machine_it_shows_times(
        self, capsys: pytest.CaptureFixture[str], folder: Path, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(journal_cli, "boot_id", lambda: "boot-1")
        monkeypatch.setattr(journal_cli, "monotonic", lambda: 103.5)
        _, out, _ = run(capsys, folder, "inspect")
        assert "boot     boot-1 (the one that runs)" in out
        assert "10     3.2s  8.0s  -" in out
        assert "maintenance  11.5s left" in out

    def test_as_json(self, capsys: pytest.CaptureFixture[str], folder: Path):
        code, out, _ = run(capsys, folder, "inspect", "--json")
        found: dict[str, Any] = json.loads(out)
        assert code == 0
        assert (found["epoch"], found["problems"], list(found["files"])) == (3, [], ["journal.db"])
        (shown,) = found["saved"]["leases"]
        assert (shown["lease_id"], shown["sharing"], shown["key"]["identity"]["client_id"]) == (
            *("a-mark", "EXCLUSIVE", "client-1"),
        )
        assert "id_key" not in out

    def test_an_empty_one(self, capsys: pytest.CaptureFixture[str], tmp_path: Path):
        Journal.open(tmp_path / "state", durability="full").close()
        code, out, _ = run(capsys, tmp_path / "state", "inspect")
        assert code == 0
        assert "boot     -\n" in out
        assert "no leases\n\nno GPUs\n" in out

    def test_a_damaged_one(self, capsys: pytest.CaptureFixture[str], folder: Path):
        damage(folder)
        code, out, _ = run(capsys, folder, "inspect")
        assert code == 1
        assert out.startswith("problem  row 10 of lease: its checksum is wrong\nproblem  ")
        assert "state    not in order; below is what can be read" in out
        assert "ended    1 kept" in out

    def test_none(self, capsys: pytest.CaptureFixture[str], tmp_path: Path):
        code, out, _ = run(capsys, tmp_path, "inspect")
        assert code == 1
        assert out.startswith("problem  there is no journal.db\n")
        assert "files    -\nversion  -\nepoch    -\n" in out


class TestVerify:
    def test_in_order(self, capsys: pytest.CaptureFixture[str], folder: Path):
        assert run(capsys, folder, "verify") == (0, "the journal is in order\n", "")
        assert run(capsys, folder, "verify", "--json") == (0, '{\n  "problems": []\n}\n', "")

    def test_damaged(self, capsys: pytest.CaptureFixture[str], folder: Path):
        damage(folder)
        problems = ["row 10 of lease: its checksum is wrong", "3 rows can be read, and there were 4"]
        code, out, _ = run(capsys, folder, "verify")
        assert (code, out.splitlines()) == (1, problems)
        code, out, _ = run(capsys, folder, "verify", "--json")
        assert (code, json.loads(out)) == (1, {"problems": problems})


class TestCompact:
    def test_says_what_it_came_to(self, capsys: pytest.CaptureFixture[str], folder: Path):
        before = size(folder)
        code, out, _ = run(capsys, folder, "compact")
        assert (code, out) == (0, f"from {before} to {size(folder)}\n")
        code, out, _ = run(capsys, folder, "compact", "--json")
        bytes_now = (folder / "journal.db").stat().st_size
        assert (code, json.loads(out)) == (0, {"before": bytes_now, "after": bytes_now})

    def test_says_why_not(self, capsys: pytest.CaptureFixture[str], folder: Path):
        journal = Journal.open(folder, durability="full")
        code, out, err = run(capsys, folder, "compact")
        journal.close()
        assert (code, out) == (1, "")
        assert err.startswith(f"gpu-arbiterd: another arbiter (pid {os.getpid()}) uses the state directory {folder};")


class TestUsage:
    def test_without_a_journal(self, capsys: pytest.CaptureFixture[str]):
        assert cli.main(["journal", "verify", "--set", "journal.durability=memory"]) == 2
        assert capsys.readouterr().err == "gpu-arbiterd: journal.durability is memory: there is no journal\n"

    def test_a_bad_setting(self, capsys: pytest.CaptureFixture[str]):
        assert cli.main(["journal", "verify", "--set", "journal.path=here"]) == 2
        assert "journal.path" in capsys.readouterr().err

    def test_help_tells_what_is_safe_beside_an_arbiter(self, capsys: pytest.CaptureFixture[str]):
        with pytest.raises(SystemExit) as ended_with:
            cli.main(["journal", "--help"])
        assert ended_with.value.code == 0
        said = " ".join(capsys.readouterr().out.split())
        assert "inspect show what is in it, beside a running arbiter too; exit 1 when it is damaged" in said
        assert "compact take out what is too old and make the file smaller, while no arbiter runs" in said
