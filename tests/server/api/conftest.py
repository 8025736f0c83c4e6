import logging
from collections.abc import Iterator

import pytest

from support.logs import no_errors_logged


@pytest.fixture(autouse=True)
def logged_errors() -> Iterator[list[logging.LogRecord]]:
    """No test here may leave an error in the log, unless it takes it off this list."""
    with no_errors_logged() as records:
        yield records
