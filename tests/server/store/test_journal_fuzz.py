"""A journal that was damaged anywhere gives back a state that was true once, or refuses. Never anything else.

A long life is written, and its files are copied in the midst of it, as a power cut would leave them. Then each
case damages one copy somewhere and opens it. GPU_ARBITER_FUZZ sets how many cases there are, GPU_ARBITER_FUZZ_SEED
where they begin; a case that fails names its seed.
"""

import os
import random
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

from gpuarbiter_server.core.records import Closed, LeaseSaved
from gpuarbiter_server.store import journal_file, journal_rows
from gpuarbiter_server.store.journal import JournalError, Loaded

from .journals import Life, Told, ended, lease, unsynced

CASES = int(os.environ.get("GPU_ARBITER_FUZZ", "400"))
FIRST_SEED = int(os.environ.get("GPU_ARBITER_FUZZ_SEED", "0"))
DB, WAL = "journal.db", "journal.db-wal"
PAGE = 4096
COMMITS = 500


@dataclass(frozen=True)
class Moment:
    """The files at one moment, and how many of the states had been true by then."""

    folder: Path
    states: int

    @property
    def has_log(self) -> bool:
        log = self.folder / WAL
        return log.exists() and log.stat().st_size > 0


class Past:
    """A life that was written, with everything that was true in it."""

    def __init__(self, folder: Path) -> None:
        self.moments: list[Moment] = []
        self._folder = folder
        self._random = random.Random(1)
        self._life = Life(2)
        self._told = Told()
        self._states: list[Loaded] = []
        with mock.patch.multiple(journal_file, _CHECKPOINT_PAGES=70), mock.patch.multiple(journal_rows, _LOT=16):
            for start in range(5):
                self._start(start)

    def index(self, loaded: Loaded) -> int | None:
        """Which state it is, the latest such; None: it was never true."""
        return next((at for at in reversed(range(len(self._states))) if self._states[at] == loaded), None)

    def _start(self, start: int) -> None:
        journal = unsynced(self._folder / "live")
        self._key = journal.loaded.id_key
        if not start:
            self._keep()
        boot = {"boot_id": f"boot-{start // 3}", "pid_namespace": 1 + start // 2}
        for each in (journal, self._told):
            each.begin(epoch=start + 1, tokens_until=1 << 40, **boot)  # type: ignore[arg-type]
        self._keep()
        for _ in range(COMMITS // 5):
            changes = self._life.changes(self._told)
            journal.commit(changes)
            self._told.commit(changes)
            self._keep()
            if self._random.random() < 0.05:
                self._copy()
        journal.close()
        self._copy()

    def _keep(self) -> None:
        told = self._told
        self._states.append(
            Loaded(told.saved, told.epoch, told.boot_id, told.pid_namespace, self._key, told.tokens_until)
        )

    def _copy(self) -> None:
        at = self._folder / f"moment-{len(self.moments)}"
        at.mkdir()
        for name in (DB, WAL):
            with suppress(FileNotFoundError):
                shutil.copy(self._folder / "live" / name, at)
        self.moments.append(Moment(at, len(self._states)))


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Past:
    return Past(tmp_path_factory.mktemp("past"))


Damage = Callable[[random.Random, Path, Past], None]


def truncate(name: str) -> Damage:
    def damage(dice: random.Random, folder: Path, _past: Past) -> None:
        path = folder / name
        os.truncate(path, dice.randrange(path.stat().st_size + 1))

    return damage


def flip(name: str) -> Damage:
    def damage(dice: random.Random, folder: Path, _past: Past) -> None:
        path = folder / name
        content = bytearray(path.read_bytes())
        # Many of them at the start, where most means something.
        reach = min(len(content), dice.choice((len(content), PAGE, 100)))
        for _ in range(dice.randint(1, 8)):
            content[dice.randrange(reach)] ^= 1 << dice.randrange(8)
        path.write_bytes(content)

    return damage


def without_log(_dice: random.Random, folder: Path, _past: Past) -> None:
    (folder / WAL).unlink()


def log_of_another_moment(dice: random.Random, folder: Path, past: Past) -> None:
    other = dice.choice([moment for moment in past.moments if moment.has_log])
    shutil.copy(other.folder / WAL, folder)


def pages_of_another_moment(dice: random.Random, folder: Path, past: Past) -> None:
    """Writes that the disk lost, or made late."""
    path = folder / DB
    content = bytearray(path.read_bytes())
    other = (dice.choice(past.moments).folder / DB).read_bytes()
    for _ in range(dice.randint(1, 4)):
        at = PAGE * dice.randrange(min(len(content), len(other)) // PAGE)
        content[at : at + PAGE] = other[at : at + PAGE]
    path.write_bytes(content)


DAMAGES: dict[str, Damage] = {
    "cut the file": truncate(DB),
    "cut the log": truncate(WAL),
    "bits of the file": flip(DB),
    "bits of the log": flip(WAL),
    "no log": without_log,
    "another log": log_of_another_moment,
    "other pages": pages_of_another_moment,
}


def undamaged(folder: Path) -> Loaded:
    journal = unsynced(folder)
    journal.close()
    return journal.loaded


def open_and_go_on(folder: Path) -> tuple[Loaded, bool]:
    """What is read; and whether, once more was written, that is read too."""
    journal = unsynced(folder)
    loaded = journal.loaded
    try:
        journal.begin(epoch=loaded.epoch + 1, boot_id=loaded.boot_id, pid_namespace=1, tokens_until=0)
        token = loaded.tokens_until + 1
        journal.commit([LeaseSaved(lease(token))])
        journal.commit([*(Closed(ended(each.token, at=1e5)) for each in loaded.saved.leases)])
    finally:
        journal.close()
    again = undamaged(folder).saved
    return loaded, again.leases == (lease(token),) and again.gpus == loaded.saved.gpus


def test_every_moment_is_read_as_it_was(past: Past, tmp_path: Path):
    for number, moment in enumerate(past.moments):
        folder = tmp_path / str(number)
        shutil.copytree(moment.folder, folder)
        assert undamaged(folder) == past._states[moment.states - 1]


def test_no_damage_makes_a_state_that_never_was(past: Past, tmp_path: Path):
    """Refused or true; also where what was damaged is written to afterwards."""
    became: Counter[str] = Counter()
    for seed in range(FIRST_SEED, FIRST_SEED + CASES):
        dice = random.Random(seed)
        name, damage = dice.choice(list(DAMAGES.items()))
        moments = [each for each in past.moments if each.has_log or "log" not in name]
        moment = dice.choice(moments)
        folder = tmp_path / "damaged"
        shutil.copytree(moment.folder, folder)
        damage(dice, folder, past)
        what = f"seed {seed}: {name} of moment {moment.folder.name}"
        try:
            loaded, went_on = open_and_go_on(folder)
        except JournalError:
            became["refused"] += 1
        else:
            at = past.index(loaded)
            assert at is not None, f"{what}: this never was: {loaded}"
            assert went_on, f"{what}: what was written afterwards was not read"
            became["the newest" if at == moment.states - 1 else "an earlier one"] += 1
        shutil.rmtree(folder)
    print(f"\n{CASES} damaged journals: {dict(became)}")
    assert became["refused"]
    assert became["the newest"]
    assert became["an earlier one"]
