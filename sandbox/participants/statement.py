"""A participant's own statement: every line of its books that moved money, as CSV (RFC 4180), for reconciliation."""

from __future__ import annotations

import csv
import sqlite3
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TextIO

from hutong.participant.v1 import participant_pb2 as pb
from hutong_contract.cleaning import cell
from hutong_contract.statement import COLUMNS
from sandbox.participants.books import BooksError

_QUERY: Final = (
    "SELECT leg_id, original, kind, currency, effect_minor, time_us FROM entries "
    "WHERE participant = ? AND effect_minor != 0 ORDER BY time_us, leg_id"
)
Row = tuple[str, str, str, str, str, int, str, str]


def participants(path: Path) -> list[str]:
    """Whose lines a file of books has. Raises BooksError."""
    return [row[0] for row in _rows(path, "SELECT DISTINCT participant FROM entries ORDER BY participant", ())]


def lines(path: Path, participant: str, cutoffs: Sequence[int] = ()) -> Iterator[Row]:
    """A participant's lines in the order in which it booked them, read from a file of books that may be in use.

    `cutoffs`: when each settlement window was closed, microseconds, the first one first; a line counts to the window in
    whose time it was booked. Raises BooksError."""
    for leg_id, original, kind, currency, effect, time_us in _rows(path, _QUERY, (participant,)):
        window = bisect_right(cutoffs, time_us) + 1
        yield (
            participant,
            leg_id.hex(),
            "" if original is None else original.hex(),
            pb.LegKind.Name(kind).removeprefix("LEG_KIND_").lower(),
            currency,
            effect,
            f"{datetime.fromtimestamp(time_us // 1_000_000, UTC):%Y-%m-%dT%H:%M:%S}.{time_us % 1_000_000:06}Z",
            str(window) if window <= len(cutoffs) else "",
        )


def write(file: TextIO, rows: Iterator[Row]) -> int:
    """Writes a statement to a text file opened with newline="". Returns how many lines it has besides the first."""
    writer = csv.writer(file, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    count = 0
    for row in rows:
        writer.writerow([cell(value) if isinstance(value, str) else value for value in row])
        count += 1
    return count


def _rows(path: Path, query: str, values: tuple[str, ...]) -> Iterator[tuple[Any, ...]]:
    try:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            yield from database.execute(query, values)
        finally:
            database.close()
    except sqlite3.Error as error:
        raise BooksError(f"{path} cannot be read: {error}") from error
