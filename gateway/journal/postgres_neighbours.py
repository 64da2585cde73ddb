"""Several engines on one PostgreSQL journal: heartbeat, takeover, and callers and answers that reach the wrong engine.

A thread of its own, with its own connection, keeps the lease alive, looks for dead engines, reads mail, and reads how
payments of other engines ended, for callers who repeated their requests here. Everything that touches the book or a
caller happens in `poll`, on the engine's thread.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import psycopg

from gateway.engine.answer import id_text, response
from gateway.engine.clock import Clock, PaymentIds
from gateway.engine.clock_watch import ClockWatch
from gateway.engine.core import Core, capture_refusal
from gateway.engine.inbox import Inbox
from gateway.engine.model import Answered, Cancel, Capture, EngineEvent, Expire, Join, Payment, Waiter
from gateway.engine.ports import JournalFencedError, JournalUnavailableError
from gateway.engine.states import FINAL, RESTING, State
from gateway.engine.transitions import open_reversals
from gateway.journal import leases, postgres_clock
from gateway.journal import postgres_sql as sql
from gateway.journal.postgres import PostgresJournal
from gateway.journal.postgres_connection import Connection
from gateway.journal.postgres_reader import PostgresReader
from gateway.journal.postgres_sessions import LEASES
from hutong_contract.errors import HutongError, Reason

log = logging.getLogger(__name__)

BEAT_S: Final = 1.0
"""Seconds between heartbeats, and between looks for dead engines: a fifth of a lease."""
SLACK_S: Final = 1.2
"""Beyond the time between two heartbeats, an answer may be so late before the journal counts as silent, in seconds."""
LOOK_S: Final = 0.05
"""Seconds between looks for mail, and at payments that callers wait for, while there are any or other engines live."""
LOADED_PER_TICK_MAX: Final = 2_000
"""Most adopted payments taken into the book in one tick: some tens of milliseconds."""
FOLLOWED_MAX: Final = 8_192
"""Most callers who wait for payments of other engines; further ones are asked to try again."""
MAIL_PER_LOOK_MAX: Final = 10_000
CANCEL_US: Final = 30_000_000
"""How long a caller who cancels waits for another engine's verdict, in microseconds."""
CANCEL_KIND: Final = 1
ANSWER_KIND: Final = 2
CAPTURE_KIND: Final = 3
OPERATOR: Final = "operator"
"""In place of a code: the operator asks for a capture."""
LIVE: Final = f"SELECT count(*) FROM leases WHERE engine != %s AND expires_us > {sql.NOW_US}"


@dataclass(frozen=True, slots=True)
class _Followed:
    payment_id: bytes
    waiter: Waiter
    reply_by_us: int
    cancels: bool = False
    captures: int | None = None
    """The amount that a capture asked for, 0 for all; None for other callers."""
    operator: bool = False


class _Nobody:
    """The waiter of a cancellation that was passed on; its caller follows the payment at the engine that passed it
    on."""

    def answer(self, payload: bytes) -> None:
        """Does nothing."""

    def fail(self, error: HutongError) -> None:
        """Does nothing."""


class PostgresNeighbours:
    """The neighbours of an engine on PostgreSQL."""

    def __init__(
        self,
        journal: PostgresJournal,
        core: Core,
        inbox: Inbox[Any],
        *,
        clock: Clock | None = None,
        beat_s: float = BEAT_S,
        mail_ids: PaymentIds | None = None,
    ) -> None:
        self._journal = journal
        self._core = core
        self._inbox = inbox
        self._clock = clock or Clock()
        self._clock_watch = ClockWatch(self._clock)
        self._beat_s = beat_s
        self._mail_ids = mail_ids or PaymentIds()
        self._reader = PostgresReader(journal.url, connect=journal.connect)
        self._connection: Connection | None = None
        self._followed: list[_Followed] = []
        self._done: deque[tuple[_Followed, Payment | None]] = deque()
        self._adopted: deque[bytes] = deque()
        self._mail: deque[EngineEvent] = deque()
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._retired = False
        self._closed = threading.Event()
        self._fenced: JournalFencedError | None = None
        """Why this engine must end."""
        self._told = False
        self._live = 0
        self._next_beat_s = 0.0
        self._troubled = self._powerless = False
        self._answered_s = journal.monotonic()
        self._thread = threading.Thread(target=self._run, name="neighbours", daemon=True)

    @property
    def clock(self) -> Clock:
        """The clock that is compared with the database's."""
        return self._clock

    def start(self) -> None:
        self._thread.start()

    @property
    def answering(self) -> bool:
        """Whether the journal has answered lately; without the thread nobody asks it."""
        silent_s = self._journal.monotonic() - self._answered_s
        return not self._thread.is_alive() or silent_s < self._beat_s + SLACK_S

    def shift(self, by_us: int) -> None:
        with self._lock:
            self._followed = [replace(one, reply_by_us=one.reply_by_us + by_us) for one in self._followed]

    def retire(self) -> None:
        self._retired = True

    def close(self) -> None:
        self._closed.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._disconnect()
        self._reader.close()
        while self._done:
            _tell(*self._done.popleft())
        for followed in self._followed:
            # Not DRAINING, which says that nothing was done: the payment is under way at another engine.
            named = {"payment_id": id_text(followed.payment_id)}
            followed.waiter.fail(HutongError(Reason.ERROR_REASON_PAYMENT_IN_PROGRESS, **named))
        self._followed.clear()

    # -- on the engine's thread ---------------------------------------------------------------------------------

    def poll(self, at_most: int) -> Sequence[EngineEvent]:
        if self._fenced is not None and not self._told:
            self._told = True
            raise self._fenced
        if self._adopted:
            self._load_adopted()
        while self._done:
            _tell(*self._done.popleft())
        mail = self._mail
        return [mail.popleft() for _ in range(min(at_most, len(mail)))]

    def _load_adopted(self) -> None:
        """Reads the current state of adopted payments: some may have been taken in, and ended, meanwhile."""
        ids = [self._adopted.popleft() for _ in range(min(LOADED_PER_TICK_MAX, len(self._adopted)))]
        try:
            payments = self._journal.claim([key for key in ids if key not in self._core.book])
        except JournalUnavailableError as error:
            log.warning("adopted payments cannot be read yet: %s", error)
            self._adopted.extendleft(reversed(ids))
            return
        self._core.load(payment for payment in payments if payment.state not in FINAL or open_reversals(payment))
        if self._adopted:
            self._inbox.wake()

    def divert(self, events: Sequence[EngineEvent]) -> list[EngineEvent]:
        missing = self._core.missing(events)
        owners = self._journal.owners(missing) if missing else {}
        others = {key: engine for key, engine in owners.items() if engine != self._journal.engine}
        if not others:
            return list(events)
        now_us = self._clock.now_us()
        kept: list[EngineEvent] = []
        mail: list[tuple[object, ...]] = []
        followed: list[_Followed] = []
        for event in events:
            key = _subject(event)
            engine = others.get(key)
            if engine is None:
                kept.append(event)
            elif isinstance(event, Answered):
                answer = (ANSWER_KIND, event.leg_id, event.participant, event.result, event.code)
                mail.append((self._mail_ids.next(now_us), engine, *answer))
            elif isinstance(event, Cancel):
                mail.append((self._mail_ids.next(now_us), engine, CANCEL_KIND, key, "", 0, ""))
                followed.append(_Followed(key, event.waiter, now_us + CANCEL_US, cancels=True))
            elif isinstance(event, Capture):
                who = OPERATOR if event.operator else ""
                mail.append((self._mail_ids.next(now_us), engine, CAPTURE_KIND, key, "", event.amount_minor, who))
                followed.append(
                    _Followed(key, event.waiter, event.reply_by_us, False, event.amount_minor, event.operator)
                )
            elif isinstance(event, Join):
                followed.append(_Followed(key, event.waiter, event.reply_by_us))
        if mail:
            self._journal.send_mail(mail)
        for one in followed:
            self._follow(one)
        return kept

    def follow(self, payment_id: bytes, waiter: Waiter, reply_by_us: int) -> None:
        self._follow(_Followed(payment_id, waiter, reply_by_us))

    def _follow(self, one: _Followed) -> None:
        with self._lock:
            room = len(self._followed) < FOLLOWED_MAX
            if room:
                self._followed.append(one)
        if room:
            self._wake.set()
        else:
            one.waiter.fail(HutongError(Reason.ERROR_REASON_PAYMENT_IN_PROGRESS, payment_id=id_text(one.payment_id)))

    # -- on the thread of its own ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closed.is_set() and self._fenced is None:
            self._wake.wait(LOOK_S if self._busy else self._beat_s)
            self._wake.clear()
            if not self._closed.is_set() and not self.turn():
                self._closed.wait(LOOK_S)

    @property
    def _busy(self) -> bool:
        return bool(self._live or self._followed)

    def turn(self) -> bool:
        """One turn of the thread. Returns whether the journal could be reached."""
        try:
            self._look()
        except (psycopg.Error, JournalUnavailableError) as error:
            if not self._troubled:
                log.warning("the journal cannot be reached, other engines cannot be looked after: %s", error)
            self._troubled = True
            self._disconnect()
        else:
            self._troubled = False
            self._answered_s = self._journal.monotonic()
        return not self._troubled

    def _look(self) -> None:
        connection = self._connection = self._connection or self._journal.open_session(LEASES)
        now_s = self._journal.monotonic()
        if now_s >= self._next_beat_s:
            self._next_beat_s = now_s + self._beat_s
            self._fenced = self._beat(connection, now_s)
            if self._fenced is not None:
                self._inbox.wake()
                return
        if self._live:
            self._fetch_mail(connection)
        if self._followed:
            self._look_at_followed()

    def _beat(self, connection: Connection, now_s: float) -> JournalFencedError | None:
        """Prolongs the lease, as a tick does too, and looks for dead engines. Returns why this engine must end, if it
        must: its lease was taken, or the database lost what it or another engine had committed."""
        journal, lease, own = self._journal, self._journal.lease, self._journal.standing
        # First: this engine's own tick may be waiting for them, and then so does the heartbeat.
        self._end_lapsed(connection)
        due = now_s - journal.committed_s >= self._beat_s
        prolonged = not due or leases.beat(connection, lease, own.tick)
        found = leases.standings(connection)
        if not prolonged or journal.behind(found, own):
            return journal.ended_by(found)
        if due:
            journal.prolonged()
        journal.remember(found)
        self._clock_watch.look(*postgres_clock.compare(connection, lease.engine, self._clock))
        self._fetch_mail(connection)
        ((self._live,),) = connection.execute(LIVE, (lease.engine,)).fetchall()
        if not self._retired and not self._clock.wrong and self._journal.may_take_over():
            for orphan in leases.orphans(connection, lease):
                self._adopt(connection, orphan)
        return None

    def _end_lapsed(self, connection: Connection) -> None:
        try:
            ended = self._journal.sessions.end_lapsed(connection, self._journal.lease)
        except psycopg.errors.InsufficientPrivilege as error:
            if not self._powerless:
                log.error("connections of engines that died cannot be ended, let all gateways use one role: %s", error)
            self._powerless = True
            return
        for name in ended:
            log.warning("ended the connection %r, which held locks for an engine whose lease has run out", name)

    def _adopt(self, connection: Connection, orphan: int) -> None:
        count = 0
        while not self._closed.is_set() and (adopted := self._adopt_some(connection, orphan)):
            count += len(adopted)
            self._answered_s = self._journal.monotonic()
            self._adopted.extend(adopted)
            self._inbox.wake()
        if count:
            self._fetch_mail(connection)
            log.warning("took over %d payments in flight of engine %d, which died", count, orphan)

    def _adopt_some(self, connection: Connection, orphan: int) -> list[bytes]:
        return leases.adopt(connection, self._journal.lease, self._journal.standing.tick, orphan)

    def _fetch_mail(self, connection: Connection) -> None:
        if len(self._mail) >= MAIL_PER_LOOK_MAX:
            return
        # Ids grow: in the order in which each engine left it.
        for _, kind, subject, participant, result, code in sorted(
            connection.execute(sql.TAKE_MAIL, (self._journal.engine,)).fetchall()
        ):
            if kind == CANCEL_KIND:
                self._mail.append(Cancel(bytes(subject), _Nobody()))
            elif kind == CAPTURE_KIND:
                until_us = self._clock.now_us() + CANCEL_US
                self._mail.append(Capture(bytes(subject), result, _Nobody(), until_us, code == OPERATOR))
            else:
                self._mail.append(Answered(participant, bytes(subject), result, code))
        if self._mail:
            self._inbox.wake()

    def _look_at_followed(self) -> None:
        with self._lock:
            followed = list(self._followed)
        payments = {one.payment_id: one for one in self._reader.payments(sorted({one.payment_id for one in followed}))}
        now_us = self._clock.now_us()
        done = {
            index
            for index, one in enumerate(followed)
            if one.reply_by_us <= now_us or ((found := payments.get(one.payment_id)) and _is_settled(one, found))
        }
        for index in sorted(done):
            one = followed[index]
            self._done.append((one, payments.get(one.payment_id)))
        if done:
            with self._lock:
                # Only appended to meanwhile.
                self._followed = [one for index, one in enumerate(self._followed) if index not in done]
            self._inbox.wake()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _subject(event: EngineEvent) -> bytes:
    """The payment of an event; None for a new payment, which no other engine can have."""
    if isinstance(event, Answered):
        return event.leg_id[:16]
    return event.payment_id if isinstance(event, Cancel | Capture | Expire | Join) else b""


def _is_settled(one: _Followed, payment: Payment) -> bool:
    """Whether a caller can be answered before its time is over. A caller that cancels or captures a held payment waits
    until the engine that has the payment has done it."""
    if one.captures is not None and payment.state is not State.HELD:
        return payment.state in FINAL or _capture_refusal(one, payment) is not None
    return payment.state in (FINAL if one.cancels or one.captures is not None else RESTING)


def _capture_refusal(one: _Followed, payment: Payment) -> HutongError | None:
    if one.captures is None:
        return None
    return capture_refusal(payment, one.captures or payment.authorised_minor, operator=one.operator)


def _tell(one: _Followed, payment: Payment | None) -> None:
    """Answers a caller that waited for a payment of another engine."""
    waiter = one.waiter
    if payment is None:
        waiter.fail(HutongError(Reason.ERROR_REASON_PAYMENT_NOT_FOUND))
        return
    named = {"payment_id": id_text(payment.payment_id)}
    if (refusal := _capture_refusal(one, payment)) is not None:
        waiter.fail(refusal)
    elif payment.state is State.HELD and one.captures is not None:
        waiter.fail(HutongError(Reason.ERROR_REASON_PAYMENT_IN_PROGRESS, **named))
    elif not one.cancels or payment.state is State.CANCELLED:
        waiter.answer(response(payment))
    elif payment.state in FINAL:
        waiter.fail(HutongError(Reason.ERROR_REASON_PAYMENT_FINAL, state=payment.state.name, **named))
    else:
        waiter.fail(HutongError(Reason.ERROR_REASON_PAYMENT_IN_PROGRESS, **named))
