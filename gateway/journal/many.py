"""INSERT statements for many rows: sixteen rows to a statement cost half of as many single ones."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

ROWS_PER_STATEMENT: Final = 16
"""With more rows in a statement, the cost per row stays the same, and more rows are left over for single statements."""


class ManyRows:
    """An INSERT of rows of equal width, in their order."""

    def __init__(self, head: str, columns: int, row: str = "") -> None:
        """`head` is the statement up to VALUES, without it; `row` is the text of a row, with {0} and so on for its
        columns."""
        row = row or f"({', '.join(f'{{{column}}}' for column in range(columns))})"
        rows = [
            row.format(*(f"?{at + column}" for column in range(columns)))
            for at in range(1, 1 + columns * ROWS_PER_STATEMENT, columns)
        ]
        self._one = f"{head} VALUES {rows[0]}"
        self._many = f"{head} VALUES {', '.join(rows)}"

    def insert(self, database: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Inserts the rows in the open transaction. Raises sqlite3.Error."""
        whole = len(rows) - len(rows) % ROWS_PER_STATEMENT
        if whole:
            joined = chain.from_iterable
            parts = [tuple(joined(rows[at : at + ROWS_PER_STATEMENT])) for at in range(0, whole, ROWS_PER_STATEMENT)]
            database.executemany(self._many, parts)
        if whole < len(rows):
            database.executemany(self._one, rows[whole:])
