"""The examples of the pages are the files that the tests run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PAGES = {"python-tasks.md": "tasks.py", "python-web.md": "web_service.py"}


@pytest.mark.parametrize(("page", "example"), PAGES.items())
def test_the_page_shows_the_example_as_it_is(page: str, example: str):
    code = (ROOT / "clients/python/examples" / example).read_text()
    assert f"```python\n{code}```\n" in (ROOT / "docs" / page).read_text()


def test_every_example_is_on_a_page():
    pages = "".join(each.read_text() for each in (ROOT / "docs").glob("*.md"))
    for example in (ROOT / "clients/python/examples").glob("*.py"):
        assert example.name in pages or f"```python\n{example.read_text()}```\n" in pages, example


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_the_page_lead_somewhere(page: str):
    for target, anchor in re.findall(r"\]\(([\w.-]*)(?:#([\w-]+))?\)", (ROOT / "docs" / page).read_text()):
        assert not anchor or anchor in anchors(ROOT / "docs" / (target or page)), f"{target}#{anchor}"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}
