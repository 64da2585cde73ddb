"""The statements of a tick besides its admissions, and reading payments back; on an open transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import psycopg

from gateway.engine.conditions import Decisions
from gateway.engine.model import Payment, Writes
from gateway.engine.states import State
from gateway.journal import postgres_sql as sql
from gateway.journal.closing import closing_statements
from gateway.journal.postgres_arrays import bigints, byteas, columns
from gateway.journal.postgres_connection import Connection
from gateway.journal.postgres_schema import LEG_TYPES, REFUSAL_TYPES
from gateway.journal.refusals import limit_refusals, refusal_row
from gateway.journal.rows import capture_change, leg_row, payment_change, payments_from_rows

IDS_PER_QUERY_MAX: Final = 2_000
"""Payments read at once: bounds a query's memory to some megabytes."""

Cursor = psycopg.Cursor[tuple[Any, ...]]


def send_changes(db: Connection, writes: Writes, engine: int) -> Cursor | None:
    """Sends what needs no verdict: legs and states of payments that this engine owns."""
    if writes.legs:
        db.execute(sql.PUT_LEGS, columns([leg_row(key[0], leg) for key, leg in writes.legs.items()], LEG_TYPES))
    if writes.captured:
        changes = [capture_change(payment) for payment in writes.captured.values()]
        db.execute(sql.UPDATE_CAPTURED, (*columns(changes, sql.CAPTURED_TYPES), engine))
    if not writes.changed:
        return None
    changes = [payment_change(payment) for payment in writes.changed.values()]
    return db.execute(sql.UPDATE_PAYMENTS, (*columns(changes, sql.CHANGE_TYPES), engine))


def send_the_rest(db: Connection, writes: Writes, decisions: Decisions) -> None:
    """Sends what depends on the verdicts, and what is numbered in the order of commits."""
    if decisions.withdrawn or decisions.reopened:
        db.execute(sql.WITHDRAW_PAYMENTS, (byteas(decisions.withdrawn),))
        ids = [payment.payment_id for payment in decisions.payments]
        spends = [spend for payment in decisions.payments for spend in payment.single_use]
        if spends:
            db.execute(sql.WITHDRAW_SPENDS, (byteas(spends), byteas(ids if decisions.respend else decisions.withdrawn)))
        if decisions.reopened:
            former = (byteas(list(decisions.reopened)), byteas(list(decisions.reopened.values())))
            db.execute(sql.REOPEN, former)
        if decisions.respend:
            db.execute(sql.INSERT_SPENDS, columns(decisions.spent, ("BYTEA", "BYTEA")))
    admitted = decisions.admitted()
    _send_sums(db, sql.ADD_COUNTERS, decisions.counted, writes.releases)
    _send_sums(db, sql.ADD_REFUNDS, decisions.refunded, writes.refund_releases)
    postings = [posting for movement in writes.movements for posting in movement.postings()]
    state = State.DEBITING.value
    events: list[tuple[bytes | bytearray, int, int]] = [
        (payment.payment_id, state, payment.created_us) for payment in admitted
    ]
    events += writes.events
    refused = writes.refusals + limit_refusals(decisions.payments, decisions.verdicts)
    if refused:
        db.execute(sql.INSERT_REFUSALS, columns([refusal_row(one) for one in refused], REFUSAL_TYPES))
    if postings or events:
        _send_numbered(db, postings, events)
    if writes.closings:
        # Locks the line of numbers: whatever another engine numbers later lies behind the window's end.
        db.execute(sql.NUMBER, (0,))
        for statement, values in closing_statements(writes.closings):
            db.execute(statement.replace("?", "%s"), values)


def _send_numbered(
    db: Connection,
    postings: Sequence[tuple[bytes | bytearray, int, str, str, int, int]],
    events: Sequence[tuple[bytes | bytearray, int, int]],
) -> None:
    """Sends what is numbered in the order of commits."""
    db.execute(sql.NUMBER, (len(postings) + len(events),))
    if postings:
        arrays = columns(postings, sql.POSTING_TYPES)
        db.execute(sql.INSERT_POSTINGS, (len(postings) + len(events), *arrays))
    if events:
        db.execute(sql.INSERT_EVENTS, (len(events), *columns(events, sql.EVENT_TYPES)))


def _send_sums(db: Connection, statement: str, added: dict[bytes, int], given_back: list[tuple[int, bytes]]) -> None:
    """Sends one change for each key, in the order of keys."""
    changes = dict(added)
    for amount, key in given_back:
        changes[key] = changes.get(key, 0) - amount
    keys = sorted(key for key, change in changes.items() if change)
    if keys:
        db.execute(statement, (byteas(keys), bigints([changes[key] for key in keys])))


def load(db: Connection, payment_ids: Sequence[bytes]) -> list[Payment]:
    """Payments by id with their legs, in the order of their ids."""
    built: list[Payment] = []
    for start in range(0, len(payment_ids), IDS_PER_QUERY_MAX):
        some = (byteas(payment_ids[start : start + IDS_PER_QUERY_MAX]),)
        with db.pipeline():
            payments = db.execute(sql.LOAD_PAYMENTS, some)
            legs = db.execute(sql.LOAD_LEGS, some)
        rows = payments.fetchall()
        built.extend(payments_from_rows(rows, legs.fetchall()))
    return built
