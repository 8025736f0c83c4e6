"""Text of a known width on the screen.

Law: what comes from others (names of clients, tasks, GPUs) never reaches the terminal as a control sequence,
and a line is never wider than it may be.
"""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

ELLIPSIS = "…"
# SGR parameters.
PLAIN, BOLD, DIM, RED, GREEN, YELLOW, CYAN = "", "1", "2", "31", "32", "33", "36"


class Part(NamedTuple):
    """Text in one style."""

    text: str
    style: str = PLAIN


Line = Sequence[Part]


def width_of(text: str) -> int:
    """Columns that it takes on a terminal."""
    return len(text) if text.isascii() else sum(_columns(letter) for letter in text)


def _columns(letter: str) -> int:
    if unicodedata.combining(letter):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def clean(text: str) -> str:
    """Without what a terminal would obey: control, format and unassigned characters become question marks."""
    if text.isascii() and text.isprintable():
        return text
    return "".join("?" if letter != " " and unicodedata.category(letter)[0] in "CZ" else letter for letter in text)


def cut(text: str, width: int) -> str:
    """At most so wide; what is missing at the end is an ellipsis."""
    if width_of(text) <= width:
        return text
    kept, left = "", width - 1
    for letter in text:
        left -= _columns(letter)
        if left < 0:
            break
        kept += letter
    return kept + ELLIPSIS if width > 0 else ""


def pad(text: str, width: int) -> str:
    """Exactly so wide."""
    text = cut(text, width)
    return text + " " * (width - width_of(text))


def paint(line: Line, width: int, *, colour: bool) -> str:
    """A line for the terminal, cut to its width."""
    made, left = "", width
    for part in line:
        text = cut(clean(part.text), left)
        left -= width_of(text)
        made += f"\x1b[{part.style}m{text}\x1b[0m" if colour and part.style and text.strip() else text
        if text.endswith(ELLIPSIS) and not left:
            break
    return made if colour else made.rstrip()


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, elastic: Sequence[int]) -> list[Line]:
    """A head line and the rows; where they are too wide, the columns in `elastic` give way, the widest first."""
    rows = [[clean(cell) for cell in row] for row in rows]
    widths = [max(width_of(row[place]) for row in (columns, *rows)) for place in range(len(columns))]
    excess = sum(widths) + 2 * (len(widths) - 1) - width
    while excess > 0:
        widest = max(elastic, key=lambda place: widths[place])
        if widths[widest] <= len(columns[widest]):
            break
        widths[widest] -= 1
        excess -= 1

    def joined(row: Sequence[str]) -> str:
        return "  ".join(pad(cell, each) for cell, each in zip(row, widths, strict=True))

    return [[Part(joined(columns), DIM)], *([Part(joined(row))] for row in rows)]
