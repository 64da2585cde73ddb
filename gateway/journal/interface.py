"""What the engine asks of a journal: one durable transaction for each tick, and reading back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from gateway.engine.model import Payment, Refused, Writes
from gateway.journal.listing import ListedRow, Scan
from gateway.journal.refusals import DecisionRow


class JournalUnavailableError(Exception):
    """The journal could not take a tick: disk full, I/O error, no connection. Nothing of the tick is in it."""


class JournalFencedError(Exception):
    """Another gateway has taken over what this engine had in flight. Nothing can be committed any more, so nothing may
    be acknowledged: the engine ends, and begins anew."""


class JournalWentBackError(JournalFencedError):
    """The database has lost commits that were acknowledged: it was restored from a backup, or a standby that lagged was
    made the primary. Nothing may be done on it until an operator has accepted that."""


class JournalMismatchError(Exception):
    """The file or database is not a journal of this version."""


class ClockDiffersError(JournalMismatchError):
    """This machine's clock and the database's are too far apart to begin: set the wrong one right."""


class EventRow(NamedTuple):
    """One change of one payment, in the order of the journal, with what the payment's row says as it is read."""

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
    """The payer's token, as the token service refers to it."""
    original_id: bytes = b""
    """Of a refund: the payment that it refunds."""


EVENT_COLUMNS: Final = (
    "e.sequence, e.payment_id, e.state, e.time_us, p.kind, p.amount_minor, p.currency, p.merchant_id, p.terminal_id, "
    "p.payer_key, p.account_ref, p.original_id"
)
"""What an EventRow is read from: `events` as e, left joined with `payments` as p."""


def event_rows(rows: Iterable[Sequence[Any]]) -> list[EventRow]:
    """Rows of EVENT_COLUMNS."""
    return [
        EventRow._make((row[0], bytes(row[1]), *row[2:10], bytes(row[10]), bytes(row[11] or b"")))
        if row[4] is not None
        else EventRow(row[0], bytes(row[1]), row[2], row[3])
        for row in rows
    ]


class Journal(Protocol):
    """Durable state, written by the engine's thread alone."""

    def commit(self, writes: Writes) -> list[Refused | None]:
        """Takes a tick in one durable transaction, and says for each admission why it was refused, or None.

        Raises JournalUnavailableError when nothing was taken, or when that could not even be looked up."""
        ...

    def last_was_taken(self) -> bool:
        """Whether the tick whose commit raised is in the journal after all (a failed fsync leaves that open). To be
        asked before anything is committed again; raises JournalUnavailableError while it still cannot be looked up."""
        ...

    def load_open(self) -> list[Payment]:
        """Payments of this engine that have not ended, or have reversals under way."""
        ...

    def load(self, payment_ids: Sequence[bytes]) -> list[Payment]:
        """Payments by id; those that do not exist are left out."""
        ...

    def claim(self, payment_ids: Sequence[bytes]) -> list[Payment]:
        """Those of these payments that this engine may act on: its own, and ended ones that no engine looks after any
        more, which become its own. On a shared journal also those whose funds are held: they become its own in a
        durable transaction, which one engine wins, until it puts them down again. On a journal with one engine, all."""
        ...

    def ended_holds(self, now_us: int, limit: int) -> list[bytes]:
        """Payments at rest whose hold has ended, the oldest first; whoever claims them, undoes them."""
        ...

    def repeats(self, idempotency: Sequence[bytes]) -> dict[bytes, Payment]:
        """Payments that were admitted under these idempotency hashes."""
        ...

    def give_up(self) -> None:
        """From any thread, when the process stops and the journal does not answer: whoever waits for it, here or in a
        reader that was opened beside it, gets JournalUnavailableError at once, now and ever after."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...


class Reader(Protocol):
    """Committed state, for queries and watchers; one for each thread, never in the engine's way."""

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
        """Up to `limit` events of some payments, each payment's in order and after its own sequence number: payment id
        to that number. Costs what these payments' events cost, however many others there are."""
        ...

    def decisions(self, before: bytes | None, most: int) -> list[DecisionRow]:
        """Decisions of risk rules by which something fired, newest first: up to `most` older than payment `before`."""
        ...

    def last_event(self) -> int:
        """The number of the newest event; 0 where there is none."""
        ...

    def follow(self) -> bool:
        """Takes up more of what is committed into an index that this reader keeps beside the journal, if it keeps one.
        Returns whether nothing committed is missing in it now. A call does a bounded piece of work."""
        ...

    def scan(self, scan: Scan) -> list[ListedRow]:
        """Payments of a scan, newest first, up to its limit; of one merchant or token: as far as `follow` has come."""
        ...

    def rows(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        """The rows of a query that has `?` for its values, in SQL that every journal takes. Raises
        JournalUnavailableError."""
        ...

    def close(self) -> None:
        """Ends the connection."""
        ...
