"""What follows a run: asked, told, notified, or only said to be."""

import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fakes.polling import async_until
from gpuarbiter_server.analysis.model import Holder, Result, Thresholds
from gpuarbiter_server.analysis.service import Run, Settings, evaluate
from gpuarbiter_server.app.acting import Acting
from gpuarbiter_server.app.problems import StartError
from gpuarbiter_server.core.effects import Asked, Asking, Effect
from gpuarbiter_server.core.errors import ArbiterError, ErrorReason
from gpuarbiter_server.core.events import AskToYield, Call, Event
from support.server import configured

from .analysis.windows import SOMEBODY, window

_AT_ONCE = "analysis.actions.after_runs=1"


def idle(*holders: Holder, gpu_id: str = "gpu:0") -> Result:
    (found,) = evaluate([window([0.0] * 20, holders=holders or (SOMEBODY,))], Settings())
    return replace(found, gpu=replace(found.gpu, gpu_id=gpu_id))


def run(*results: Result) -> Run:
    return Run(1_800_000_000.0, 0.1, results, 0, Thresholds())


class Core:
    """What asks the core, without one."""

    def __init__(self, asking: Asking | ArbiterError = Asking.ASKED) -> None:
        self.asking = asking
        self.events: list[AskToYield] = []
        self.counted: list[tuple[str, str]] = []

    async def ask(self, make: Callable[[Call], Event]) -> Effect:
        event = make(7)
        assert isinstance(event, AskToYield)
        self.events.append(event)
        if isinstance(self.asking, ArbiterError):
            raise self.asking
        return Asked(event.call, self.asking)

    @contextlib.asynccontextmanager
    async def acting(self, *overrides: str, directory: Path | None = None) -> AsyncIterator[Acting]:
        made = Acting(configured(_AT_ONCE, *overrides), self.ask, lambda *each: self.counted.append(each), directory)
        async with contextlib.AsyncExitStack() as stack:
            made.start(stack)
            yield made


async def done(acting: Acting, *runs: Run) -> None:
    """Once it has dealt with these runs."""
    for each in runs:
        acting.on_run(each)
    await async_until(acting._runs.empty)
    await acting._act(run())


async def test_nothing_is_done_unless_it_is_asked_for():
    core = Core()
    async with core.acting() as acting:
        await done(acting, run(idle()))
    assert (core.events, core.counted) == ([], [])


async def test_a_lease_is_asked_with_what_was_found():
    core = Core()
    async with core.acting("analysis.actions.yield=when_waiting") as acting:
        await done(acting, run(idle()))
    (event,) = core.events
    assert (event.lease_id, event.if_awaited) == ("lease-1", True)
    assert event.detail == "40.0 GiB of memory have been held for 10 min without any work."
    assert core.counted == [("yield", "ok")]


async def test_a_lease_on_several_gpus_is_asked_once_when_all_of_them_are_found():
    core = Core()
    both = SOMEBODY._replace(gpus=2)
    async with core.acting("analysis.actions.yield=always") as acting:
        await done(acting, run(idle(both)))
        assert core.events == []
        await done(acting, run(idle(both), idle(both, gpu_id="gpu:1")))
    assert [(event.lease_id, event.if_awaited) for event in core.events] == [("lease-1", False)]


async def test_a_pod_without_a_lease_cannot_be_asked():
    core = Core()
    async with core.acting("analysis.actions.yield=always") as acting:
        await done(acting, run(idle(Holder("team-a", "pod"))))
    assert core.events == []


@pytest.mark.parametrize("asking", [Asking.ASKED_BEFORE, Asking.NOBODY_WAITS, Asking.GONE])
async def test_only_what_was_asked_counts(asking: Asking):
    core = Core(asking)
    async with core.acting("analysis.actions.yield=always") as acting:
        await done(acting, run(idle()), run(idle()))
    assert len(core.events) == 2
    assert core.counted == []


async def test_a_core_that_refuses_fails_the_action_and_not_the_next(caplog: pytest.LogCaptureFixture):
    core = Core(ArbiterError(ErrorReason.SHUTDOWN, "the arbiter has stopped"))
    async with core.acting("analysis.actions.yield=always") as acting:
        await done(acting, run(idle(), idle(SOMEBODY._replace(lease_id="lease-2"), gpu_id="gpu:1")))
    assert core.counted == [("yield", "failed")] * 2
    assert "the arbiter has stopped" in caplog.text


async def test_a_dry_run_that_is_over_has_dealt_with_nothing():
    core = Core()
    # Nobody listens there.
    webhook = "analysis.control={enabled: true, url: 'http://127.0.0.1:9/', attempts: 1}"
    async with core.acting(webhook, "analysis.actions.dry_run=true") as acting:
        await done(acting, run(idle()), run(idle()))
        assert core.counted == [("webhook", "dry_run")]
        acting.configure(configured(_AT_ONCE, webhook))
        await done(acting, run(idle()))
        await async_until(lambda: len(core.counted) == 2)
    assert core.counted[1] == ("webhook", "failed")


async def test_a_defect_is_logged_and_the_next_run_is_acted_on(caplog: pytest.LogCaptureFixture):
    core = Core()
    async with core.acting("analysis.actions.yield=always") as acting:
        bad: Any = None
        await done(acting, run(bad), run(idle()))
    assert "could not act on a run of the analysis" in caplog.text
    assert len(core.events) == 1


async def test_runs_that_nobody_gets_to_are_let_go(caplog: pytest.LogCaptureFixture):
    acting = Acting(configured(), Core().ask, lambda *_: None, None)
    for _ in range(10):
        acting.on_run(run())
    assert acting._runs.qsize() == 4
    assert caplog.text.count("the actions lag behind") == 6


async def test_what_is_put_aside_without_a_directory_is_in_the_log(caplog: pytest.LogCaptureFixture):
    core = Core()
    # Nobody listens there.
    async with core.acting("analysis.control={enabled: true, url: 'http://127.0.0.1:9/', attempts: 1}") as acting:
        await done(acting, run(idle()))
        await async_until(lambda: bool(core.counted))
    assert core.counted == [("webhook", "failed")]
    assert "the control webhook did not take" in caplog.text
    assert "deliveries to the control webhook are not signed" in caplog.text


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "cannot be read: No such file"), (b"", "is empty"), (b" \n", "is empty"), (b"\xff", "it is no text")],
)
async def test_a_secret_that_cannot_be_had_keeps_it_from_starting(
    content: bytes | None, problem: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    monkeypatch.delenv("GPU_ARBITER_NOTIFY_URLS", raising=False)
    with pytest.raises(StartError, match=problem):
        Acting(configured(f"analysis.notify.urls_file={file}"), Core().ask, lambda *_: None, None)


async def test_the_environment_wins_and_comments_are_no_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "urls"
    file.write_text("# ours\njson://one/\n\n  json://two/ json://three/\n")
    overrides = f"analysis.notify.urls_file={file}"
    monkeypatch.delenv("GPU_ARBITER_NOTIFY_URLS", raising=False)
    acting = Acting(configured(overrides), Core().ask, lambda *_: None, None)
    assert acting._notifier is not None
    assert acting._notifier._addresses == ["json://one/", "json://two/", "json://three/"]
    monkeypatch.setenv("GPU_ARBITER_NOTIFY_URLS", " json://four/ ")
    acting = Acting(configured(overrides), Core().ask, lambda *_: None, None)
    assert acting._notifier is not None
    assert acting._notifier._addresses == ["json://four/"]
