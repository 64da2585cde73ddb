"""Compares settlement windows with participants' own books, or with statements that they submit (对账)."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.clearing.reconcile import Reconciliation, Result
from gateway.clearing.theirs import Line, StatementError, read
from sandbox.participants import statement as export
from sandbox.participants.books import FILE_NAME, BooksError
from sandbox.settlement import Desk


def reconcile(desk: Desk, participant: str, lines: Iterator[Line], window: int | None = None) -> Result:
    """Reconciles one participant's lines with one closed window or with all of them."""
    # The windows first: whatever they hold, the participant had booked before. Then its books, then the windows.
    closed = sorted(desk.windows(), key=lambda one: one.number)
    if window is not None:
        desk.window(window)  # raises where it is not closed
    with Reconciliation() as reconciliation:
        reconciliation.take_theirs(lines)
        for one in closed:
            reconciliation.take_ours(desk.settled(one, participant, lambda *_: None))
        return reconciliation.compare(lambda payment_id: desk.is_pending(payment_id, participant), window)


def sides(books: Path | None, handed_in: Path | None, whose: tuple[str, ...]) -> Iterator[tuple[str, Iterator[Line]]]:
    """Participants and the lines of each: from a submitted statement, or from its books (a file, or all files below a
    folder). `whose`: only these participants; empty: all. Raises BooksError, StatementError."""
    if handed_in is not None:
        for participant in whose or _named_in(handed_in):
            yield participant, _from_csv(handed_in, participant)
        return
    assert books is not None, "checked by the command"
    paths = [books] if books.is_file() else sorted(books.rglob(FILE_NAME))
    if not paths:
        raise BooksError(f"there is no {FILE_NAME} below it")
    for path in paths:
        for participant in export.participants(path):
            if not whose or participant in whose:
                yield participant, books_lines(path, participant)


def books_lines(path: Path, participant: str) -> Iterator[Line]:
    """A participant's lines, straight from its books."""
    for _, leg, _, kind, currency, amount, booked, _ in export.lines(path, participant):
        yield Line(bytes.fromhex(leg), kind, currency, amount, booked)


def _from_csv(path: Path, participant: str) -> Iterator[Line]:
    with _opened(path) as rows:
        yield from read(rows, participant)


def _named_in(path: Path) -> list[str]:
    with _opened(path) as rows:
        next(rows, None)
        return sorted({row[0] for row in rows if row})


@contextmanager
def _opened(path: Path) -> Iterator[Iterator[list[str]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            yield csv.reader(file, strict=True)
    except UnicodeDecodeError as error:
        raise StatementError(f"it is not UTF-8: {error}") from error
