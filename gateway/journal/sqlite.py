"""The journal on SQLite: WAL, synchronous=FULL, one writer.

Cost of a tick: one fsync of the write-ahead log, and a microsecond or two for each row. Rows of one kind are written
together. In most ticks all conditions hold; SQLite then says so by counts of rows, and nothing is read. In any other
tick gateway.engine.conditions decides, from rows that are read.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.engine.conditions import Decisions, Holder, Original
from gateway.engine.model import SUSPENSE, Movement, Payment, Refusal, Refused, Writes
from gateway.engine.ports import JournalUnavailableError
from gateway.engine.states import State
from gateway.journal.closing import closing_statements
from gateway.journal.interface import JournalMismatchError
from gateway.journal.kept import KeptTexts
from gateway.journal.many import ManyRows
from gateway.journal.refusals import (
    REFUSAL_COLUMNS,
    limit_refusals,
    new_judgements,
    refusal_row,
)
from gateway.journal.repeats import NEWEST_MAX, Repeats
from gateway.journal.rows import NO_BYTES, capture_change, leg_row, payment_change, payment_row, payments_from_rows
from gateway.journal.schema import HELD, HOLDERS, LEG_COLUMNS, PAYMENT_COLUMNS, VERSION, sqlite_statements
from gateway.journal.sqlite_connection import Factory, check_version, connect, readable
from gateway.journal.sqlite_reader import LEGS, PAYMENTS, load

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
"""Both postings of a movement in one statement."""
_INSERT_EVENTS: Final = ManyRows("INSERT INTO events (payment_id, state, time_us)", 3)
_INSERT_SPEND: Final = "INSERT INTO spends (spend, payment_id) VALUES (?, ?) ON CONFLICT DO NOTHING"
_DELETE_SPEND: Final = "DELETE FROM spends WHERE spend = ? AND payment_id = ?"
_FULL: Final = "UPDATE counters SET used = used WHERE counter = ? AND used + ? > ?"
"""Changes nothing; its row count is the number of counters without room."""
_ADD: Final = (
    "INSERT INTO counters (counter, used) VALUES (?, ?) ON CONFLICT (counter) DO UPDATE SET used = used + excluded.used"
)
_ADD_REFUNDED: Final = "UPDATE payments SET refunded_minor = refunded_minor + ? WHERE payment_id = ?"
_ORIGINAL: Final = "SELECT kind, state, amount_minor, refunded_minor FROM payments WHERE payment_id = ?"


class SqliteJournal:
    """The journal of one engine in a SQLite file."""

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
        """Stores a tick in one durable transaction."""
        db = self._connection
        tick = self._tick + 1
        self._in_doubt = False
        self._routes.begin()
        self._judgements.begin()
        try:
            db.execute("BEGIN IMMEDIATE")
            self._repeats.begin(db)
            db.execute("UPDATE ticks SET tick = ? WHERE engine = ?", (tick, self._engine))
            decisions = Decisions(writes.admissions)
            if writes.admissions:
                self._admit(decisions)
            self._write(writes)
            refusals = writes.refusals + limit_refusals(writes.admissions, decisions.verdicts)
            if refusals:
                self._keep_refusals(refusals)
            if writes.closings:
                for statement, values in closing_statements(writes.closings):
                    db.execute(statement, values)
            self._repeats.write(db, decisions.admitted())
            db.execute("COMMIT")
        except (sqlite3.Error, JournalUnavailableError) as error:
            if not self._was_taken(tick):
                raise JournalUnavailableError(str(error)) from error
        self._tick = tick
        self._routes.committed()
        self._judgements.committed()
        self._repeats.committed()
        return decisions.verdicts

    def _was_taken(self, tick: int) -> bool:
        """Whether a failed transaction is in the file nevertheless. A failed fsync leaves that open, so the connection
        with its cache is closed and the file is read again."""
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
        fsync did not write, so a later fsync of the log proves nothing about them. Therefore they are copied into the
        database file, which is synced, and the log is started again."""
        busy, _, _ = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise sqlite3.OperationalError(
                "a reader is in the way of writing the log anew: end what reads this file, then start again"
            )

    def last_was_taken(self) -> bool:
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

    # -- admissions ---------------------------------------------------------------------------------------

    def _admit(self, decisions: Decisions) -> None:
        """Writes the rows of the payments whose conditions hold; the verdicts are then in `decisions`."""
        db = self._connection
        self._insert_payments(decisions)
        self._reserve_refunds(decisions)
        if not self._all_fit(decisions.admitted()):
            self._take_turns(decisions)
        if decisions.withdrawn:
            db.executemany("DELETE FROM payments WHERE payment_id = ?", [(one,) for one in decisions.withdrawn])
        if decisions.refunded:
            db.executemany(_ADD_REFUNDED, [(amount, original) for original, amount in decisions.refunded.items()])
        admitted = decisions.admitted()
        state = State.DEBITING.value
        _INSERT_EVENTS.insert(db, [(payment.row_id, state, payment.created_us) for payment in admitted])

    def _insert_payments(self, decisions: Decisions) -> None:
        """Writes the rows of all payments except those whose idempotency key is taken."""
        payments, engine = decisions.payments, self._engine
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
            return
        holders = {key: payment.payment_id for key, payment in first.items()} | known
        lost = [at for at, payment in enumerate(payments) if holders[payment.idempotency] != payment.payment_id]
        standing = sorted({holders[payments[at].idempotency] for at in lost})
        found = {one.payment_id: one for one in self.load(standing)}
        for at in lost:
            decisions.repeats(at, found[holders[payments[at].idempotency]])

    def _keep_routes(self, payments: Sequence[Payment]) -> None:
        """Stores the routes' explanations that are not known to be stored: many payments share one."""
        known = self._routes.known
        new = {payment.route_id: payment.route for payment in payments if payment.route_id not in known}
        if new:
            self._connection.executemany("INSERT INTO routes VALUES (?, ?) ON CONFLICT DO NOTHING", list(new.items()))
            self._routes.sent(list(new))

    def _keep_judgements(self, payments: Sequence[Payment], refusals: Sequence[Refusal]) -> None:
        """The same for risk judgements."""
        new = new_judgements(payments, refusals, self._judgements.known)
        if new:
            rows = list(new.items())
            self._connection.executemany("INSERT INTO judgements VALUES (?, ?) ON CONFLICT DO NOTHING", rows)
            self._judgements.sent(list(new))

    def _keep_refusals(self, refusals: Sequence[Refusal]) -> None:
        self._keep_judgements((), refusals)
        self._connection.executemany(_INSERT_REFUSAL, [refusal_row(one) for one in refusals])

    def _reserve_refunds(self, decisions: Decisions) -> None:
        wanted = {payment.original_id for payment in decisions.payments if payment.original_id is not None}
        if wanted:
            rows = self._read_each(_ORIGINAL, wanted)
            decisions.refunds({original_id: Original(*row) for original_id, row in rows.items()})

    def _all_fit(self, payments: Sequence[Payment]) -> bool:
        """Spends and counts for all these payments where all of it fits, as `Decisions` would find too. False, with
        nothing written, where it does not, or where it takes turns to know."""
        spends = [(spend, payment.payment_id) for payment in payments for spend in payment.single_use]
        if self._spend_together(spends):
            if self._count_together(payments):
                return True
            self._connection.executemany(_DELETE_SPEND, spends)
        return False

    def _spend_together(self, spends: Sequence[tuple[bytes, bytes]]) -> bool:
        """Spends all values. False, with nothing spent, if any was spent before or occurs twice."""
        db = self._connection
        if not spends or db.executemany(_INSERT_SPEND, spends).rowcount == len(spends):
            return True
        db.executemany(_DELETE_SPEND, spends)
        return False

    def _count_together(self, payments: Sequence[Payment]) -> bool:
        """Adds to all counters. False, with nothing added, unless there is room for all: if the sum of a tick's
        additions to a counter, none of which is negative, stays within the lowest cap, so does each of them."""
        sums: dict[bytes, int] = {}
        caps: dict[bytes, int] = {}
        for payment in payments:
            for counter, add, cap, _, _ in payment.counters:
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

    def _take_turns(self, decisions: Decisions) -> None:
        """Decides by the rules which payments fit, since not all do."""
        payments = decisions.admitted()
        spends = {spend for payment in payments for spend in payment.single_use}
        rows = self._read_each("SELECT payment_id FROM spends WHERE spend = ?", spends)
        owners = {spend: payment_id for spend, (payment_id,) in rows.items()}
        counters = {condition.counter for payment in payments for condition in payment.counters}
        rows = self._read_each("SELECT used FROM counters WHERE counter = ?", counters)
        used = {counter: count for counter, (count,) in rows.items()}
        rows = self._read_each(HOLDERS.format("s.spend = ?"), {payment.order for payment in payments if payment.order})
        holders = {order: Holder(*row[1:]) for order, row in rows.items()}
        decisions.take_turns(owners, used, holders)
        if decisions.reopened:
            self._connection.executemany(_DELETE_SPEND, list(decisions.reopened.items()))
        self._connection.executemany(_INSERT_SPEND, decisions.spent)
        self._connection.executemany(_ADD, [(counter, added) for counter, added in decisions.counted.items() if added])

    def _read_each(self, query: str, keys: Iterable[bytes]) -> dict[bytes, tuple[Any, ...]]:
        """The row of a query for each key; keys without one are left out."""
        rows = ((key, self._connection.execute(query, (key,)).fetchone()) for key in keys)
        return {key: row for key, row in rows if row is not None}

    # -- reading back -----------------------------------------------------------------------------------

    @readable
    def load_open(self) -> list[Payment]:
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
        return load(self._connection, payment_ids)

    @readable
    def claim(self, payment_ids: Sequence[bytes]) -> list[Payment]:
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
        rows = self._connection.execute(
            f"SELECT payment_id FROM payments WHERE open = {HELD} AND engine = ? AND hold_until_us <= ? "
            "ORDER BY hold_until_us LIMIT ?",
            (self._engine, now_us, limit),
        )
        return [row[0] for row in rows]

    @readable
    def repeats(self, idempotency: Sequence[bytes]) -> dict[bytes, Payment]:
        self._repeats.learn(self._connection)
        found = self._repeats.find(self._connection, idempotency)
        return {payment.idempotency: payment for payment in self.load(sorted(set(found.values())))}

    def give_up(self) -> None:
        """Does nothing: nothing here waits for another process, and waiting for a hung disk cannot be given up."""

    def close(self) -> None:
        self._connection.close()
