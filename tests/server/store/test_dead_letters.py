"""What could not be delivered is put aside in a bounded file."""

import json
import logging
import os
import stat
import threading
from pathlib import Path

import pytest

from gpuarbiter_server.store import dead_letters as module
from gpuarbiter_server.store.dead_letters import NAME, DeadLetters


def bury(letters: DeadLetters, *numbers: int) -> None:
    letters.start()
    for number in numbers:
        letters.bury({"number": number, "pod": "训练\n"})
    letters.close()


def numbers(path: Path) -> list[int]:
    return [json.loads(line)["number"] for line in path.read_text().splitlines()]


def test_letters_are_lines_for_their_owner_alone(tmp_path: Path) -> None:
    bury(DeadLetters(tmp_path), 1, 2)
    bury(DeadLetters(tmp_path), 3)
    assert numbers(tmp_path / NAME) == [1, 2, 3]
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600


def test_a_full_file_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    bury(DeadLetters(tmp_path, most_bytes=80), *range(5))
    assert numbers(tmp_path / NAME) == [4]
    assert numbers(tmp_path / f"{NAME}.1") == [2, 3]


def test_one_that_is_larger_than_a_file_has_a_file_of_its_own(tmp_path: Path) -> None:
    bury(DeadLetters(tmp_path, most_bytes=1), 1, 2)
    assert numbers(tmp_path / NAME) == [2]


@pytest.mark.parametrize("how", ["directory", "link"])
def test_a_disk_that_fails_fails_nobody(how: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / NAME
    if how == "directory":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / "elsewhere")
    bury(DeadLetters(tmp_path), 1)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert '"number": 1' in record.getMessage()
    assert not (tmp_path / "elsewhere").exists()


def test_a_disk_that_is_too_slow_is_not_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_WAITING", 1)
    hangs, writes = threading.Event(), threading.Event()
    real = os.open

    def slow(*arguments: object, **options: object) -> int:
        writes.set()
        hangs.wait()
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(module.os, "open", slow)
    letters = DeadLetters(tmp_path)
    letters.start()
    letters.bury({"number": 1})
    writes.wait()
    letters.bury({"number": 2})
    letters.bury({"number": 3})
    assert "the disk is too slow" in caplog.text
    hangs.set()
    letters.close()
    assert numbers(tmp_path / NAME) == [1, 2]
