"""A store for the journal that does as a test says: it holds commits up, fails them, and keeps what it took."""

import threading
from collections.abc import Sequence

from gpuarbiter_server.core.records import Change


class Store:
    """What is committed; every commit waits while `gate` is closed, and fails while `fault` is set."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.fault = ""
        self.commits: list[list[Change]] = []
        self.reopened = 0
        self._broken = False

    def commit(self, changes: Sequence[Change]) -> None:
        """As the journal's."""
        self.entered.set()
        self.gate.wait()
        self._broken = self._broken or bool(self.fault)
        if self._broken:
            raise OSError(self.fault or "it is broken")
        self.commits.append(list(changes))

    def reopen(self) -> None:
        """As the journal's."""
        self.reopened += 1
        if self.fault:
            raise OSError(self.fault)
        self._broken = False


class Noting:
    """An observer of commits that counts."""

    def __init__(self) -> None:
        self.committed = self.failed = 0

    def journal_committed(self, seconds: float) -> None:
        """Counts."""
        assert seconds >= 0
        self.committed += 1

    def journal_failed(self) -> None:
        """Counts."""
        self.failed += 1
