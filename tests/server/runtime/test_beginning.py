from pathlib import Path

from gpuarbiter_server.core.journal import TOKEN_BLOCK
from gpuarbiter_server.core.records import GpuSaved, SavedGpu
from gpuarbiter_server.runtime.beginning import from_journal, in_memory
from gpuarbiter_server.store.journal import Journal

SECOND = 1 << 20


def test_in_memory_every_start_is_the_first():
    first, second = in_memory(wall=1000.9), in_memory(wall=1001.0)
    assert (first.epoch, first.first_token, first.tokens_until, first.recover) == (1, int(1000.9 * SECOND), None, None)
    # Even of two in one second.
    assert second.first_token > first.first_token
    assert first.id_key != second.id_key


def start(folder: Path, *, wall: float, boot_id: str = "boot", pid_namespace: int = 7):
    journal = Journal.open(folder, durability="full")
    begun = from_journal(journal, boot_id=boot_id, pid_namespace=pid_namespace, wall=wall)
    journal.commit([GpuSaved(SavedGpu("gpu:0", "", 0, "fan", None))])
    journal.close()
    return begun


def test_a_start_goes_on_where_the_last_one_ended(tmp_path: Path):
    first = start(tmp_path, wall=1000)
    assert (first.epoch, first.first_token, first.tokens_until) == (1, 1000 * SECOND, 1000 * SECOND + TOKEN_BLOCK - 1)
    second = start(tmp_path, wall=1001)
    assert (second.epoch, second.first_token, second.id_key) == (2, 1001 * SECOND, first.id_key)
    assert second.recover is not None
    assert second.recover.same_boot
    assert second.recover.same_pids
    assert second.recover.saved.gpus[0].cordon == "fan"


def test_a_clock_that_was_set_back_lowers_no_token(tmp_path: Path):
    first = start(tmp_path, wall=1000)
    second = start(tmp_path, wall=10)
    assert first.tokens_until is not None
    assert second.first_token == first.tokens_until + 1


def test_another_boot_and_another_pid_namespace_are_noticed(tmp_path: Path):
    start(tmp_path, wall=1000)
    rebooted = start(tmp_path, wall=1001, boot_id="other").recover
    moved = start(tmp_path, wall=1002, boot_id="other", pid_namespace=8).recover
    assert rebooted is not None
    assert moved is not None
    assert (rebooted.same_boot, rebooted.same_pids) == (False, True)
    assert (moved.same_boot, moved.same_pids) == (True, False)


def test_pids_of_an_unknown_namespace_are_not_the_same(tmp_path: Path):
    start(tmp_path, wall=1000, pid_namespace=0)
    again = start(tmp_path, wall=1001, pid_namespace=0).recover
    assert again is not None
    assert not again.same_pids
