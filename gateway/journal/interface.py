"""The interface of a journal for queries and watchers, and the errors of opening one. The engine's own interface is
gateway.engine.ports.Journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from gateway.engine.model import Payment
from gateway.engine.ports import JournalFencedError
from gateway.journal.listing import ListedRow, Scan
from gateway.journal.refusals import DecisionRow


class JournalWentBackError(JournalFencedError):
    """The database has lost acknowledged commits: it was restored from a backup, or a lagging standby became the
    primary. It must not be used until an operator has accepted that."""


class JournalMismatchError(Exception):
    """The file or database is not a journal of this version."""


class ClockDiffersError(JournalMismatchError):
    """This machine's clock and the database's differ too much to start. Set the wrong one right."""


class EventRow(NamedTuple):
    """One change of one payment, in the order of the journal, with columns of the payment's row at the time of
    reading."""

    sequence: int
    payment_id: bytes
    state: int
    time_us: int
    kind: int = 0
    amount_minor: int = 0
    currency: str = ""
    merchant_id: str = ""
    terminal_id: str = ""
    payer_key: int = 0
    token_ref: bytes = b""
    """The payer's token, as the token service's reference."""
    original_id: bytes = b""
    """Of a refund: the payment that it refunds."""


EVENT_COLUMNS: Final = (
    "e.sequence, e.payment_id, e.state, e.time_us, p.kind, p.amount_minor, p.currency, p.merchant_id, p.terminal_id, "
    "p.payer_key, p.account_ref, p.original_id"
)
"""The columns of an EventRow: `events` as e, left joined with `payments` as p."""


def event_rows(rows: Iterable[Sequence[Any]]) -> list[EventRow]:
    """Rows of EVENT_COLUMNS."""
    return [
        EventRow._make((row[0], bytes(row[1]), *row[2:10], bytes(row[10]), bytes(row[11] or b"")))
        if row[4] is not None
        else EventRow(row[0], bytes(row[1]), row[2], row[3])
        for row in rows
    ]


class Reader(Protocol):
    """Committed state, for queries and watchers. One for each thread; never blocks the engine."""

    def payments(self, payment_ids: Sequence[bytes]) -> list[Payment]:
        """Payments by id with their legs, and with the texts of their route and risk judgement; those that do not exist
        are left out."""
        ...

    def payment(self, payment_id: bytes) -> Payment | None:
        """One payment, as above."""
        ...

    def refunds(self, payment_ids: Sequence[bytes]) -> list[Payment]:
        """Refunds of these payments, oldest first."""
        ...

    def events(self, after_sequence: int, limit: int) -> list[EventRow]:
        """Up to `limit` events of all payments after a sequence number, in order."""
        ...

    def events_of(self, watched: Mapping[bytes, int], limit: int) -> list[EventRow]:
        """Up to `limit` events of some payments, each payment's in order and after its own sequence number (payment id
        -> number). The cost depends on these payments' events only."""
        ...

    def decisions(self, before: bytes | None, most: int) -> list[DecisionRow]:
        """Decisions of risk rules in which a rule fired, newest first: up to `most`, older than payment `before`."""
        ...

    def last_event(self) -> int:
        """The number of the newest event; 0 where there is none."""
        ...

    def follow(self) -> bool:
        """Adds committed payments to the index that this reader keeps beside the journal, if it keeps one. Returns
        whether nothing committed is missing in it. One call does a bounded piece of work."""
        ...

    def scan(self, scan: Scan) -> list[ListedRow]:
        """Payments of a scan, newest first, up to its limit; those of one merchant or token only as far as `follow` has
        come."""
        ...

    def rows(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """The rows of a query with `?` for its values, in SQL for every journal. Raises JournalUnavailableError."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...
