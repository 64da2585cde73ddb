"""Reads the content of closed windows from a journal, in bounded pieces.

The content of a closed window never changes, so the pieces need no common snapshot, and no reader holds up the journal:
each piece is a query of its own over a range of event numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, Protocol

from gateway.clearing.model import Carried, Position, Settled, Window
from gateway.clearing.positions import Positions
from gateway.engine.states import State
from hutong_contract.errors import HutongError, Reason

SPAN: Final = 40_000
"""Event numbers per query: about ten thousand payments, some megabytes."""
NUMBER_MAX: Final = 2**62

_SUCCESSES: Final = (
    "FROM events e JOIN payments p ON p.payment_id = e.payment_id "
    f"WHERE e.sequence > ? AND e.sequence <= ? AND e.state = {int(State.SUCCEEDED)}"
)
_GROUPS: Final = (
    "SELECT p.kind, p.currency, p.debtor, p.creditors, p.attempt, count(*), sum(p.amount_minor) "
    f"{_SUCCESSES} GROUP BY p.kind, p.currency, p.debtor, p.creditors, p.attempt"
)
_SETTLED: Final = (
    "SELECT e.time_us, p.payment_id, p.kind, p.amount_minor, p.currency, p.debtor, p.creditors, p.attempt, "
    "p.merchant_id, p.terminal_id, p.reference, p.last_four, p.original_id, p.created_us "
    f"{_SUCCESSES} ORDER BY e.sequence"
)
_WINDOWS: Final = (
    "SELECT w.number, w.after_sequence, w.last_sequence, COALESCE(b.closed_us, 0), w.closed_us "
    "FROM windows w LEFT JOIN windows b ON b.number = w.number - 1 WHERE w.number < ? ORDER BY w.number DESC LIMIT ?"
)
_CARRIED: Final = (
    "SELECT number, currency, payments, amount_minor FROM carried WHERE number < ? AND number >= ? ORDER BY currency"
)
_WAITING: Final = "SELECT time_us FROM events WHERE sequence > ? AND state = ? ORDER BY sequence LIMIT 1"

Progress = Callable[[int, int], None]
"""Receives how many event numbers of a window were read, and how many there are."""


class Rows(Protocol):
    """Committed rows of a journal on SQLite or PostgreSQL."""

    def rows(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """The rows of a query that has `?` for its values. Raises JournalUnavailableError."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


class ClearingReader:
    """Reads windows; one for each thread."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def windows(self, before: int = NUMBER_MAX, limit: int = 1) -> list[Window]:
        """Closed windows, newest first."""
        found = self._rows.rows(_WINDOWS, (before, limit))
        if not found:
            return []
        carried: dict[int, list[Carried]] = {}
        for number, *rest in self._rows.rows(_CARRIED, (before, found[-1][0])):
            carried.setdefault(number, []).append(Carried(*rest))
        return [
            Window(number, after, end, opened_us, closed_us, tuple(carried.get(number, ())))
            for number, after, end, opened_us, closed_us in found
        ]

    def last(self) -> Window | None:
        """The window that was closed last."""
        found = self.windows()
        return found[0] if found else None

    def window(self, number: int) -> Window:
        """A closed window. Raises HutongError(WINDOW_NOT_FOUND)."""
        found = self.windows(number + 1) if 0 < number < NUMBER_MAX else []
        if not found or found[0].number != number:
            raise HutongError(Reason.ERROR_REASON_WINDOW_NOT_FOUND, window=str(number))
        return found[0]

    def waiting_since_us(self, last: Window | None) -> int | None:
        """When the first payment succeeded that no window holds yet; None if there is none."""
        rows = self._rows.rows(_WAITING, (last.last_sequence if last else 0, int(State.SUCCEEDED)))
        return rows[0][0] if rows else None

    def positions(self, window: Window, progress: Progress = lambda *_: None) -> list[Position]:
        """Every participant's position in every currency, in the order of their names."""
        positions = Positions()
        for rows in self._spans(_GROUPS, window, progress):
            positions.add(
                (kind, currency, debtor, creditors.split(" ")[attempt], count, int(amount))
                for kind, currency, debtor, creditors, attempt, count, amount in rows
            )
        return positions.all()

    def settled(self, window: Window, progress: Progress = lambda *_: None) -> Iterator[Settled]:
        """The payments and refunds of a window, in the order in which they succeeded."""
        for rows in self._spans(_SETTLED, window, progress):
            for row in rows:
                yield _settled(row)

    def close(self) -> None:
        """Ends the connection."""
        self._rows.close()

    def _spans(self, query: str, window: Window, progress: Progress) -> Iterator[list[tuple[Any, ...]]]:
        first, last = window.after_sequence, window.last_sequence
        for start in range(first, last, SPAN):
            end = min(start + SPAN, last)
            yield self._rows.rows(query, (start, end))
            progress(end - first, last - first)


def _settled(row: tuple[Any, ...]) -> Settled:
    (
        time_us,
        key,
        kind,
        amount,
        currency,
        debtor,
        creditors,
        attempt,
        merchant,
        terminal,
        reference,
        last_four,
        *rest,
    ) = row
    original, created_us = rest
    return Settled(
        time_us,
        bytes(key),
        kind,
        amount,
        currency,
        debtor,
        creditors.split(" ")[attempt],
        merchant,
        terminal,
        reference,
        last_four,
        None if original is None else bytes(original),
        created_us,
    )
