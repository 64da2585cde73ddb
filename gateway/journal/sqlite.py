"""The journal on SQLite: WAL, synchronous=FULL, one writer.

Cost of a tick: one fsync of the write-ahead log, and a microsecond or two for each row. Rows of one kind go together;
conditional rows count what took effect, and only a tick with a conflict looks for the losers.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gateway.engine.model import SUSPENSE, Kind, Movement, Payment, Refusal, Refused, Writes
from gateway.engine.states import State
from gateway.journal.closing import closing_statements
from gateway.journal.interface import JournalMismatchError, JournalUnavailableError
from gateway.journal.kept import KeptTexts
from gateway.journal.many import ManyRows
from gateway.journal.refusals import (
    REFUSAL_COLUMNS,
    counter_refusal,
    limit_refusals,
    new_judgements,
    refusal_row,
)
from gateway.journal.repeats import NEWEST_MAX, Repeats
from gateway.journal.rows import NO_BYTES, capture_change, leg_row, payment_change, payment_row, payments_from_rows
from gateway.journal.schema import HELD, LEG_COLUMNS, PAYMENT_COLUMNS, VERSION, sqlite_statements
from gateway.journal.sqlite_connection import Factory, check_version, connect, readable
from gateway.journal.sqlite_reader import LEGS, PAYMENTS, load
from hutong_contract.errors import Reason

_VALUES: Final = ", ".join("nullif(?, x'')" if name == "original_id" else "?" for name in PAYMENT_COLUMNS)
"""sqlite3 looks for an adapter of None each time, which costs as much as the rest of the row."""
_INSERT_PAYMENT: Final = f"INSERT INTO payments ({PAYMENTS}) VALUES ({_VALUES})"
_INSERT_REFUSAL: Final = (
    f"INSERT INTO refusals ({', '.join(REFUSAL_COLUMNS)}) VALUES ({', '.join('?' * len(REFUSAL_COLUMNS))})"
)
_PUT_LEGS: Final = ManyRows(f"INSERT OR REPLACE INTO legs ({LEGS})", len(LEG_COLUMNS))
_UPDATE_PAYMENT: Final = (
    "UPDATE payments SET open = ?, state = ?, goal = ?, reason = ?, attempt = ?, ended_us = ? WHERE payment_id = ?"
)
_UPDATE_CAPTURED: Final = "UPDATE payments SET amount_minor = ?, deadline_us = ?, counters = ? WHERE payment_id = ?"
_INSERT_POSTINGS: Final = ManyRows(
    "INSERT INTO postings (payment_id, number, account, currency, amount_minor, posted_us)",
    len(Movement._fields),
    f"({{0}}, {{1}}, {{2}}, {{3}}, {{4}}, {{5}}), ({{0}}, {{1}}, '{SUSPENSE}', {{3}}, -{{4}}, {{5}})",
)
"""Both sides of a movement in one statement."""
_INSERT_EVENTS: Final = ManyRows("INSERT INTO events (payment_id, state, time_us)", 3)
_INSERT_SPEND: Final = "INSERT INTO spends (spend, payment_id) VALUES (?, ?) ON CONFLICT DO NOTHING"
_DELETE_SPEND: Final = "DELETE FROM spends WHERE spend = ? AND payment_id = ?"
_FULL: Final = "UPDATE counters SET used = used WHERE counter = ? AND used + ? > ?"
"""Changes nothing; its count of rows says how many counters have no room."""
_ADD: Final = (
    "INSERT INTO counters (counter, used) VALUES (?, ?) ON CONFLICT (counter) DO UPDATE SET used = used + excluded.used"
)
_ADD_REFUND: Final = (
    "UPDATE payments SET refunded_minor = refunded_minor + ? "
    f"WHERE payment_id = ? AND kind = {Kind.PAYMENT.value} AND state = {State.SUCCEEDED.value} "
    "AND refunded_minor + ? <= amount_minor"
)


class SqliteJournal:
    """See gateway.journal.interface.Journal."""

    def __init__(
        self,
        path: Path | str,
        engine: int = 1,
        *,
        factory: Factory = sqlite3.Connection,
        newest_keys_max: int = NEWEST_MAX,
    ) -> None:
        self._path = path
        self._engine = engine
        self._factory = factory
        self._connection = connect(path, factory=factory)
        self._tick = 0
        self._in_doubt = False
        self._routes = KeptTexts()
        self._judgements = KeptTexts()
        self._repeats = Repeats(newest_keys_max)
        self._prepare()

    def _prepare(self) -> None:
        db = self._connection
        try:
            self._write_anew()  # what a former process left may be its failed fsync's
            db.execute("BEGIN IMMEDIATE")
            check_version(db, self._path)
            for statement in sqlite_statements():
                db.execute(statement)
            db.execute("INSERT INTO meta (name, value) VALUES ('version', ?) ON CONFLICT DO NOTHING", (str(VERSION),))
            db.execute("INSERT INTO ticks (engine, tick) VALUES (?, 0) ON CONFLICT DO NOTHING", (self._engine,))
            (self._tick,) = db.execute("SELECT tick FROM ticks WHERE engine = ?", (self._engine,)).fetchone()
            self._repeats.open(db)
            db.execute("COMMIT")
        except JournalMismatchError:
            db.close()
            raise
        except sqlite3.DatabaseError as error:
            raise JournalMismatchError(f"{self._path} is not a usable journal: {error}") from error

    # -- writing --------------------------------------------------------------------------------------

    def commit(self, writes: Writes) -> list[Refused | None]:
        """One durable transaction; see the interface."""
        db = self._connection
        tick = self._tick + 1
        self._in_doubt = False
        self._routes.begin()
        self._judgements.begin()
        try:
            db.execute("BEGIN IMMEDIATE")
            self._repeats.begin(db)
            db.execute("UPDATE ticks SET tick = ? WHERE engine = ?", (tick, self._engine))
            verdicts, admitted = self._admit(writes) if writes.admissions else ([], [])
            self._write(writes)
            refusals = writes.refusals + limit_refusals(writes.admissions, verdicts)
            if refusals:
                self._keep_refusals(refusals)
            if writes.closings:
                for statement, values in closing_statements(writes.closings):
                    db.execute(statement, values)
            self._repeats.write(db, admitted)
            db.execute("COMMIT")
        except (sqlite3.Error, JournalUnavailableError) as error:
            if not self._was_taken(tick):
                raise JournalUnavailableError(str(error)) from error
        self._tick = tick
        self._routes.committed()
        self._judgements.committed()
        self._repeats.committed()
        return verdicts

    def _was_taken(self, tick: int) -> bool:
        """After a failed transaction: whether it is in the file nevertheless. A failed fsync leaves that open, so the
        connection, with whatever it has cached, is given up and the file is asked."""
        try:
            self._connection.close()
            self._connection = connect(self._path, factory=self._factory)
            row = self._connection.execute("SELECT tick FROM ticks WHERE engine = ?", (self._engine,)).fetchone()
            taken = row is not None and row[0] == tick
            if taken:
                self._write_anew()
        except sqlite3.Error as error:
            self._in_doubt = True
            raise JournalUnavailableError(str(error)) from error
        return taken

    def _write_anew(self) -> None:
        """Makes durable what was read back after a failed fsync. The system may count pages as written that a failed
        fsync did not write, so a later fsync of the log proves nothing about them: they are copied into the database
        file, which is synced, and the log begins anew."""
        busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError(
                "a reader is in the way of writing the log anew: end what reads this file, then start again"
            )

    def last_was_taken(self) -> bool:
        """See the interface."""
        if not self._in_doubt:
            return False
        taken = self._was_taken(self._tick + 1)
        self._in_doubt = False
        if taken:
            self._tick += 1
        return taken

    def _write(self, writes: Writes) -> None:
        db = self._connection
        if writes.legs:
            _PUT_LEGS.insert(db, [leg_row(key[0], leg) for key, leg in writes.legs.items()])
        if writes.changed:
            db.executemany(_UPDATE_PAYMENT, [payment_change(payment) for payment in writes.changed.values()])
        if writes.captured:
            db.executemany(_UPDATE_CAPTURED, [capture_change(payment) for payment in writes.captured.values()])
        if writes.movements:
            _INSERT_POSTINGS.insert(db, writes.movements)
        if writes.events:
            _INSERT_EVENTS.insert(db, writes.events)
        if writes.releases:
            db.executemany("UPDATE counters SET used = used - ? WHERE counter = ?", writes.releases)
        if writes.refund_releases:
            db.executemany(
                "UPDATE payments SET refunded_minor = refunded_minor - ? WHERE payment_id = ?", writes.refund_releases
            )

    # -- admissions: conditions decided row by row ------------------------------------------------------

    def _admit(self, writes: Writes) -> tuple[list[Refused | None], list[Payment]]:
        """The verdicts, and the payments that got in."""
        payments = writes.admissions
        verdicts = self._insert_payments(payments)
        for index, payment in enumerate(payments):
            if verdicts[index] is None and payment.original_id is not None:
                verdicts[index] = self._reserve_refund(payment)
        contested = any(payment.spends for payment in payments) and not self._spend_together(payments, verdicts)
        if contested or not self._count_together(payments, verdicts):
            for index, payment in enumerate(payments):
                if contested and verdicts[index] is None:
                    verdicts[index] = self._spend_alone(payment)
                if verdicts[index] is None and payment.counters:
                    verdicts[index] = self._count_alone(payment)
        admitted = [payment for payment, verdict in zip(payments, verdicts, strict=True) if verdict is None]
        state = State.DEBITING.value
        _INSERT_EVENTS.insert(self._connection, [(payment.row_id, state, payment.created_us) for payment in admitted])
        return verdicts, admitted

    def _insert_payments(self, payments: Sequence[Payment]) -> list[Refused | None]:
        engine = self._engine
        self._keep_routes(payments)
        self._keep_judgements(payments, ())
        db, repeats, newest = self._connection, self._repeats, self._repeats.newest
        first: dict[bytes, Payment] = {}
        for payment in payments:
            if newest(payment.idempotency) is None:
                first.setdefault(payment.idempotency, payment)
        all_new = len(first) == len(payments) and not repeats.any_older(db, first)
        known = {} if all_new else repeats.find(db, [payment.idempotency for payment in payments])
        rows = [payment_row(payment, engine, NO_BYTES) for key, payment in first.items() if key not in known]
        db.executemany(_INSERT_PAYMENT, rows)
        if all_new:
            return [None] * len(payments)
        holders = {key: payment.payment_id for key, payment in first.items()} | known
        lost = [payment for payment in payments if holders[payment.idempotency] != payment.payment_id]
        found = {one.payment_id: one for one in self.load(sorted({holders[payment.idempotency] for payment in lost}))}
        refusals = {payment.payment_id: Refused(0, found[holders[payment.idempotency]]) for payment in lost}
        return [refusals.get(payment.payment_id) for payment in payments]

    def _keep_routes(self, payments: Sequence[Payment]) -> None:
        """Writes explanations of routes that are not known to be there: many payments share one."""
        known = self._routes.known
        new = {payment.route_id: payment.route for payment in payments if payment.route_id not in known}
        if new:
            self._connection.executemany("INSERT INTO routes VALUES (?, ?) ON CONFLICT DO NOTHING", list(new.items()))
            self._routes.sent(list(new))

    def _keep_judgements(self, payments: Sequence[Payment], refusals: Sequence[Refusal]) -> None:
        """The same for what risk rules found."""
        new = new_judgements(payments, refusals, self._judgements.known)
        if new:
            rows = list(new.items())
            self._connection.executemany("INSERT INTO judgements VALUES (?, ?) ON CONFLICT DO NOTHING", rows)
            self._judgements.sent(list(new))

    def _keep_refusals(self, refusals: Sequence[Refusal]) -> None:
        self._keep_judgements((), refusals)
        self._connection.executemany(_INSERT_REFUSAL, [refusal_row(one) for one in refusals])

    def _spend_together(self, payments: Sequence[Payment], verdicts: Sequence[Refused | None]) -> bool:
        """Spends for all; False, with nothing spent, if any was spent before or twice. Then they take turns, each with
        its counters, so that nobody loses a code to a payment that is itself refused."""
        db = self._connection
        rows = [
            (spend, payment.payment_id)
            for payment, verdict in zip(payments, verdicts, strict=True)
            if verdict is None
            for spend in payment.spends
        ]
        if db.executemany(_INSERT_SPEND, rows).rowcount == len(rows):
            return True
        db.executemany(_DELETE_SPEND, rows)
        return False

    def _spend_alone(self, payment: Payment) -> Refused | None:
        rows = [(spend, payment.payment_id) for spend in payment.spends]
        self._connection.executemany(_INSERT_SPEND, rows)
        if all(self._owns(spend, payment) for spend in payment.spends):
            return None
        return self._withdraw(payment, Refused(payment.spend_reason))

    def _owns(self, spend: bytes, payment: Payment) -> bool:
        row = self._connection.execute("SELECT payment_id FROM spends WHERE spend = ?", (spend,)).fetchone()
        return row is not None and row[0] == payment.payment_id

    def _count_together(self, payments: Sequence[Payment], verdicts: Sequence[Refused | None]) -> bool:
        """Adds to the counters for all; False, with nothing added, unless there is room for all. Where the sum of what
        the tick adds to a counter, none of it negative, stays within the lowest cap, so does each of its parts."""
        sums: dict[bytes, int] = {}
        caps: dict[bytes, int] = {}
        for payment, verdict in zip(payments, verdicts, strict=True):
            if payment.counters and verdict is None:
                for counter, add, cap, _ in payment.counters:
                    sums[counter] = sums.get(counter, 0) + add
                    caps[counter] = min(cap, caps.get(counter, cap))
        if not sums:
            return True
        db = self._connection
        if any(added > caps[counter] for counter, added in sums.items()):
            return False
        rows = [(bytearray(counter), added) for counter, added in sums.items()]
        if db.executemany(_FULL, [(*row, cap) for row, cap in zip(rows, caps.values(), strict=True)]).rowcount > 0:
            return False
        db.executemany(_ADD, rows)
        return True

    def _count_alone(self, payment: Payment) -> Refused | None:
        db = self._connection
        for done, (counter, add, cap, _) in enumerate(payment.counters):
            db.execute("INSERT INTO counters (counter, used) VALUES (?, 0) ON CONFLICT DO NOTHING", (counter,))
            change = db.execute(
                "UPDATE counters SET used = used + ? WHERE counter = ? AND used + ? <= ?", (add, counter, add, cap)
            )
            if change.rowcount != 1:
                for earlier, added, _, _ in payment.counters[:done]:
                    db.execute("UPDATE counters SET used = used - ? WHERE counter = ?", (added, earlier))
                return self._withdraw(payment, counter_refusal(payment, done))
        return None

    def _reserve_refund(self, payment: Payment) -> Refused | None:
        db, amount, original = self._connection, payment.amount_minor, payment.original_id
        if db.execute(_ADD_REFUND, (amount, original, amount)).rowcount == 1:
            return None
        row = db.execute(
            "SELECT kind, state, amount_minor - refunded_minor FROM payments WHERE payment_id = ?", (original,)
        ).fetchone()
        refusal = Refused(Reason.ERROR_REASON_PAYMENT_NOT_FOUND)
        if row is not None and row[0] == Kind.REFUND:
            refusal = Refused(Reason.ERROR_REASON_REFUND_OF_REFUND)
        elif row is not None and row[1] != State.SUCCEEDED:
            refusal = Refused(Reason.ERROR_REASON_PAYMENT_NOT_REFUNDABLE, fields={"state": State(row[1]).name})
        elif row is not None:
            refusal = Refused(Reason.ERROR_REASON_REFUND_EXCEEDS_PAYMENT, fields={"left_minor": str(row[2])})
        db.execute("DELETE FROM payments WHERE payment_id = ?", (payment.payment_id,))
        return refusal

    def _withdraw(self, payment: Payment, refusal: Refused) -> Refused:
        """Takes back what an admission had inserted before one of its conditions failed."""
        db = self._connection
        db.execute("DELETE FROM payments WHERE payment_id = ?", (payment.payment_id,))
        db.executemany(_DELETE_SPEND, [(spend, payment.payment_id) for spend in payment.spends])
        if payment.original_id is not None:
            db.execute(
                "UPDATE payments SET refunded_minor = refunded_minor - ? WHERE payment_id = ?",
                (payment.amount_minor, payment.original_id),
            )
        return refusal

    # -- reading back -----------------------------------------------------------------------------------

    @readable
    def load_open(self) -> list[Payment]:
        """See the interface."""
        where = "WHERE engine = ? AND open = 1"
        payments = self._connection.execute(f"SELECT {PAYMENTS} FROM payments {where}", (self._engine,))
        legs = self._connection.execute(
            f"SELECT {LEGS} FROM legs WHERE payment_id IN (SELECT payment_id FROM payments {where}) "
            "ORDER BY payment_id, number",
            (self._engine,),
        )
        return payments_from_rows(payments, legs)

    @readable
    def load(self, payment_ids: Sequence[bytes]) -> list[Payment]:
        """See the interface."""
        return load(self._connection, payment_ids)

    @readable
    def claim(self, payment_ids: Sequence[bytes]) -> list[Payment]:
        """See the interface."""
        db, engine = self._connection, self._engine
        mine: list[bytes] = []
        for payment_id in payment_ids:
            row = db.execute("SELECT engine, open FROM payments WHERE payment_id = ?", (payment_id,)).fetchone()
            if row is None or (row[0] != engine and row[1]):
                continue
            mine.append(payment_id)
            if row[0] != engine:
                db.execute("UPDATE payments SET engine = ? WHERE payment_id = ? AND open = 0", (engine, payment_id))
        return self.load(mine)

    @readable
    def ended_holds(self, now_us: int, limit: int) -> list[bytes]:
        """See the interface."""
        rows = self._connection.execute(
            f"SELECT payment_id FROM payments WHERE open = {HELD} AND engine = ? AND hold_until_us <= ? "
            "ORDER BY hold_until_us LIMIT ?",
            (self._engine, now_us, limit),
        )
        return [row[0] for row in rows]

    @readable
    def repeats(self, idempotency: Sequence[bytes]) -> dict[bytes, Payment]:
        """See the interface."""
        self._repeats.learn(self._connection)
        found = self._repeats.find(self._connection, idempotency)
        return {payment.idempotency: payment for payment in self.load(sorted(set(found.values())))}

    def give_up(self) -> None:
        """See the interface. Nothing here waits for another process, and a disk that hangs cannot be left."""

    def close(self) -> None:
        """See the interface."""
        self._connection.close()
