"""Committed state on SQLite, for queries and watchers; and payments by their ids, which the journal reads too."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from gateway.engine.model import Payment
from gateway.journal.interface import EVENT_COLUMNS, EventRow, event_rows
from gateway.journal.listing import ListedRow, Scan, by_nothing_shared
from gateway.journal.listing import rows as listed_rows
from gateway.journal.refusals import LIST_DECISIONS, DecisionRow, decision_parameters, decisions_from_rows
from gateway.journal.rows import Row, payments_from_rows
from gateway.journal.schema import LEG_COLUMNS, PAYMENT_COLUMNS
from gateway.journal.sqlite_connection import check_version, connect, readable
from gateway.journal.sqlite_index import SqliteIndex

IDS_PER_QUERY_MAX: Final = 500
PAYMENTS: Final = ", ".join(PAYMENT_COLUMNS)
LEGS: Final = ", ".join(LEG_COLUMNS)


class SqliteReader:
    """A Reader on SQLite."""

    def __init__(self, path: Path | str) -> None:
        """Raises JournalMismatchError."""
        self._path = path
        self._index: SqliteIndex | None = None
        self._connection = connect(path, read_only=True)
        try:
            check_version(self._connection, path)
        except BaseException:
            self._connection.close()
            raise

    @readable
    def payments(self, payment_ids: Sequence[bytes]) -> list[Payment]:
        payments = load(self._connection, payment_ids)
        routes = self._texts("SELECT route_id, explanation FROM routes", {one.route_id for one in payments})
        judgements = self._texts("SELECT risk_id, judgement FROM judgements", {one.risk_id for one in payments})
        for payment in payments:
            payment.route = routes.get(payment.route_id, "")
            payment.risk = judgements.get(payment.risk_id, "")
        return payments

    def payment(self, payment_id: bytes) -> Payment | None:
        return next(iter(self.payments([payment_id])), None)

    def _texts(self, select: str, ids: set[int]) -> dict[int, str]:
        """Shared texts, by their 64-bit ids."""
        name = select.split()[1].rstrip(",")
        among = f"{select} WHERE {name} IN ({', '.join('?' * len(ids))})"
        return dict(self._connection.execute(among, list(ids)).fetchall())

    @readable
    def decisions(self, before: bytes | None, most: int) -> list[DecisionRow]:
        return decisions_from_rows(self._connection.execute(LIST_DECISIONS, decision_parameters(before, most)))

    @readable
    def refunds(self, payment_ids: Sequence[bytes]) -> list[Payment]:
        among = ", ".join("?" * len(payment_ids))
        rows = self._connection.execute(
            f"SELECT payment_id FROM payments WHERE original_id IN ({among}) ORDER BY payment_id", payment_ids
        )
        return load(self._connection, [row[0] for row in rows])

    @readable
    def events(self, after_sequence: int, limit: int) -> list[EventRow]:
        rows = self._connection.execute(
            f"SELECT {EVENT_COLUMNS} FROM events AS e LEFT JOIN payments AS p ON p.payment_id = e.payment_id "
            "WHERE e.sequence > ? ORDER BY e.sequence LIMIT ?",
            (after_sequence, limit),
        )
        return event_rows(rows)

    @readable
    def last_event(self) -> int:
        ((last,),) = self._connection.execute("SELECT COALESCE(max(sequence), 0) FROM events").fetchall()
        return int(last)

    @readable
    def events_of(self, watched: Mapping[bytes, int], limit: int) -> list[EventRow]:
        """A cross join keeps SQLite from reading the table in the order of its numbers."""
        found: list[EventRow] = []
        names = list(watched.items())
        for start in range(0, len(names), IDS_PER_QUERY_MAX):
            some = names[start : start + IDS_PER_QUERY_MAX]
            rows = self._connection.execute(
                f"WITH watched (payment_id, after_sequence) AS (VALUES {', '.join(['(?, ?)'] * len(some))}) "
                f"SELECT {EVENT_COLUMNS} "
                "FROM watched AS w CROSS JOIN events AS e INDEXED BY events_payment "
                "ON e.payment_id = w.payment_id AND e.sequence > w.after_sequence "
                "LEFT JOIN payments AS p ON p.payment_id = e.payment_id ORDER BY e.payment_id, e.sequence LIMIT ?",
                (*(value for pair in some for value in pair), limit - len(found)),
            )
            found.extend(event_rows(rows))
        return found

    def _by_merchant_or_token(self) -> SqliteIndex:
        if self._index is None:
            self._index = SqliteIndex(self._path)
        return self._index

    @readable
    def follow(self) -> bool:
        return self._by_merchant_or_token().follow()

    @readable
    def scan(self, scan: Scan) -> list[ListedRow]:
        if scan.merchant_id or scan.token_ref:
            return self._by_merchant_or_token().scan(scan)
        query, values = by_nothing_shared(scan, hints=True)
        return listed_rows(self._connection.execute(query, values).fetchall())

    @readable
    def rows(self, query: str, values: Sequence[object]) -> list[tuple[Any, ...]]:
        return self._connection.execute(query, values).fetchall()

    def close(self) -> None:
        self._connection.close()
        if self._index is not None:
            self._index.close()


def load(connection: sqlite3.Connection, payment_ids: Sequence[bytes]) -> list[Payment]:
    """Payments by id with their legs, in the order of their ids."""
    built: list[Payment] = []
    for start in range(0, len(payment_ids), IDS_PER_QUERY_MAX):
        some = list(payment_ids[start : start + IDS_PER_QUERY_MAX])
        among = f"WHERE payment_id IN ({', '.join('?' * len(some))})"
        payments: Sequence[Row] = connection.execute(
            f"SELECT {PAYMENTS} FROM payments {among} ORDER BY payment_id",
            some,
        ).fetchall()
        legs: Sequence[Row] = connection.execute(
            f"SELECT {LEGS} FROM legs {among} ORDER BY payment_id, number",
            some,
        ).fetchall()
        built.extend(payments_from_rows(payments, legs))
    return built
