"""The pure parts of the page, under Node: what they say, what they keep, and where they draw it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

PAGES = Path(__file__).with_name("pages")


@pytest.mark.tool("node")
@pytest.mark.parametrize("page", sorted(path.name for path in PAGES.glob("*.test.js")))
def test_the_parts_of_the_page_that_need_no_browser(page: str, tool: Callable[[str], str]):
    done = subprocess.run(
        [tool("node"), "--test", "--no-warnings", page],
        cwd=PAGES,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
