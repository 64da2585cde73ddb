"""The SQL statements of a tick, made once from the tables' columns.

Plain SQL for PostgreSQL, CockroachDB and YugabyteDB: `unnest` of arrays, ON CONFLICT DO NOTHING, UPDATE ... FROM,
SELECT ... FOR UPDATE. Whatever another engine may need too is locked in one order, by statement and within a statement
by key: judgements, routes, new payments by idempotency hash, spends, counters, originals of refunds, the numbering. So
engines wait for each other, and do not deadlock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gateway.journal import refusals
from gateway.journal.interface import EVENT_COLUMNS
from gateway.journal.postgres_arrays import SQL_TYPES
from gateway.journal.postgres_schema import LEG_TYPES, LINE, PAYMENT_TYPES, REFUSAL_TYPES
from gateway.journal.refusals import REFUSAL_COLUMNS
from gateway.journal.schema import HOLDERS, LEG_COLUMNS, PAYMENT_COLUMNS

NOW_US: Final = "CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)"
"""The database's clock, the one clock for all gateways' leases."""


def _unnest(columns: Sequence[str], types: Sequence[str], *, numbered: bool = False) -> str:
    """Packed arrays as a table `u`."""
    arrays = ", ".join(f"%s::{SQL_TYPES[kind]}[]" for kind in types)
    if numbered:
        return f"unnest({arrays}) WITH ORDINALITY AS u ({', '.join(columns)}, place)"
    return f"unnest({arrays}) AS u ({', '.join(columns)})"


def _insert(table: str, columns: Sequence[str], types: Sequence[str]) -> str:
    names = ", ".join(columns)
    picked = ", ".join(f"u.{column}" for column in columns)
    return f"INSERT INTO {table} ({names}) SELECT {picked} FROM {_unnest(columns, types)}"


FENCE: Final = (
    "UPDATE leases SET tick = CASE WHEN epoch = %s AND tick = %s AND holder = %s THEN %s::bigint END, "
    f"expires_us = {NOW_US} + %s WHERE engine = %s"
)
"""Parameters: epoch, last tick, holder, this tick, lease in microseconds, engine. If the lease is another's, or the
database has lost ticks, the tick becomes NULL, which the column refuses: the whole transaction fails, whatever was sent
after it."""

SETTLE_DOUBT: Final = (
    "UPDATE leases SET tick = CASE WHEN tick = %s THEN %s::bigint ELSE tick END "
    "WHERE engine = %s AND epoch = %s RETURNING tick"
)
"""Parameters: last tick, the number after the next, engine, epoch. After a tick in doubt: if it was not committed, its
number is skipped. It writes even if nothing changes: its own commit waits until a standby has the tick in doubt too."""

INSERT_PAYMENTS: Final = f"{_insert('payments', PAYMENT_COLUMNS, PAYMENT_TYPES)} ON CONFLICT (idempotency) DO NOTHING"
STANDING: Final = "SELECT payment_id, idempotency FROM payments WHERE idempotency = ANY(%s::bytea[])"
INSERT_ROUTES: Final = (
    f"{_insert('routes', ('route_id', 'explanation'), ('BIGINT', 'TEXT'))} ON CONFLICT (route_id) DO NOTHING"
)
INSERT_JUDGEMENTS: Final = (
    f"{_insert('judgements', ('risk_id', 'judgement'), ('BIGINT', 'TEXT'))} ON CONFLICT (risk_id) DO NOTHING"
)
INSERT_REFUSALS: Final = _insert("refusals", REFUSAL_COLUMNS, REFUSAL_TYPES)
LIST_DECISIONS: Final = refusals.LIST_DECISIONS.replace("?", "%s")
INSERT_SPENDS: Final = (
    f"{_insert('spends', ('spend', 'payment_id'), ('BYTEA', 'BYTEA'))} "
    "WHERE EXISTS (SELECT 1 FROM payments WHERE payments.payment_id = u.payment_id) ON CONFLICT (spend) DO NOTHING"
)
"""Only for admitted payments."""
SPENT_BY: Final = "SELECT spend, payment_id FROM spends WHERE spend = ANY(%s::bytea[])"
LOCK_HOLDERS: Final = HOLDERS.format("s.spend = ANY(%s::bytea[])") + " ORDER BY s.spend FOR UPDATE OF s"
"""Waits for whoever is taking one of these orders over; what is gone then is found by SPENT_BY, asked after it."""
REOPEN: Final = "DELETE FROM spends WHERE spend = ANY(%s::bytea[]) AND payment_id = ANY(%s::bytea[])"
"""Orders, and the payments that had them."""
INSERT_COUNTERS: Final = (
    f"INSERT INTO counters (counter, used) SELECT u.counter, 0 FROM {_unnest(('counter',), ('BYTEA',))} "
    "ON CONFLICT (counter) DO NOTHING"
)
LOCK_COUNTERS: Final = "SELECT counter, used FROM counters WHERE counter = ANY(%s::bytea[]) ORDER BY counter FOR UPDATE"
LOCK_ORIGINALS: Final = (
    "SELECT payment_id, kind, state, amount_minor, refunded_minor FROM payments "
    "WHERE payment_id = ANY(%s::bytea[]) ORDER BY payment_id FOR UPDATE"
)
ADD_COUNTERS: Final = (
    f"UPDATE counters SET used = counters.used + u.change FROM {_unnest(('counter', 'change'), ('BYTEA', 'BIGINT'))} "
    "WHERE counters.counter = u.counter"
)
ADD_REFUNDS: Final = (
    "UPDATE payments SET refunded_minor = payments.refunded_minor + u.change "
    f"FROM {_unnest(('payment_id', 'change'), ('BYTEA', 'BIGINT'))} WHERE payments.payment_id = u.payment_id"
)
WITHDRAW_PAYMENTS: Final = "DELETE FROM payments WHERE payment_id = ANY(%s::bytea[])"
WITHDRAW_SPENDS: Final = "DELETE FROM spends WHERE spend = ANY(%s::bytea[]) AND payment_id = ANY(%s::bytea[])"

PUT_LEGS: Final = (
    f"{_insert('legs', LEG_COLUMNS, LEG_TYPES)} ON CONFLICT (payment_id, number) "
    "DO UPDATE SET state = excluded.state, was_approved = excluded.was_approved, code = excluded.code"
)
CHANGE_TYPES: Final = ("SMALLINT", "SMALLINT", "SMALLINT", "TEXT", "SMALLINT", "BIGINT", "BYTEA")
UPDATE_PAYMENTS: Final = (
    "UPDATE payments SET open = u.open, state = u.state, goal = u.goal, reason = u.reason, attempt = u.attempt, "
    "ended_us = u.ended_us FROM "
    + _unnest(("open", "state", "goal", "reason", "attempt", "ended_us", "payment_id"), CHANGE_TYPES)
    + " WHERE payments.payment_id = u.payment_id AND payments.engine = %s"
)

NUMBER: Final = f"UPDATE numbering SET last = last + %s WHERE line = '{LINE}'"
"""The last lock that a tick takes, so that numbers are in the order of commits."""
POSTING_TYPES: Final = ("BYTEA", "SMALLINT", "TEXT", "TEXT", "BIGINT", "BIGINT")
_POSTING: Final = ("payment_id", "number", "account", "currency", "amount_minor", "posted_us")
INSERT_POSTINGS: Final = (
    f"INSERT INTO postings (posting, {', '.join(_POSTING)}) "
    f"SELECT n.last - %s + u.place, {', '.join(f'u.{column}' for column in _POSTING)} "
    f"FROM numbering n CROSS JOIN {_unnest(_POSTING, POSTING_TYPES, numbered=True)} WHERE n.line = '{LINE}'"
)
"""First parameter: how many numbers the tick takes from here on."""
EVENT_TYPES: Final = ("BYTEA", "SMALLINT", "BIGINT")
_EVENT: Final = ("payment_id", "state", "time_us")
INSERT_EVENTS: Final = (
    f"INSERT INTO events (sequence, {', '.join(_EVENT)}) "
    f"SELECT n.last - %s + u.place, {', '.join(f'u.{column}' for column in _EVENT)} "
    f"FROM numbering n CROSS JOIN {_unnest(_EVENT, EVENT_TYPES, numbered=True)} WHERE n.line = '{LINE}'"
)

PAYMENTS: Final = ", ".join(PAYMENT_COLUMNS)
LEGS: Final = ", ".join(LEG_COLUMNS)
LOAD_PAYMENTS: Final = f"SELECT {PAYMENTS} FROM payments WHERE payment_id = ANY(%s::bytea[]) ORDER BY payment_id"
LOAD_LEGS: Final = f"SELECT {LEGS} FROM legs WHERE payment_id = ANY(%s::bytea[]) ORDER BY payment_id, number"
CAPTURED_TYPES: Final = ("BIGINT", "BIGINT", "TEXT", "BYTEA")
_CAPTURED: Final = ("amount_minor", "deadline_us", "counters", "payment_id")
UPDATE_CAPTURED: Final = (
    "UPDATE payments SET amount_minor = u.amount_minor, deadline_us = u.deadline_us, counters = u.counters "
    f"FROM {_unnest(_CAPTURED, CAPTURED_TYPES)} WHERE payments.payment_id = u.payment_id AND payments.engine = %s"
)
TAKE_UP: Final = (
    "UPDATE payments SET engine = %s, open = 1 WHERE payment_id IN "
    "(SELECT payment_id FROM payments WHERE payment_id = ANY(%s::bytea[]) AND open = 2 ORDER BY payment_id FOR UPDATE)"
)
"""Held payments go to the first engine that asks, one at a time; locked in one order."""
ENDED_HOLDS: Final = (
    "SELECT payment_id FROM payments WHERE open = 2 AND hold_until_us <= %s "
    f"AND hold_until_us <= (SELECT {NOW_US}) ORDER BY hold_until_us LIMIT %s"
)
"""Holds that have ended by the gateway's clock and by the database's."""
REFUNDS: Final = "SELECT payment_id FROM payments WHERE original_id = ANY(%s::bytea[]) ORDER BY payment_id"
ROUTES: Final = "SELECT route_id, explanation FROM routes WHERE route_id = ANY(%s::bigint[])"
JUDGEMENTS: Final = "SELECT risk_id, judgement FROM judgements WHERE risk_id = ANY(%s::bigint[])"
EVENTS_OF: Final = (
    f"SELECT {EVENT_COLUMNS} "
    f"FROM {_unnest(('payment_id', 'after_sequence'), ('BYTEA', 'BIGINT'))} CROSS JOIN LATERAL ("
    "SELECT sequence, payment_id, state, time_us FROM events "
    "WHERE payment_id = u.payment_id AND sequence > u.after_sequence ORDER BY sequence LIMIT %s) AS e "
    "LEFT JOIN payments AS p ON p.payment_id = e.payment_id ORDER BY e.payment_id, e.sequence LIMIT %s"
)
"""Parameters: payments, the number after which each is read, and the most rows for one payment and for all. In order:
however the tables are joined, what the limit leaves out of a payment is the end of it."""
CLAIM: Final = (
    "UPDATE payments SET engine = %s WHERE payment_id = ANY(%s::bytea[]) AND open = 0 AND engine = ANY(%s::bigint[])"
)
"""Ended payments whose engine is gone go to the engine that has something for them."""
BURY: Final = (
    "UPDATE leases SET epoch = epoch + 1, holder = '' "
    f"WHERE engine = ANY(%s::bigint[]) AND expires_us < {NOW_US} RETURNING engine"
)
"""Fences engines whose leases have expired, before anything is taken from them."""
OWNERS: Final = "SELECT payment_id, engine, open FROM payments WHERE payment_id = ANY(%s::bytea[])"
MAIL_TYPES: Final = ("BYTEA", "BIGINT", "SMALLINT", "BYTEA", "TEXT", "BIGINT", "TEXT")
_MAIL: Final = ("mail_id", "engine", "kind", "subject", "participant", "result", "code")
SEND_MAIL: Final = f"{_insert('mail', _MAIL, MAIL_TYPES)} ON CONFLICT (mail_id) DO NOTHING"
TAKE_MAIL: Final = "DELETE FROM mail WHERE engine = %s RETURNING mail_id, kind, subject, participant, result, code"
REPEATED: Final = "SELECT payment_id FROM payments WHERE idempotency = ANY(%s::bytea[])"
OPEN_IDS: Final = "SELECT payment_id FROM payments WHERE engine = %s AND open = 1 ORDER BY payment_id"
