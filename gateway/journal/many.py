"""Statements for many rows at once: most go sixteen to a statement, which costs half of going one by one."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

ROWS_PER_STATEMENT: Final = 16
"""From here on, more rows in a statement cost the same for each row, and the rest that goes one by one grows."""


class ManyRows:
    """An INSERT of rows of one width, in their order."""

    def __init__(self, head: str, columns: int, row: str = "") -> None:
        """`head` is the statement up to and without VALUES, `row` what each row makes of its columns, {0} and so on."""
        row = row or f"({', '.join(f'{{{column}}}' for column in range(columns))})"
        rows = [
            row.format(*(f"?{at + column}" for column in range(columns)))
            for at in range(1, 1 + columns * ROWS_PER_STATEMENT, columns)
        ]
        self._one = f"{head} VALUES {rows[0]}"
        self._many = f"{head} VALUES {', '.join(rows)}"

    def insert(self, database: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Inserts the rows, in whatever transaction is open. Raises sqlite3.Error."""
        whole = len(rows) - len(rows) % ROWS_PER_STATEMENT
        if whole:
            joined = chain.from_iterable
            parts = [tuple(joined(rows[at : at + ROWS_PER_STATEMENT])) for at in range(0, whole, ROWS_PER_STATEMENT)]
            database.executemany(self._many, parts)
        if whole < len(rows):
            database.executemany(self._one, rows[whole:])
