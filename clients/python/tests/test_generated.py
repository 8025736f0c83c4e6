"""The generator of the synchronous half."""

from pathlib import Path

import pytest

unasync = pytest.importorskip("tools.unasync", reason="needs the repository")

SOURCE = '''\
"""Use `async with AsyncArbiter()`; await it."""
from gpuarbiter._aio import backend
from collections.abc import AsyncIterator


async def work(arbiter: "AsyncArbiter") -> AsyncIterator[int]:  # noqa: ASYNC109 -- x
    async with arbiter.lease("async") as lease, other():
        async for each in (await lease.read(
            1,
        )):
            yield each  # await each
    return [x async for x in y]
'''

EXPECTED = '''\
"""Use `with Arbiter()`; it."""
from gpuarbiter._sync import backend
from collections.abc import Iterator


def work(arbiter: "Arbiter") -> Iterator[int]:
    with arbiter.lease("async") as lease, other():
        for each in (lease.read(
            1,
        )):
            yield each  # each
    return [x for x in y]
'''


def test_tokens_are_replaced():
    assert unasync.synchronous(SOURCE) == EXPECTED


def test_what_is_committed_is_current():
    for path, text in unasync.sync_client().items():
        assert path.read_text() == text, f"{path} is not current: run `make proto`"


def test_a_generated_file_without_a_source_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source, target = tmp_path / "aio", tmp_path / "sync"
    source.mkdir()
    target.mkdir()
    (target / "old.py").touch()
    (target / "backend.py").touch()
    monkeypatch.setattr(unasync, "FOLDERS", {source: target})
    with pytest.raises(SystemExit, match=r"to be deleted: .*old\.py"):
        unasync.sync_client()
