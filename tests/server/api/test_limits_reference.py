"""The generated page: complete, and readable."""

import re

import pytest
from tools.limits_reference import limits_reference

from gpuarbiter_server.api.limit_table import LIMITS


@pytest.fixture(scope="module")
def page() -> str:
    ((path, text),) = limits_reference().items()
    assert path.name == "limits.md"
    return text


def test_every_field_of_every_message_has_its_row(page: str):
    for name, rows in LIMITS.items():
        section = page.split(f"## {name}\n")[1].split("\n## ", maxsplit=1)[0]
        assert re.findall(r"^\| `(\w+)` \| .+ \|$", section, re.MULTILINE) == list(rows.fields)
        for rule in rows.rules:
            assert f"- `{rule.field}`: {rule.description}.\n" in section


def test_links_lead_somewhere(page: str):
    for name, anchor in re.findall(r"\[(\w+)\]\(#(\w+)\)", page):
        assert anchor == name.lower()
        assert f"\n## {name}\n" in page


def test_nothing_is_told_in_the_words_of_the_code(page: str):
    for word in ("Text(", "Number(", "\\x", "18446744073709551615", "86400"):
        assert word not in page
