"""Facts and tables in columns, for commands that people call often: importing rich takes longer than a payment.

Their texts may come from outside: they are made printable (hutong_contract.cleaning), so a row is one line.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

import click

from hutong_contract.cleaning import JOINERS, printable

GAP = "  "
"""Between two columns."""


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Names and values in two columns, one row a line; rows without a value are left out."""
    shown = [(name, printable(value)) for name, value in rows if value.strip()]
    wide = max((width(name) for name, _ in shown), default=0)
    return "".join(f"{click.style(_filled(name, wide), dim=True)}{GAP}{value}\n" for name, value in shown)


def table(title: str, names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under a title and the names of their columns; empty where there are no rows."""
    cells = [[printable(one) for one in row] for row in rows]
    if not cells:
        return ""
    wide = [max(width(row[at]) for row in (names, *cells)) for at in range(len(names))]
    lines = [_line(row, wide) for row in cells]
    return "\n".join([click.style(title, bold=True), click.style(_line(names, wide), dim=True), *lines, ""])


def width(text: str) -> int:
    """Columns that a text takes in a terminal: Chinese characters take two (Unicode annex 11)."""
    return sum(0 if _joins(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _joins(character: str) -> bool:
    """Whether a character takes no column: it stands on the one before it, or joins its neighbours."""
    return bool(unicodedata.combining(character)) or character in JOINERS


def _line(row: Sequence[str], wide: Sequence[int]) -> str:
    return GAP.join(_filled(text, columns) for text, columns in zip(row, wide, strict=True)).rstrip()


def _filled(text: str, columns: int) -> str:
    return text + " " * (columns - width(text))
