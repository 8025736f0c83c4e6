"""A program on a terminal of its own."""

import os
import pty
from collections.abc import Mapping

import pytest

# Marks a test that makes one: pty.fork in a process with threads is warned of.
FORKS = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


class Screen:
    """The program, what it has shown so far, and its keyboard."""

    def __init__(self, environment: Mapping[str, str], *command: str) -> None:
        self.pid, self._terminal = pty.fork()
        if self.pid == 0:
            os.execvpe(command[0], command, environment)
        self.text = ""

    def shows(self, text: str) -> bool:
        """Reads on until it does."""
        while text not in self.text:
            self.text += os.read(self._terminal, 4096).decode()
        return True

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def exit_code(self) -> int:
        _, status = os.waitpid(self.pid, 0)
        os.close(self._terminal)
        return os.waitstatus_to_exitcode(status)
