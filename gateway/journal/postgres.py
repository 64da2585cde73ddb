"""The journal on PostgreSQL, or on a database that speaks its protocol: many gateways, one database.

Cost of a tick: two round trips (one, if nothing is admitted), each a pipeline of a few statements, whatever the number
of payments. The first sends everything that needs no verdict, locks the rows of the conditions, and reads them; the
second writes what the verdicts allow, and commits.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Final, ParamSpec, TypeVar
from uuid import uuid4

import psycopg
from psycopg import errors

from gateway.engine.conditions import Decisions, Holder, Original
from gateway.engine.model import Payment, Refused, Writes
from gateway.engine.ports import JournalFencedError, JournalUnavailableError
from gateway.journal import leases
from gateway.journal import postgres_sql as sql
from gateway.journal.interface import JournalMismatchError, JournalWentBackError
from gateway.journal.kept import KeptTexts
from gateway.journal.leases import LEASE_US
from gateway.journal.memory import Memory, Standing, told
from gateway.journal.postgres_arrays import bigints, byteas, columns
from gateway.journal.postgres_connection import (
    REPEATABLE,
    Connect,
    Connection,
    safe_url,
)
from gateway.journal.postgres_connection import connect as open_connection
from gateway.journal.postgres_schema import PAYMENT_TYPES
from gateway.journal.postgres_sessions import TICKS, Sessions
from gateway.journal.postgres_setup import database_name, prepare, record_loss
from gateway.journal.postgres_waiting import Patience, SilentServerError
from gateway.journal.postgres_writes import Cursor, load, send_changes, send_the_rest
from gateway.journal.refusals import new_judgements
from gateway.journal.rows import payment_row
from gateway.journal.schema import HELD

log = logging.getLogger(__name__)

ATTEMPTS_MAX: Final = 8
"""Most attempts of a tick that conflicts with another engine's."""
BACKOFF_S: Final = 0.002
"""Seconds before the second attempt; doubled for each further one, up to a quarter of a second."""
COMMIT_S: Final = 4.0
"""After this many seconds a tick that conflicts with other engines' is postponed rather than tried again."""
RECONNECTS_MAX: Final = 2
"""Attempts of a read on a new connection before it is given up."""
TICKS_REMEMBERED_MAX: Final = 16_384
"""Number of last ticks for which the number of admitted payments is remembered, in case a database loses them."""

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")


class _AgainError(Exception):
    """The tick conflicts with another engine's and must be done again."""


def _reading(read: Callable[Parameters, Answer]) -> Callable[Parameters, Answer]:
    """Repeats a read on a new connection if the old one is gone; then raises JournalUnavailableError."""

    @functools.wraps(read)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Answer:
        journal: Any = args[0]
        for attempt in range(RECONNECTS_MAX):
            try:
                return read(*args, **kwargs)
            except psycopg.Error as error:
                journal.disconnect()
                if attempt + 1 == RECONNECTS_MAX or isinstance(error, SilentServerError):
                    raise JournalUnavailableError(str(error)) from error
        raise AssertionError("the last attempt returns or raises")

    return wrapped


class PostgresJournal:
    """The journal of one engine on PostgreSQL. Holds the lease of its engine number (gateway.journal.leases)."""

    def __init__(
        self,
        url: str,
        engine: int | None = None,
        *,
        holder: str = "",
        network: str = "",
        lease_us: int = LEASE_US,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
        connect: Connect | None = None,
        memory: Memory | None = None,
        accept_lost_commits: bool = False,
    ) -> None:
        """`engine`: a fixed number; without it a free one. `holder` names this process, so that its next start gets its
        number back without waiting; the composition must see to it that one process at a time has that name.
        `network` names those who may share the database: whoever takes a payment over must reach its participants.
        `memory`: what former processes of this folder saw committed; a database that has less is refused, unless
        `accept_lost_commits`, which is recorded in it. Raises JournalMismatchError, JournalWentBackError."""
        self._url = url
        self._sleep = sleep
        self.monotonic = monotonic
        self._patience = Patience()
        self.connect: Connect = connect or functools.partial(open_connection, patience=self._patience)
        """Opens connections whose waits `give_up` ends; also for readers beside this journal."""
        self._connection: Connection | None = None
        self._in_doubt = False
        self._memory_lock = threading.Lock()
        """Guards `memory`, which the engine's thread and its neighbours' use."""
        self._routes = KeptTexts()
        self._judgements = KeptTexts()
        self._admitted = 0
        self._ticks: deque[tuple[int, int]] = deque(maxlen=TICKS_REMEMBERED_MAX)
        """The number of each of the last ticks, and how many payments had been admitted up to it since the start."""
        self.memory = memory or Memory()
        try:
            self._connection = self.connect(url, writer=True)
            prepare(self._connection, network)
            self._compare(self._connection, accept_lost_commits=accept_lost_commits)
            holder = holder or uuid4().hex
            self.sessions = Sessions(self._connection)
            self.sessions.end_of_holder(self._connection, holder)
            self.lease = leases.acquire(self._connection, holder, engine=engine, duration_us=lease_us)
            self.sessions.name(self._connection, self.lease, TICKS)
        except psycopg.Error as error:
            self.disconnect()
            raise JournalMismatchError(f"{safe_url(url)} is not a usable journal: {error}") from error
        except (JournalMismatchError, JournalWentBackError):
            self.disconnect()
            raise
        self._tick = self.lease.tick
        self._ticks.append((self._tick, 0))
        self.memory.learn([self.standing])
        self.memory.save(durable=True)
        self.committed_s = monotonic()
        """When the lease was last prolonged by a tick, on the monotonic clock."""
        self._prolonged_s = self.committed_s
        self._takeover_from_s = self.committed_s

    @property
    def engine(self) -> int:
        """The number under which this journal stores its payments in flight."""
        return self.lease.engine

    @property
    def standing(self) -> Standing:
        """The last tick that this engine knows to be committed. From any thread."""
        return Standing(self.lease.engine, self.lease.epoch, self._tick)

    def _compare(self, database: Connection, *, accept_lost_commits: bool) -> None:
        """At the start: checks that the database has all that this folder's gateways saw committed."""
        memory, name = self.memory, database_name(database)
        standings = leases.standings(database)
        behind = memory.behind(standings)
        if behind and not accept_lost_commits:
            other = f" (this is {name}, and it was {memory.system})" if memory.system not in ("", name) else ""
            raise JournalWentBackError(f"{safe_url(self._url)}{other} has lost commits: {told(behind)}")
        if behind:
            log.warning("commits that the database lost are accepted: %s", told(behind))
            record_loss(database, told(behind))
            memory.forget(standings)
        elif accept_lost_commits:
            log.info("the database has lost no commits that this gateway knows of")
        memory.system = name

    @property
    def url(self) -> str:
        """The database's URL; may contain a password."""
        return self._url

    # -- the connection -----------------------------------------------------------------------------------

    def _database(self) -> Connection:
        if self._connection is None:
            connection = self._connection = self.open_session(TICKS)
            self._check_standing(connection)
        return self._connection

    def open_session(self, thread: str) -> Connection:
        """A new connection in this engine's name, for one of its threads (gateway.journal.postgres_sessions); the
        thread's former connection is ended at the server too. Raises psycopg.Error."""
        connection = self.connect(self._url, writer=True)
        try:
            self.sessions.name(connection, self.lease, thread)
        except psycopg.Error:
            connection.close()
            raise
        return connection

    def _check_standing(self, connection: Connection) -> None:
        """A new connection may lead to another server, which must have what this engine knows to be committed. Raises
        JournalWentBackError."""
        found = leases.standings(connection)
        own = next((one for one in found if one.engine == self.engine), None)
        if own is None or own.tick < self._tick:
            self.disconnect()
            raise self.ended_by(found)

    def ended_by(self, found: Sequence[Standing]) -> JournalFencedError:
        """Why this engine may not commit any more, from the standings in the database. From any thread. A tick's number
        never falls: if it did, commits are lost, whatever the epoch; otherwise another engine has taken the number."""
        with self._memory_lock:
            self.memory.learn([self.standing])
            behind = self.memory.behind(found)
            if not behind:
                return JournalFencedError(f"another gateway has taken over engine number {self.engine}")
            self.memory.save(durable=True)
        own = next((one for one in behind if one.known.engine == self.engine), None)
        payments = "" if own is None else f"; {self._lost_payments(own.found.tick if own.found else 0)}"
        return JournalWentBackError(f"{safe_url(self._url)} has lost commits: {told(behind)}{payments}")

    def behind(self, found: Sequence[Standing], own: Standing) -> bool:
        """The engine numbers for which the database lacks what was seen in it before. `own`: this engine's standing
        before `found` was read. From any thread."""
        with self._memory_lock:
            self.memory.learn([own])
            return bool(self.memory.behind(found))

    def _lost_payments(self, tick: int) -> str:
        """Number of payments that this process admitted after a tick."""
        ticks = list(self._ticks)
        before = [admitted for number, admitted in ticks if number <= tick]
        lost = self._admitted - (before[-1] if before else ticks[0][1])
        return f"{'' if before else 'at least '}{lost:,} payments that this gateway admitted since are gone"

    def remember(self, found: Sequence[Standing]) -> None:
        """Records, in memory and in the folder, what was seen in the database. From any thread."""
        with self._memory_lock:
            self.memory.learn(found)
            self.memory.save(durable=False)

    def disconnect(self) -> None:
        """Closes the connection; the next use opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def close(self) -> None:
        """Closes the journal and gives the lease back: others may take over what is left in flight."""
        try:
            if not self._patience.given_up:
                leases.release(self._database(), self.lease)
        except psycopg.Error as error:
            log.warning("the lease could not be given back, it runs out by itself: %s", error)
        except JournalFencedError as error:
            log.warning("the lease is not given back: %s", error)
        self.disconnect()
        with self._memory_lock:
            self.memory.learn([self.standing])
            self.memory.save(durable=True)

    def give_up(self) -> None:
        self._patience.give_up()

    # -- who lives --------------------------------------------------------------------------------------------

    def prolonged(self) -> None:
        """Records that the database has just prolonged this engine's lease. From either of the engine's threads."""
        now_s = self.monotonic()
        if now_s - self._prolonged_s > self.lease.duration_us / 2e6:
            # Whatever kept this engine away may have kept the others away too: they get the time of a lease to say
            # that they live.
            self._takeover_from_s = now_s + self.lease.duration_us / 1e6
        self._prolonged_s = now_s

    def skip(self, idle_s: float) -> None:
        """Skips time in which the lease was kept as usual; for a simulated world."""
        self._prolonged_s += idle_s

    def may_take_over(self) -> bool:
        """Whether an engine whose lease has expired counts as dead: not if the database was out of reach, or this
        process stood still, because then other engines may have had no chance to prolong theirs."""
        now_s = self.monotonic()
        return now_s >= self._takeover_from_s and now_s - self._prolonged_s <= self.lease.duration_us / 2e6

    # -- writing --------------------------------------------------------------------------------------------

    def commit(self, writes: Writes) -> list[Refused | None]:
        """Stores a tick in one durable transaction. Raises JournalFencedError if this engine's lease was taken."""
        self._in_doubt = False
        pause_s = BACKOFF_S
        until_s = self.monotonic() + COMMIT_S
        for attempt in range(ATTEMPTS_MAX):
            try:
                return self._commit_once(writes)
            except (_AgainError, *REPEATABLE) as error:
                if attempt + 1 == ATTEMPTS_MAX or self.monotonic() > until_s:
                    raise JournalUnavailableError(f"other engines kept this tick from committing: {error}") from error
            self._sleep(pause_s)
            pause_s = min(pause_s * 2, 0.25)
        raise AssertionError("the last attempt returns or raises")

    def _commit_once(self, writes: Writes) -> list[Refused | None]:
        decisions = Decisions(writes.admissions)
        self._routes.begin()
        self._judgements.begin()
        try:
            database = self._database()
            self._transact(database, writes, decisions)
        except errors.NotNullViolation as error:
            self._roll_back()
            self._raise_if_fenced(error)
        except (_AgainError, *REPEATABLE):
            self._roll_back()
            raise
        except SilentServerError as error:
            # It will not answer a question now either: callers are told, and the answer is looked up later.
            self._in_doubt = True
            self.disconnect()
            raise JournalUnavailableError(str(error)) from error
        except psycopg.Error as error:
            if not self._was_taken():
                raise JournalUnavailableError(str(error)) from error
        else:
            self._tick += 1
        self._count(len(writes.admissions) - sum(verdict is not None for verdict in decisions.verdicts))
        self.committed_s = self.monotonic()
        self.prolonged()
        self._routes.committed()
        self._judgements.committed()
        return decisions.verdicts

    def _count(self, admitted: int) -> None:
        """Records how many payments a tick admitted."""
        self._admitted += admitted
        self._ticks.append((self._tick, self._admitted))

    def _transact(self, db: Connection, writes: Writes, decisions: Decisions) -> None:
        """The two round trips."""
        lease = self.lease
        conditions: dict[str, Cursor] = {}
        with db.pipeline():
            db.execute("BEGIN")
            fence = (lease.epoch, self._tick, lease.holder, self._tick + 1, lease.duration_us, lease.engine)
            db.execute(sql.FENCE, fence)
            self._send_judgements(db, writes)
            inserted = self._send_admissions(db, writes, conditions) if writes.admissions else None
            self._lock(db, writes, conditions)
            changed = send_changes(db, writes, lease.engine)
            if inserted is None and not conditions:
                send_the_rest(db, writes, decisions)
                db.execute("COMMIT")
        if changed is not None and changed.rowcount != len(writes.changed):
            # Cannot be while the lease is held: only its holder changes who a payment belongs to.
            self._roll_back()
            raise JournalFencedError(f"engine {lease.engine} does not own the payments that it changes")
        if inserted is None and not conditions:
            return
        if inserted is not None and inserted.rowcount != len(writes.admissions):
            self._find_repeats(db, decisions)
        self._decide(db, decisions, conditions)
        with db.pipeline():
            send_the_rest(db, writes, decisions)
            db.execute("COMMIT")

    def _send_judgements(self, db: Connection, writes: Writes) -> None:
        """Sends the risk judgements of this tick's payments that are not known to be stored."""
        new = new_judgements(writes.admissions, writes.refusals, self._judgements.known)
        if new:
            db.execute(sql.INSERT_JUDGEMENTS, columns(sorted(new.items()), ("BIGINT", "TEXT")))
            self._judgements.sent(list(new))

    def _send_admissions(self, db: Connection, writes: Writes, conditions: dict[str, Cursor]) -> Cursor:
        payments = writes.admissions
        known = self._routes.known
        new = {payment.route_id: payment.route for payment in payments if payment.route_id not in known}
        if new:
            db.execute(sql.INSERT_ROUTES, columns(sorted(new.items()), ("BIGINT", "TEXT")))
            self._routes.sent(list(new))
        # In one order for all engines; of equal keys the first stays first.
        ordered = sorted(payments, key=lambda payment: payment.idempotency)
        rows = [payment_row(payment, self.engine) for payment in ordered]
        inserted = db.execute(sql.INSERT_PAYMENTS, columns(rows, PAYMENT_TYPES))
        spends = [(spend, payment.payment_id) for payment in payments for spend in payment.single_use]
        if spends:
            spends.sort(key=lambda pair: pair[0])
            db.execute(sql.INSERT_SPENDS, columns(spends, ("BYTEA", "BYTEA")))
            if orders := sorted({payment.order for payment in payments if payment.order}):
                conditions["holders"] = db.execute(sql.LOCK_HOLDERS, (byteas(orders),))
            conditions["spends"] = db.execute(sql.SPENT_BY, (byteas([spend for spend, _ in spends]),))
        return inserted

    def _lock(self, db: Connection, writes: Writes, conditions: dict[str, Cursor]) -> None:
        """Locks and reads the rows of conditions and releases."""
        counters = {one.counter for payment in writes.admissions for one in payment.counters}
        if counters:
            db.execute(sql.INSERT_COUNTERS, (byteas(sorted(counters)),))
        counters.update(counter for _, counter in writes.releases)
        if counters:
            conditions["counters"] = db.execute(sql.LOCK_COUNTERS, (byteas(sorted(counters)),))
        originals = {payment.original_id for payment in writes.admissions if payment.original_id is not None}
        originals.update(original for _, original in writes.refund_releases)
        if originals:
            conditions["originals"] = db.execute(sql.LOCK_ORIGINALS, (byteas(sorted(originals)),))

    def _find_repeats(self, db: Connection, decisions: Decisions) -> None:
        """Finds the repeats, after some keys were taken before, or are twice in the batch."""
        keys = [payment.idempotency for payment in decisions.payments]
        holders = {bytes(key): bytes(holder) for holder, key in db.execute(sql.STANDING, (byteas(keys),))}
        if any(key not in holders for key in keys):
            # Its holder was admitted and withdrawn meanwhile, or this database's snapshot is older than it.
            raise _AgainError("a repeated key has no payment")
        lost = [index for index, one in enumerate(decisions.payments) if holders[one.idempotency] != one.payment_id]
        found = {one.payment_id: one for one in load(db, sorted({holders[keys[index]] for index in lost}))}
        for index in lost:
            decisions.repeats(index, found[holders[keys[index]]])

    def _decide(self, db: Connection, decisions: Decisions, conditions: dict[str, Cursor]) -> None:
        """Decides in the order of conditions that every journal has: keys, refunds, spends, counters."""
        if (cursor := conditions.get("originals")) is not None:
            decisions.refunds({bytes(row[0]): Original(*row[1:]) for row in cursor})
        spends, counters = conditions.get("spends"), conditions.get("counters")
        if spends is not None or counters is not None:
            owners = {bytes(row[0]): bytes(row[1]) for row in spends or ()}
            held = conditions.get("holders") or ()
            holders = {bytes(row[0]): Holder(bytes(row[1]), row[2], row[3], int(row[4])) for row in held}
            decisions.take_turns(owners, {bytes(row[0]): row[1] for row in counters or ()}, holders)

    # -- when a tick fails ------------------------------------------------------------------------------------

    def _roll_back(self) -> None:
        try:
            if self._connection is not None:
                self._connection.execute("ROLLBACK")
        except psycopg.Error:
            self.disconnect()

    def _raise_if_fenced(self, error: errors.NotNullViolation) -> None:
        """The fence makes NULL where the epoch, the tick or the holder is not this engine's."""
        if error.diag.table_name not in (None, "leases"):
            raise JournalUnavailableError(str(error)) from error
        try:
            found = leases.standings(self._database())
        except psycopg.Error as unread:
            self.disconnect()
            raise JournalUnavailableError(str(unread)) from error
        raise self.ended_by(found) from error

    def _was_taken(self) -> bool:
        """Whether a failed transaction was committed nevertheless, decided for good. Waits for its end if the server
        still works on it: the row is locked until then. If it was not committed, the tick's number is skipped, so that
        the fence refuses whatever the server may still have of it."""
        self.disconnect()
        self._in_doubt = True
        try:
            row = (
                self._database()
                .execute(sql.SETTLE_DOUBT, (self._tick, self._tick + 2, self.engine, self.lease.epoch))
                .fetchone()
            )
            settled = row is not None and row[0] in (self._tick + 1, self._tick + 2)
            found = [] if settled else leases.standings(self._database())
        except psycopg.Error as error:
            self.disconnect()
            raise JournalUnavailableError(str(error)) from error
        if row is None or not settled:
            raise self.ended_by(found)
        taken = bool(row[0] == self._tick + 1)
        self._tick, self._in_doubt = row[0], False
        return taken

    def last_was_taken(self) -> bool:
        if not self._in_doubt:
            return False
        taken = self._was_taken()
        self._count(0)
        return taken

    # -- reading back -------------------------------------------------------------------------------------------

    @_reading
    def load_open(self) -> list[Payment]:
        database = self._database()
        ids = [bytes(row[0]) for row in database.execute(sql.OPEN_IDS, (self.engine,))]
        return load(database, ids)

    @_reading
    def load(self, payment_ids: Sequence[bytes]) -> list[Payment]:
        return load(self._database(), payment_ids)

    @_reading
    def claim(self, payment_ids: Sequence[bytes]) -> list[Payment]:
        database = self._database()
        ids = byteas(payment_ids)
        rows = database.execute(sql.OWNERS, (ids,)).fetchall()
        if any(row[2] == HELD for row in rows):
            with database.transaction():
                if not leases.beat(database, self.lease, self._tick):
                    raise self.ended_by(leases.standings(database))
                database.execute(sql.TAKE_UP, (self.engine, ids))
            rows = database.execute(sql.OWNERS, (ids,)).fetchall()
        owners = {bytes(row[0]): row[1] for row in rows}
        others = sorted({engine for engine in owners.values() if engine != self.engine})
        if others and self.may_take_over():
            with database.transaction():
                gone = [row[0] for row in database.execute(sql.BURY, (bigints(others),))]
                if gone:
                    database.execute(sql.CLAIM, (self.engine, ids, bigints(gone)))
            owners = self._owners(ids)
        return load(database, [key for key, engine in owners.items() if engine == self.engine])

    @_reading
    def ended_holds(self, now_us: int, limit: int) -> list[bytes]:
        return [bytes(row[0]) for row in self._database().execute(sql.ENDED_HOLDS, (now_us, limit))]

    @_reading
    def owners(self, payment_ids: Sequence[bytes]) -> dict[bytes, int]:
        """The engine of each of these payments; payments that do not exist are left out."""
        return self._owners(byteas(payment_ids))

    def _owners(self, ids: bytes) -> dict[bytes, int]:
        return {bytes(row[0]): row[1] for row in self._database().execute(sql.OWNERS, (ids,))}

    @_reading
    def send_mail(self, rows: Sequence[tuple[object, ...]]) -> None:
        """Stores (id, engine, kind, subject, participant, result, code) for other engines."""
        self._database().execute(sql.SEND_MAIL, columns(rows, sql.MAIL_TYPES))

    @_reading
    def repeats(self, idempotency: Sequence[bytes]) -> dict[bytes, Payment]:
        database = self._database()
        ids = [bytes(row[0]) for row in database.execute(sql.REPEATED, (byteas(idempotency),))]
        return {payment.idempotency: payment for payment in load(database, ids)}
