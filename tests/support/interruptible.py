"""Programs that a test starts get signals as a user's would, also where the tests run under nohup."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

_NAMES = ("SIGINT", "SIGQUIT", "SIGHUP")


@contextmanager
def interruptible() -> Iterator[None]:
    """Signals that are ignored here are not, so that no child inherits that."""
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number in ignored:
        signal.signal(number, signal.SIG_IGN)
