"""The lines that people read."""

import logging
from collections.abc import Iterator

import pytest

from gpuarbiter_server.core.effects import Recorded
from gpuarbiter_server.core.model import EndReason, EventType, Holder, YieldReason
from gpuarbiter_server.telemetry import logs

FULL = Recorded(
    EventType.ENDED,
    lease_id="3e8-1",
    request_id="r",
    task_type="ASR",
    holder=Holder("worker-0"),
    gpus=("gpu:0", "gpu:1"),
    waited=0.12345,
    held=2.0,
    end_reason=EndReason.YIELDED,
    yield_reason=YieldReason.QUANTUM,
    detail="more than a word",
)


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    root = logging.getLogger()
    level, handlers = root.level, root.handlers[:]
    yield
    root.setLevel(level)
    root.handlers[:] = handlers


def line(recorded: Recorded, caplog: pytest.LogCaptureFixture) -> tuple[str, str]:
    caplog.clear()
    with caplog.at_level(logging.DEBUG, "gpuarbiter.events"):
        logs.EventLog().observe(recorded)
    (record,) = caplog.records
    return record.levelname, record.getMessage()


def test_a_line_has_all_that_is_known(caplog: pytest.LogCaptureFixture):
    level, said = line(FULL, caplog)
    assert level == "INFO"
    assert said == (
        "ENDED task=ASR client=worker-0 gpu=gpu:0,gpu:1 lease=3e8-1 request=r wait=0.123s hold=2.000s end=YIELDED "
        "yield=QUANTUM detail='more than a word'"
    )


def test_what_is_not_known_is_left_out(caplog: pytest.LogCaptureFixture):
    assert line(Recorded(EventType.STOPPING), caplog)[1] == "STOPPING"


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
def test_each_event_has_its_level(kind: EventType, level: str, caplog: pytest.LogCaptureFixture):
    assert line(Recorded(kind), caplog)[0] == level


def test_what_nobody_wants_to_read_is_not_written(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "gpuarbiter.events"):
        logs.EventLog().observe(Recorded(EventType.QUEUED))
    assert not caplog.records


def test_one_event_is_one_line_whatever_it_holds(caplog: pytest.LogCaptureFixture):
    said = line(Recorded(EventType.DRAINED, detail="a\nFORGED client=admin", task_type="b\r\nc"), caplog)[1]
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(("level", "number"), [("debug", 10), ("info", 20), ("warning", 30), ("error", 40)])
def test_the_level_can_be_set_and_changed(level: str, number: int, capsys: pytest.CaptureFixture[str]):
    logs.configure("error")
    logs.configure(level)
    assert logging.getLogger().level == number
    logging.getLogger("x").error("said")
    assert capsys.readouterr().err.endswith("ERROR x: said\n")
