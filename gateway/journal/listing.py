"""SQL of payment lists, newest first: one index for each filter, and a bounded number of its rows. Pure.

Ids of payments ascend with time (UUIDv7), so an index that ends with the id has its rows in the order of time, and a
page continues where the previous one ended. What an index cannot decide is decided row by row by the reader.

A statement for payments of one merchant or token uses an index that PostgreSQL writes with each payment. On SQLite such
an index would cost each tick a page for each payment, so it is kept in another file: see gateway.journal.sqlite_index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from gateway.engine.states import State

COLUMNS: Final = "p.payment_id, p.merchant_id, p.terminal_id, p.account_ref, p.kind, p.state"
OPEN_MAX: Final = 100_000
"""Most payments in flight that one statement reads: more than gateways on one journal have."""
KEPT_BY_STATE: Final = (State.DECLINED, State.FAILED, State.CANCELLED, State.EXPIRED, State.HELD)
"""States in which few payments rest; a partial index finds them."""
WITH_STATE_INDEX: Final = f"state IN ({', '.join(str(int(state)) for state in KEPT_BY_STATE)})"
"""The condition of that partial index, word for word as a planner must find it in a query."""


class ListedRow(NamedTuple):
    """The columns of a payment that filters look at."""

    payment_id: bytes
    merchant_id: str
    terminal_id: str
    token_ref: bytes
    kind: int
    state: int
    """As in its row. CREDITING is only known after the legs are read too, see gateway.journal.rows."""


@dataclass(frozen=True, slots=True)
class Scan:
    """One read of an index, newest payment first."""

    first_id: bytes
    before_id: bytes
    limit: int
    merchant_id: str = ""
    token_ref: bytes = b""
    states: tuple[int, ...] = ()
    """Read the indexes of these states; empty: do not select by state."""
    refunds: bool = False
    """Only refunds."""


def by_token(scan: Scan) -> tuple[str, Sequence[object]]:
    """PostgreSQL: the rows of a token. Compared as pairs, so that no other index has the order that is asked for."""
    return _by_pair("account_ref", scan.token_ref, scan)


def by_merchant(scan: Scan) -> tuple[str, Sequence[object]]:
    """PostgreSQL: the rows of a merchant; as above."""
    return _by_pair("merchant_id", scan.merchant_id, scan)


def _by_pair(column: str, value: object, scan: Scan) -> tuple[str, Sequence[object]]:
    return (
        f"SELECT {COLUMNS} FROM payments p WHERE (p.{column}, p.payment_id) < (?, ?) "
        f"AND (p.{column}, p.payment_id) >= (?, ?) ORDER BY p.{column} DESC, p.payment_id DESC LIMIT ?",
        (value, scan.before_id, value, scan.first_id, scan.limit),
    )


def by_nothing_shared(scan: Scan, *, hints: bool) -> tuple[str, Sequence[object]]:
    """The rows of a scan that names neither merchant nor token. `hints`: SQLite's, naming the index."""
    span = "p.payment_id < ? AND p.payment_id >= ? ORDER BY p.payment_id DESC LIMIT ?"
    values = (scan.before_id, scan.first_id, scan.limit)
    if scan.refunds:
        hint = "INDEXED BY payments_refunds " if hints else ""
        return f"SELECT {COLUMNS} FROM payments p {hint}WHERE p.original_id IS NOT NULL AND {span}", values
    if not scan.states:
        return f"SELECT {COLUMNS} FROM payments p WHERE {span}", values
    hint = "INDEXED BY payments_state " if hints else ""
    parts = [
        f"SELECT * FROM (SELECT {COLUMNS} FROM payments p {hint}"
        f"WHERE p.{WITH_STATE_INDEX} AND p.state = {int(state)} AND {span}) AS s{int(state)}"
        for state in KEPT_BY_STATE
        if state in scan.states
    ]
    if set(scan.states).difference(KEPT_BY_STATE):
        hint = "INDEXED BY payments_open " if hints else ""
        parts.append(
            f"SELECT * FROM (SELECT * FROM (SELECT {COLUMNS} FROM payments p {hint}WHERE p.open = 1 LIMIT {OPEN_MAX}) "
            f"AS p WHERE {span}) AS o"
        )
    # A payment may be in two parts: its state kept by the index, and not put down yet.
    query = f"SELECT DISTINCT * FROM ({' UNION ALL '.join(parts)}) AS p ORDER BY p.payment_id DESC LIMIT ?"
    return query, (*values * len(parts), scan.limit)


def rows(found: Sequence[tuple[Any, ...]]) -> list[ListedRow]:
    """The rows of any of these statements."""
    return [ListedRow(bytes(row[0]), row[1], row[2], bytes(row[3]), row[4], row[5]) for row in found]
