"""Committed state on PostgreSQL, for queries and watchers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import psycopg

from gateway.engine.model import Payment
from gateway.engine.ports import JournalUnavailableError
from gateway.journal import listing
from gateway.journal import postgres_sql as sql
from gateway.journal.interface import EVENT_COLUMNS, EventRow, event_rows
from gateway.journal.listing import ListedRow, Scan
from gateway.journal.postgres_arrays import bigints, byteas
from gateway.journal.postgres_connection import Connect, Connection, connect
from gateway.journal.postgres_waiting import READ_SILENT_S, REPORT_SILENT_S, SilentServerError
from gateway.journal.refusals import DecisionRow, decision_parameters, decisions_from_rows
from gateway.journal.rows import payments_from_rows

SNAPSHOT: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
RECONNECTS_MAX: Final = 2
"""Most attempts of a read on new connections."""


class PostgresReader:
    """A Reader on PostgreSQL."""

    def __init__(self, url: str, *, connect: Connect = connect) -> None:
        self._url = url
        self._connect = connect
        self._connection: Connection | None = None

    def _rows(
        self, *queries: tuple[str, Sequence[object]], silent_s: float = READ_SILENT_S
    ) -> list[list[tuple[Any, ...]]]:
        """The rows of some queries, on a new connection if the old one is gone. Raises JournalUnavailableError."""
        for attempt in range(RECONNECTS_MAX):
            try:
                if self._connection is None:
                    self._connection = self._connect(self._url)
                self._connection.silent_s = silent_s
                with self._connection.pipeline():
                    cursors = [self._connection.execute(query, values) for query, values in queries]
                return [cursor.fetchall() if cursor.description else [] for cursor in cursors]
            except psycopg.Error as error:
                self.close()
                if attempt + 1 == RECONNECTS_MAX or isinstance(error, SilentServerError):
                    raise JournalUnavailableError(str(error)) from error
        raise AssertionError("the last attempt returns or raises")

    def _load(self, payment_ids: Sequence[bytes]) -> list[Payment]:
        """Payments by id with their legs, in the order of their ids."""
        ids = (byteas(payment_ids),)
        _, payments, legs, _ = self._rows(
            (SNAPSHOT, ()), (sql.LOAD_PAYMENTS, ids), (sql.LOAD_LEGS, ids), ("COMMIT", ())
        )
        return payments_from_rows(payments, legs)

    def payments(self, payment_ids: Sequence[bytes]) -> list[Payment]:
        payments = self._load(payment_ids)
        routes, judgements = self._rows(
            (sql.ROUTES, (bigints(list({payment.route_id for payment in payments})),)),
            (sql.JUDGEMENTS, (bigints(list({payment.risk_id for payment in payments})),)),
        )
        route_of, risk_of = dict(routes), dict(judgements)
        for payment in payments:
            payment.route = route_of.get(payment.route_id, "")
            payment.risk = risk_of.get(payment.risk_id, "")
        return payments

    def payment(self, payment_id: bytes) -> Payment | None:
        return next(iter(self.payments([payment_id])), None)

    def decisions(self, before: bytes | None, most: int) -> list[DecisionRow]:
        (rows,) = self._rows((sql.LIST_DECISIONS, decision_parameters(before, most)))
        return decisions_from_rows(rows)

    def refunds(self, payment_ids: Sequence[bytes]) -> list[Payment]:
        (rows,) = self._rows((sql.REFUNDS, (byteas(payment_ids),)))
        return self._load([bytes(row[0]) for row in rows]) if rows else []

    def events(self, after_sequence: int, limit: int) -> list[EventRow]:
        """Numbers are assigned in the order of commits, so no event appears before one that was read."""
        (rows,) = self._rows(
            (
                f"SELECT {EVENT_COLUMNS} FROM (SELECT sequence, payment_id, state, time_us FROM events "
                "WHERE sequence > %s ORDER BY sequence LIMIT %s) AS e "
                "LEFT JOIN payments AS p ON p.payment_id = e.payment_id ORDER BY e.sequence",
                (after_sequence, limit),
            )
        )
        return event_rows(rows)

    def last_event(self) -> int:
        (((last,),),) = self._rows(("SELECT COALESCE(max(sequence), 0) FROM events", ()))
        return int(last)

    def events_of(self, watched: Mapping[bytes, int], limit: int) -> list[EventRow]:
        values = (byteas(list(watched)), bigints(list(watched.values())), limit, limit)
        (rows,) = self._rows((sql.EVENTS_OF, values))
        return event_rows(rows)

    def follow(self) -> bool:
        """Nothing to do: the database's own indexes have all that is committed."""
        return True

    def scan(self, scan: Scan) -> list[ListedRow]:
        if scan.token_ref:
            query, values = listing.by_token(scan)
        elif scan.merchant_id:
            query, values = listing.by_merchant(scan)
        else:
            query, values = listing.by_nothing_shared(scan, hints=False)
        (found,) = self._rows((query.replace("?", "%s"), values))
        return listing.rows(found)

    def rows(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        (rows,) = self._rows((query.replace("?", "%s"), values), silent_s=REPORT_SILENT_S)
        return rows

    def close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
