"""The admin token: where it comes from, who else may read it, and what is wrong with it."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gpuarbiter_server.store import admin_token
from gpuarbiter_server.store.admin_token import NAME, TokenError, find

TOKEN = "0123456789abcdef._~+/-=="
BY_ENVIRONMENT = {"GPU_ARBITER_ADMIN_TOKEN": f" {TOKEN}\n"}


def written(file: Path, text: str, mode: int = 0o600) -> str:
    file.write_text(text)
    file.chmod(mode)
    return str(file)


def test_it_is_made_once_for_its_user_alone(tmp_path: Path):
    directory = tmp_path / "above" / "state"
    made = find("auto", directory, {})
    assert made is not None
    # 256 bits in base64.
    assert len(made) == 43
    assert find("auto", directory, {"GPU_ARBITER_ADMIN_TOKEN": " "}) == made
    assert {(each.name, each.stat().st_mode & 0o777) for each in directory.iterdir()} == {(NAME, 0o600)}
    assert directory.stat().st_mode & 0o777 == 0o700
    assert find("auto", tmp_path / "another", {}) != made


def test_of_many_who_make_it_at_once_all_get_the_same(tmp_path: Path):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: find("auto", tmp_path / "state", {}), range(50)))) == 1
    assert len(list((tmp_path / "state").iterdir())) == 1


def test_half_a_token_is_never_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TokenError, match="admin-token cannot be read or made: No space left on device"):
        find("auto", tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_the_environment_wins_and_a_file_comes_next(tmp_path: Path):
    file = written(tmp_path / "mine", f"{TOKEN}\n")
    assert find(file, tmp_path / "state", {}) == TOKEN
    assert find(file, tmp_path / "state", {"GPU_ARBITER_ADMIN_TOKEN": "x" * 16}) == "x" * 16
    assert find("/nowhere", None, BY_ENVIRONMENT) == TOKEN
    assert not (tmp_path / "state").exists()


def test_without_a_place_there_is_none():
    assert find("auto", None, {}) is None


@pytest.mark.parametrize("mode", [0o400, 0o440, 0o600, 0o640, 0o700])
def test_a_group_may_read_it(tmp_path: Path, mode: int):
    assert find(written(tmp_path / "mine", TOKEN, mode), None, {}) == TOKEN


@pytest.mark.parametrize("mode", [0o604, 0o602, 0o620, 0o644, 0o666])
def test_a_file_that_others_can_read_or_write_is_refused(tmp_path: Path, mode: int):
    with pytest.raises(TokenError, match=r"mine can be read or written by others: .* chmod 600"):
        find(written(tmp_path / "mine", TOKEN, mode), None, {})
    written(tmp_path / NAME, TOKEN, mode)
    with pytest.raises(TokenError, match="admin-token can be read or written by others"):
        find("auto", tmp_path, {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        ("short", "holds something else"),
        ("x" * 513, "holds something else"),
        ("x" * 5000, "holds something else"),
        ("two words of many letters", "holds something else"),
        (f"{TOKEN}\n{TOKEN}\n", "holds something else"),
        ("ä" * 32, "holds something else"),
    ],
)
def test_what_is_no_token_is_told_and_not_shown(tmp_path: Path, text: str, said: str):
    with pytest.raises(TokenError, match=f"mine {said}; an admin token has 16 to 512") as wrong:
        find(written(tmp_path / "mine", text), None, {})
    assert not text.strip() or text.strip() not in str(wrong.value)
    if said != "is empty":
        with pytest.raises(
            TokenError, match="environment variable GPU_ARBITER_ADMIN_TOKEN holds something else"
        ) as wrong:
            find("auto", None, {"GPU_ARBITER_ADMIN_TOKEN": text})
        assert text not in str(wrong.value)


def test_a_file_that_cannot_be_read_is_told(tmp_path: Path):
    with pytest.raises(
        TokenError, match=r"none cannot be read or made: No such file or directory; set auth\.admin_token"
    ):
        find(str(tmp_path / "none"), None, {})
    for no_file in (str(tmp_path), "/dev/null"):
        with pytest.raises(TokenError, match=r"is no file"):
            find(no_file, None, {})


def test_a_pipe_holds_nobody_up(tmp_path: Path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(TokenError, match="pipe is no file"):
        find(str(tmp_path / "pipe"), None, {})


def test_it_is_not_made_where_others_can_put_files(tmp_path: Path):
    tmp_path.chmod(0o777)
    with pytest.raises(TokenError, match=r"can be written by others; set journal.path"):
        find("auto", tmp_path, {})
    assert list(tmp_path.iterdir()) == []


def test_it_is_not_made_where_nothing_can_be_made(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TokenError, match="admin-token cannot be read or made: File exists"):
        find("auto", tmp_path / "file", {})


def test_why_there_is_none_names_the_way_out():
    assert "GPU_ARBITER_ADMIN_TOKEN" in admin_token.NO_PLACE
