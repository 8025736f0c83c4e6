"""A test that leaves an error in the log has found a defect, whatever it asserts."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


class _Keeper(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@contextmanager
def no_errors_logged() -> Iterator[list[logging.LogRecord]]:
    """Fails at the end for every record of level ERROR; a test that provokes one takes it off the list.

    grpc.aio reports what a handler raises in this way alone, and asyncio what a callback raises.
    """
    keeper = _Keeper()
    root = logging.getLogger()
    root.addHandler(keeper)
    try:
        yield keeper.records
    finally:
        root.removeHandler(keeper)
    assert not keeper.records, [logging.Formatter().format(record) for record in keeper.records]
