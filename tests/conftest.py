"""External tools: a test that needs one says so with `@pytest.mark.tool("NAME")`.

Where the tool is missing the test is skipped, with the reason, and named again at the end of the run; with
GPU_ARBITER_REQUIRE_TOOLS set (CI) it fails instead, so that nothing goes missing without a word.
"""

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import settings

# A machine that is busy with something else is no reason to fail.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

REQUIRE_VARIABLE = "GPU_ARBITER_REQUIRE_TOOLS"
MISSING = "missing tool"


def find(name: str) -> str | None:
    """Where a tool is: in PATH, where .ci/run puts it, or where `go install` does."""
    gopath = Path(os.environ.get("GOPATH") or Path.home() / "go")
    own = Path(__file__).resolve().parents[1] / ".build" / "bin"
    return shutil.which(name) or shutil.which(name, path=own) or shutil.which(name, path=gopath / "bin")


def lacks(item: pytest.Item, name: str, reason: str) -> NoReturn:
    """Ends a test for want of something."""
    item.user_properties.append((MISSING, name))
    if os.environ.get(REQUIRE_VARIABLE):
        pytest.fail(f"{reason}, and {REQUIRE_VARIABLE} is set", pytrace=False)
    pytest.skip(reason)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name in [mark.args[0] for mark in item.iter_markers("tool")]:
        if find(name) is None:
            lacks(item, name, f"the tool {name} is neither in PATH nor in .build/bin nor in ~/go/bin")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tests = Counter(
        value
        for reports in (terminalreporter.getreports("skipped"), terminalreporter.getreports("error"))
        for report in reports
        for key, value in getattr(report, "user_properties", ())
        if key == MISSING
    )
    if tests:
        terminalreporter.section("tools that are missing")
    for name, count in sorted(tests.items()):
        terminalreporter.line(f"{name}: {count} tests were not run")


@pytest.fixture
def lacking(request: pytest.FixtureRequest) -> Callable[[str, str], NoReturn]:
    """Ends the test as a missing tool does, for what only turns out to be missing on the way: `lacking(NAME, why)`."""

    def end(name: str, reason: str) -> NoReturn:
        lacks(request.node, name, reason)

    return end


@pytest.fixture
def tool() -> Callable[[str], str]:
    """The path of a tool that the test is marked with."""

    def locate(name: str) -> str:
        path = find(name)
        assert path is not None, f'mark the test with @pytest.mark.tool("{name}")'
        return path

    return locate
