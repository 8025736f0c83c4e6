"""The lines that people and programs read, and the thread that writes them."""

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from fakes.polling import until
from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.model import EndReason, EventType, Holder, WorkContext, YieldReason
from gpuarbiter_server.telemetry import log_lines, log_writer, logs
from gpuarbiter_server.telemetry.series import Exemplar

FULL = Recorded(
    EventType.ENDED,
    lease_id="3e8-1",
    request_id="r",
    task_type="ASR",
    holder=Holder("worker-0", namespace="speech", pod="asr-1"),
    gpus=("gpu:0", "gpu:1"),
    waited=0.12345,
    held=2.0,
    end_reason=EndReason.YIELDED,
    yield_reason=YieldReason.QUANTUM,
    detail="more than a word",
    traceparent=f"00-{'a' * 32}-{'1' * 16}-01",
)


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    logs.configure("warning")
    root.setLevel(level)
    root.handlers[:] = handlers


@contextmanager
def written(
    level: str = "debug", form: str = "console", levels: dict[str, str] | None = None
) -> Iterator[log_writer.LogWriter]:
    """What is logged within is written at the end."""
    writer = logs.start()
    logs.configure(level, levels, form)
    try:
        yield writer
    finally:
        writer.close()


def line(
    recorded: Recorded,
    capsys: pytest.CaptureFixture[str],
    form: str = "console",
    trace: Callable[[], Exemplar | None] = lambda: None,
) -> str:
    with written(form=form) as writer:
        logs.EventLog(writer, trace).observe(recorded)
    (said,) = capsys.readouterr().err.splitlines()
    return said


# -- what a line says --


def test_a_line_for_people_has_all_that_is_known(capsys: pytest.CaptureFixture[str]):
    at, _, said = line(FULL, capsys).partition(" ")
    assert len(at) == len("12:34:56.789")
    assert said == (
        "INFO events: ENDED task=ASR client=worker-0 namespace=speech pod=asr-1 gpu=gpu:0,gpu:1 lease=3e8-1 request=r "
        f"wait=0.123s hold=2.000s end=YIELDED yield=QUANTUM detail='more than a word' trace_id={'a' * 32}"
    )


def test_a_line_for_programs_is_one_object(capsys: pytest.CaptureFixture[str]):
    said = json.loads(line(FULL, capsys, "json"))
    assert said.pop("timestamp").endswith("+00:00")
    assert said == {
        "level": "info",
        "logger": "events",
        "event": "ENDED",
        "task": "ASR",
        "client": "worker-0",
        "namespace": "speech",
        "pod": "asr-1",
        "gpu": ["gpu:0", "gpu:1"],
        "lease": "3e8-1",
        "request": "r",
        "wait_seconds": 0.12345,
        "hold_seconds": 2.0,
        "end": "YIELDED",
        "yield": "QUANTUM",
        "detail": "more than a word",
        "trace_id": "a" * 32,
    }


def test_what_is_not_known_is_left_out(capsys: pytest.CaptureFixture[str]):
    assert line(Recorded(EventType.STOPPING), capsys).endswith("INFO events: STOPPING")


def test_no_wait_is_a_wait_of_nothing(capsys: pytest.CaptureFixture[str]):
    assert "wait=0.000s" in line(Recorded(EventType.GRANTED, waited=0.0), capsys)


@pytest.mark.parametrize(
    ("kind", "level"),
    [
        (EventType.QUEUED, "DEBUG"),
        (EventType.RENEWED, "DEBUG"),
        (EventType.GRANTED, "INFO"),
        (EventType.HOLD_EXCEEDED, "WARNING"),
        (EventType.GPU_LOST, "WARNING"),
        (EventType.COOLDOWN_STARTED, "WARNING"),
        (EventType.MEMORY_OVERUSE, "WARNING"),
    ],
)
def test_each_event_has_its_level(kind: EventType, level: str, capsys: pytest.CaptureFixture[str]):
    assert line(Recorded(kind), capsys).split()[1] == level


def test_our_own_trace_comes_before_the_callers(capsys: pytest.CaptureFixture[str]):
    assert line(FULL, capsys, trace=lambda: ("b" * 32, "2" * 16)).endswith(f"trace_id={'b' * 32}")


@pytest.mark.parametrize("form", log_lines.FORMATS)
def test_one_event_is_one_line_whatever_it_holds(form: str, capsys: pytest.CaptureFixture[str]):
    evil = Recorded(EventType.DRAINED, detail="a\nFORGED client=admin", task_type="b\r\nc\u2028d")
    assert len(line(evil, capsys, form).splitlines()) == 1


@pytest.mark.parametrize("form", log_lines.FORMATS)
def test_other_lines_keep_their_form_and_an_exception_is_told(form: str, capsys: pytest.CaptureFixture[str]):
    with written(form=form):
        log = logging.getLogger("gpuarbiter_server.store.journal")
        log.warning("the disk took %.1f s\nFORGED", 2.5)
        log.error("cannot write", exc_info=OSError("no space"))
    said = capsys.readouterr().err
    if form == "json":
        first, second = map(json.loads, said.splitlines())
        assert (first["level"], first["logger"]) == ("warning", "store.journal")
        assert first["event"] == "the disk took 2.5 s\nFORGED"
        assert "OSError: no space" in second["exception"]
    else:
        first_line, second_line, *trace = said.splitlines()
        assert first_line.endswith("WARNING store.journal: the disk took 2.5 s\\nFORGED")
        assert second_line.endswith("ERROR store.journal: cannot write")
        assert trace[-1] == "OSError: no space"


# -- from which level on --


@pytest.mark.parametrize(("level", "number"), [("debug", 10), ("info", 20), ("warning", 30), ("error", 40)])
def test_the_level_can_be_set_and_changed(level: str, number: int, capsys: pytest.CaptureFixture[str]):
    with written("error"):
        logs.configure(level)
        assert logging.getLogger().level == number
        logging.getLogger("x").error("said")
    assert capsys.readouterr().err.endswith("ERROR x: said\n")


def test_a_module_can_have_a_level_of_its_own_and_lose_it_again(capsys: pytest.CaptureFixture[str]):
    def say(what: str) -> None:
        for name in ("gpuarbiter_server.store.journal", "gpuarbiter_server.api", "other.library"):
            logging.getLogger(name).debug(what)
        logs.EventLog(writer).observe(Recorded(EventType.GRANTED))

    with written("info", levels={"store": "debug", "events": "error", "other.library": "debug"}) as writer:
        say("first")
        logs.configure("info", {"api": "debug"})
        say("second")
    said = [each.split(" ", 2)[2] for each in capsys.readouterr().err.splitlines()]
    assert said == ["store.journal: first", "other.library: first", "api: second", "events: GRANTED"]


def test_libraries_that_tell_every_detail_are_asked_for_it(capsys: pytest.CaptureFixture[str]):
    with written("info"):
        logging.getLogger("httpx").info("a request")
        logging.getLogger("httpx").warning("a warning")
        logs.configure("debug")
        logging.getLogger("httpx").info("a detail")
        logs.configure("error")
        logging.getLogger("httpx").warning("another")
    said = [each.split(" ", 1)[1] for each in capsys.readouterr().err.splitlines()]
    assert said == ["WARNING httpx: a warning", "INFO httpx: a detail"]


def test_what_nobody_wants_to_read_is_not_made(capsys: pytest.CaptureFixture[str]):
    def never() -> None:
        raise AssertionError("it was made")

    with written("info") as writer:
        logs.EventLog(writer, never).observe(Recorded(EventType.QUEUED))
    assert capsys.readouterr().err == ""


# -- who writes --


def test_a_reader_that_does_not_read_keeps_nobody_waiting_and_what_is_lost_is_counted(
    monkeypatch: pytest.MonkeyPatch,
):
    reading, writing = os.pipe()
    monkeypatch.setattr(log_writer, "_MOST_WAITING", 100)
    with os.fdopen(writing, "w") as stuck:
        monkeypatch.setattr(sys, "stderr", stuck)
        writer = logs.start()
        logging.getLogger("x").error("y" * 200_000)
        until(lambda: not writer._waiting)
        # The pipe is full now: these are taken, or counted, but nobody waits.
        for number in range(250):
            logging.getLogger("x").error("line %d", number)
        assert (len(writer._waiting), writer._lost) == (100, 150)
        got: list[str] = []
        with os.fdopen(reading) as reader:
            collector = threading.Thread(target=lambda: got.extend(reader))
            collector.start()
            writer.close()
            stuck.close()
            collector.join(10)
    assert sum(": line " in each for each in got) == 100
    assert got[-1].startswith("150 log lines were lost")


def test_a_line_that_cannot_be_made_does_not_end_the_others(capsys: pytest.CaptureFixture[str]):
    with written() as writer:
        writer.take(log_lines.Happened(0.0, "INFO", "GRANTED", None))  # type: ignore[arg-type]
        logging.getLogger("x").error("good")
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("a log line could not be made: TypeError")
    assert second.endswith("ERROR x: good")


@pytest.mark.parametrize(("form", "midnight"), [("console", "00:00:00.000"), ("json", "2026-01-01T00:00:00.000+00:00")])
def test_times_go_on_from_second_to_second(
    form: str, midnight: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    at = 1_767_225_600.0
    with written(form=form) as writer:
        for moment in (at - 0.001, at, at + 0.5, at + 86_400):
            writer.take(log_lines.happened(moment, "INFO", Recorded(EventType.GRANTED), ""))
    monkeypatch.undo()
    time.tzset()
    before, then, later, next_day = capsys.readouterr().err.splitlines()
    assert "59.999" in before
    assert midnight in then
    assert "00:00:00.500" in later
    assert ("2026-01-02T00:00:00.000" if form == "json" else "00:00:00.000") in next_day


def test_what_waits_to_be_written_keeps_no_more_than_its_line():
    context = WorkContext(attributes=(("key", "value"),))
    recorded = Recorded(EventType.GRANTED, context=context, tracestate="a=b", holder=Holder("c", container="x"))
    kept = log_lines.happened(0.0, "INFO", recorded, "")
    assert recorded not in kept
    assert context not in [value for _, value in kept.fields]
    assert recorded.holder not in [value for _, value in kept.fields]


def test_who_logs_a_line_that_does_not_fit_its_arguments_gets_no_error(capsys: pytest.CaptureFixture[str]):
    with written():
        logging.getLogger("x").error("%d things", "no")
    assert "ERROR x: '%d things' ('no',)\n" in capsys.readouterr().err


def test_what_is_logged_is_as_it_was_then(capsys: pytest.CaptureFixture[str]):
    with written():
        things = ["a"]
        logging.getLogger("x").error("things: %s", things)
        things.append("b")
    assert "things: ['a']\n" in capsys.readouterr().err
