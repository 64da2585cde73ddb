"""The terminal for commands: texts from outside are shown but control nothing (hutong_contract.cleaning)."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from hutong_contract.cleaning import LINE_MAX, printable, printable_lines


class Screen(Console):
    """rich's console; whatever it prints, in tables too, is printable. Colours are its own and stay."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            if segment.control is None and not segment.text.isalnum():
                yield Segment(printable_lines(segment.text), segment.style)
            else:
                yield segment


def add_row(table: Table, *values: str | Text) -> None:
    """Adds a row of plain texts: what looks like rich's markup is shown as it is, and a line end ends no line."""
    table.add_row(*(value if isinstance(value, Text) else Text(printable(value, LINE_MAX)) for value in values))
