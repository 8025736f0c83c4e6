"""The arbiter dies again and again under load: no two holders at a time, no token twice, and its clients go on.

It dies 12 times, and 200 times where GPU_ARBITER_SOAK is set; then the figures are shown.
"""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from e2e.harness.client import Client
from e2e.harness.kill_clients import HABITS
from e2e.harness.kill_lives import CHECKPOINTS, PLANS, Death, Lives, planned
from e2e.harness.kill_report import Report, table
from support import soak
from support.process import Arbiterd, environment

Connect = Callable[[Arbiterd], Client]

TESTS = Path(__file__).parents[1]
# For those who still wait when the last one serves.
FINISH_SECONDS = 60.0


@pytest.fixture
def fleet(folder: Path, tmp_path: Path) -> Iterator[Callable[[Lives, int], subprocess.Popen[str]]]:
    """Starts the clients; closing its stdin has them finish."""
    started: list[subprocess.Popen[str]] = []

    def start(lives: Lives, seed: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "e2e.harness.kill_clients", lives.now.grpc, lives.now.socket]
        errors = (tmp_path / "stderr").open("w")
        process = subprocess.Popen(
            [*command, str(tmp_path), str(len(HABITS)), str(seed)],
            cwd=TESTS,
            env=environment(folder),
            stdin=subprocess.PIPE,
            stderr=errors,
            text=True,
            process_group=0,
        )
        errors.close()
        started.append(process)
        return process

    yield start
    for each in started:
        if each.poll() is None:
            # Its children are in its group.
            os.killpg(each.pid, signal.SIGKILL)
        each.wait()
        assert each.stdin is not None
        each.stdin.close()


@pytest.mark.timeout(1800)
async def test_clients_live_through_the_deaths_of_their_arbiter(
    folder: Path,
    tmp_path: Path,
    connect: Connect,
    fleet: Callable[[Lives, int], subprocess.Popen[str]],
    capsys: pytest.CaptureFixture[str],
):
    kills, seed = 200 if soak.wanted() else 12, random.randrange(2**32)
    dice = random.Random(seed)
    lives = Lives(folder, tmp_path, dice, "gpus=sim:3x24GiB", "node=test-node")
    try:
        clients = fleet(lives, seed)
        for plan in planned(kills, checkpoints=8 if soak.wanted() else 0):
            lives.die(plan)
        assert clients.stdin is not None
        clients.stdin.close()
        code = await asyncio.to_thread(clients.wait, FINISH_SECONDS)
        snapshot = await connect(lives.now).snapshot()
    finally:
        outputs = lives.close()
    report = Report(tmp_path, lives.deaths)
    with soak.figures(capsys):
        print(f"\n{report.clients} clients on three simulated GPUs, seed {seed}\n{table(report)}")

    # What the clients saw.
    assert (code, report.left) == (0, len(HABITS)), (tmp_path / "stderr").read_text()
    assert not report.broken
    assert len(lives.deaths) >= kills
    assert len(report.resumed) >= kills / 6
    assert len(report.waited_through) >= kills / 6
    assert len(report.holds) > 3 * kills

    # What the arbiters did.
    assert not [output for output in outputs if "Traceback" in output or "ERROR" in output]
    if soak.wanted():
        missed = {plan.name for plan in (*PLANS, *CHECKPOINTS)} - {death.kind for death in lives.deaths}
        assert not missed

    # Nothing is left.
    assert not snapshot.leases
    assert snapshot.queue_length == 0


class TestTheJudge:
    """It finds what it is there to find."""

    @pytest.fixture
    def judge(self, tmp_path: Path) -> Callable[..., Report]:
        """Of the diaries of clients: (seconds, event, request, facts); deaths are (died, started, served)."""

        def read(*diaries: list[Told], deaths: Sequence[tuple[float, float, float | None]] = ()) -> Report:
            for number, told in enumerate(diaries):
                lines = [_line(at, event, request, **facts) for at, event, request, facts in told]
                (tmp_path / f"client-{number}.jsonl").write_text("\n".join(lines))
            return Report(tmp_path, [Death("planned", *times) for times in deaths])

        return read

    def test_what_is_in_order(self, judge: Callable[..., Report]):
        report = judge(_hold(1, "A", 1.0, 2.0), _hold(2, "B", 2.0, 3.0), _hold(3, "C", 1.0, 3.0, gpu="gpu:1"))
        assert not report.broken
        assert [hold.token for hold in report.holds] == [1, 3, 2]

    def test_two_holders_at_a_time(self, judge: Callable[..., Report]):
        report = judge(_hold(1, "A", 1.0, 2.0), _hold(2, "B", 1.9, 3.0))
        assert len(report.overlaps()) == len(report.broken) == 1

    def test_a_holder_that_has_lost_it_is_none(self, judge: Callable[..., Report]):
        lost = _hold(1, "A", 1.0, 4.0)
        lost.insert(2, (1.5, "lost", "A", {"reason": "NOT_RECOVERED"}))
        report = judge(lost, _hold(2, "B", 2.0, 3.0))
        assert not report.overlaps()
        assert "NOT_RECOVERED" in report.broken[0]

    @pytest.mark.parametrize("tokens", [(1, 1), (2, 1)])
    def test_tokens_that_do_not_rise(self, judge: Callable[..., Report], tokens: tuple[int, int]):
        report = judge(_hold(tokens[0], "A", 1.0, 2.0), _hold(tokens[1], "B", 2.0, 3.0))
        assert report.broken
        assert all(line.startswith("token") for line in report.broken)

    def test_a_token_of_two_gpus(self, judge: Callable[..., Report]):
        report = judge(_hold(1, "A", 1.0, 2.0), _hold(1, "B", 2.0, 3.0, gpu="gpu:1"))
        assert len(report.broken) == 1

    def test_a_request_with_two_leases(self, judge: Callable[..., Report]):
        report = judge([*_hold(1, "A", 1.0, 2.0), *_hold(2, "A", 2.0, 3.0)[1:]])
        assert "two grants of one request" in report.broken[0]

    @pytest.mark.parametrize("kept", [1, 2, 3])
    def test_what_has_no_end(self, judge: Callable[..., Report], kept: int):
        assert judge(_hold(1, "A", 1.0, 2.0)[:kept]).broken

    def test_what_was_lost_while_the_arbiter_was_away_for_too_long(self, judge: Callable[..., Report]):
        lost = _hold(1, "A", 1.0, 8.0)
        lost.insert(2, (7.0, "lost", "A", {"reason": "DISCONNECTED"}))
        for deaths in ([(2.0, 2.0, 6.0)], [(2.0, 2.0, None), (3.0, 3.0, 4.0), (5.0, 5.0, 6.0)]):
            report = judge(lost, deaths=deaths)
            assert (len(report.excused), report.broken) == (1, [])
        # What was not recovered is no matter of time.
        lost[2] = (7.0, "lost", "A", {"reason": "NOT_RECOVERED"})
        report = judge(lost, deaths=[(2.0, 2.0, 6.0)])
        assert (len(report.excused), len(report.broken)) == (0, 1)

    def test_what_was_lost_though_the_arbiter_was_there(self, judge: Callable[..., Report]):
        lost = _hold(1, "A", 1.0, 8.0)
        lost.insert(2, (7.0, "lost", "A", {"reason": "DISCONNECTED"}))
        for deaths in ([(2.0, 2.0, 3.0)], [(2.0, 2.0, 3.0), (5.5, 5.5, 6.0)], []):
            report = judge(lost, deaths=deaths)
            assert (len(report.excused), len(report.broken)) == (0, 1)

    def test_what_lived_through_a_death(self, judge: Callable[..., Report]):
        held = _hold(1, "A", 1.0, 5.0)
        held[2:2] = [(2.1, "uncertain", "A", {}), (3.5, "mended", "A", {})]
        waited = [(0.5, "asks", "B", {}), (1.0, "queued", "B", {}), *_hold(2, "B", 6.0, 7.0)[1:]]
        report = judge(held, waited, deaths=[(2.0, 2.2, 3.0), (9.0, 9.5, 10.0)])
        assert report.held_through == report.resumed == [report.holds[0]]
        assert len(report.waited_through) == 1
        assert report.resumes() == [pytest.approx((1.5, 1.3))]
        assert not report.told_later

    def test_what_was_granted_by_one_and_told_by_the_next(self, judge: Callable[..., Report]):
        told = _hold(1, "A", 4.0, 5.0)
        told[1][3]["granted_wall"] = WALL + 1.0
        told.insert(1, (2.0, "failed", "A", {"transient": True}))
        report = judge(told, deaths=[(2.0, 2.2, 3.0)])
        assert len(report.told_later) == 1
        assert not report.broken


Told = tuple[float, str, str, dict[str, Any]]
# What the wall clock is ahead of the monotonic one.
WALL = 1_000_000.0


def _line(at: float, event: str, request: str, **facts: Any) -> str:
    return json.dumps({"event": event, "at": at, "wall": WALL + at, "request": request, **facts})


def _hold(token: int, request: str, begin: float, end: float, *, gpu: str = "gpu:0") -> list[Told]:
    return [
        (begin - 0.5, "asks", request, {}),
        (begin, "granted", request, {"token": token, "gpu": gpu, "granted_wall": WALL + begin}),
        (end, "releases", request, {}),
        (end + 0.1, "released", request, {"reason": "RELEASED"}),
    ]
