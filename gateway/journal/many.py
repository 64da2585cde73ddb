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

    def __init__(self, head: str, columns: int) -> None:
        """`head` is the statement up to and without VALUES."""
        row = f"({', '.join('?' * columns)})"
        self._one = f"{head} VALUES {row}"
        self._many = f"{head} VALUES {', '.join([row] * ROWS_PER_STATEMENT)}"

    def insert(self, database: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
        """Inserts the rows, in whatever transaction is open. Raises sqlite3.Error."""
        whole = len(rows) - len(rows) % ROWS_PER_STATEMENT
        if whole:
            joined = chain.from_iterable
            parts = [tuple(joined(rows[at : at + ROWS_PER_STATEMENT])) for at in range(0, whole, ROWS_PER_STATEMENT)]
            database.executemany(self._many, parts)
        if whole < len(rows):
            database.executemany(self._one, rows[whole:])
