"""The index from idempotency keys to payments, in SQLite, without writing one page of the disk for each payment.

Keys are hashes, so their places in an index are random: with a hundred thousand payments, each new key would write a
page of its own, which is half of the cost of a commit. Therefore the newest keys are kept in memory (they can always be
read again from the journal's events) and older ones in the table `keys`. Memory is divided into parts by the first byte
of the key, and one part after another is written to the table; keys of one part share pages there.

    events after `meta.keyed`  ──►  memory: 256 parts of the newest keys  ──►  table `keys`: the rest

A key exists if it is in memory or in the table. Both change with the tick: the table inside its transaction, memory
after it is durable. Engines that share the file read each other's newest keys from its events, which are numbered in
the order of commits, before they decide anything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Final

from gateway.engine.model import Payment
from gateway.engine.states import State
from gateway.journal.many import ManyRows

NEWEST_MAX: Final = 32_768
"""Keys kept in memory, at about 250 bytes each; about this many payments are read when a journal is opened."""
PARTS: Final = 256
PARTS_PER_TICK_MAX: Final = 64
"""Parts written in one tick; a tick adds less than these hold."""
KEYS_PER_QUERY_MAX: Final = 500

_ADMITTED: Final = (
    "SELECT p.idempotency, p.payment_id FROM events e CROSS JOIN payments p ON p.payment_id = e.payment_id "
    f"WHERE e.sequence > ? AND e.sequence <= ? AND e.state = {State.DEBITING.value}"
)
_LAST_EVENT: Final = "SELECT COALESCE(max(sequence), 0) FROM events"
_PUT_KEYS: Final = ManyRows("INSERT OR IGNORE INTO keys (idempotency, payment_id)", 2)
_TOUCH_KEY: Final = "UPDATE keys SET payment_id = payment_id WHERE idempotency = ?"
"""Changes nothing; its row count is the number of matches. The cheapest way to look up many keys one by one."""
_PUT_KEYED: Final = "INSERT OR REPLACE INTO meta (name, value) VALUES ('keyed', ?)"

_KEYED: Final = "(SELECT CAST(value AS INTEGER) FROM meta WHERE name = 'keyed')"
PROBLEMS: Final = (
    (
        "payments have the same idempotency key",
        "SELECT payment_id FROM payments WHERE idempotency IN "
        "(SELECT idempotency FROM payments GROUP BY idempotency HAVING count(*) > 1)",
    ),
    (
        "idempotency keys are indexed for a payment that has another key",
        "SELECT k.payment_id FROM keys k LEFT JOIN payments p ON p.payment_id = k.payment_id "
        "WHERE p.idempotency IS NULL OR p.idempotency != k.idempotency",
    ),
    (
        "payments are missing from the index of idempotency keys",
        "SELECT payment_id FROM payments WHERE idempotency NOT IN (SELECT idempotency FROM keys) AND payment_id NOT IN "
        f"(SELECT payment_id FROM events WHERE state = {State.DEBITING.value} AND sequence > COALESCE({_KEYED}, 0))",
    ),
)
"""What the conservation check also asks of a journal in a file: (finding, query for the payments at fault)."""


class Repeats:
    """Keys of one journal. Used with its writing connection, by its thread."""

    def __init__(self, newest_max: int = NEWEST_MAX) -> None:
        self._newest_max = newest_max
        self._parts: list[dict[bytes, bytes]] = [{} for _ in range(PARTS)]
        self._count = 0
        self._seen = 0
        """Number of the last event whose payment is in memory or in the table."""
        self._turn = 0
        """The part to be written next."""
        self._round = 0
        """The value of `_seen` when part 0 was last written: once all parts are written, so is every key up to it."""
        self._done: tuple[Sequence[Payment], range, int, int] | None = None

    def open(self, database: sqlite3.Connection) -> None:
        """Reads the newest keys. Raises sqlite3.Error."""
        row = database.execute("SELECT value FROM meta WHERE name = 'keyed'").fetchone()
        self._seen = int(row[0]) if row else 0
        self.learn(database)
        self._round = self._seen

    def begin(self, database: sqlite3.Connection) -> None:
        """Starts a tick: discards staged keys that were not committed; committed ones are read again. Called inside a
        new transaction, before its first write. Raises sqlite3.Error."""
        self._done = None
        self.learn(database)

    def learn(self, database: sqlite3.Connection) -> None:
        """Adds what was admitted meanwhile by other engines, or by a commit whose fate was in doubt."""
        ((last,),) = database.execute(_LAST_EVENT).fetchall()
        if last != self._seen:
            for key, payment_id in database.execute(_ADMITTED, (self._seen, last)).fetchall():
                self._remember(key, payment_id)
            self._seen = last

    def newest(self, key: bytes) -> bytes | None:
        """The payment that has this key, if it is one of the newest."""
        return self._parts[key[0]].get(key)

    def any_older(self, database: sqlite3.Connection, keys: Iterable[bytes]) -> bool:
        """Whether the table has one of these keys; within a transaction only."""
        return database.executemany(_TOUCH_KEY, [(bytearray(key),) for key in keys]).rowcount > 0

    def find(self, database: sqlite3.Connection, keys: Iterable[bytes]) -> dict[bytes, bytes]:
        """The keys that have a payment, with its id."""
        found: dict[bytes, bytes] = {}
        older: list[bytes] = []
        for key in keys:
            payment_id = self.newest(key)
            if payment_id is None:
                older.append(key)
            else:
                found[key] = payment_id
        for start in range(0, len(older), KEYS_PER_QUERY_MAX):
            some = older[start : start + KEYS_PER_QUERY_MAX]
            marks = ", ".join("?" * len(some))
            found.update(
                database.execute(f"SELECT idempotency, payment_id FROM keys WHERE idempotency IN ({marks})", some)
            )
        return found

    def write(self, database: sqlite3.Connection, admitted: Sequence[Payment]) -> None:
        """The last step of a transaction with these admissions: writes parts of memory, as far as it is full."""
        count, turn, begun = self._count + len(admitted), self._turn, self._round
        written = 0
        while count > self._newest_max and written < PARTS_PER_TICK_MAX:
            part = self._parts[turn]
            _PUT_KEYS.insert(database, sorted(part.items()))
            count -= len(part)
            written += 1
            turn += 1
            if turn == PARTS:
                database.execute(_PUT_KEYED, (str(begun),))
                turn, begun = 0, self._seen
        ((last,),) = database.execute(_LAST_EVENT).fetchall()
        self._done = (admitted, range(self._turn, self._turn + written), begun, last)

    def committed(self) -> None:
        """The transaction is durable."""
        if self._done is None:
            return
        admitted, written, self._round, self._seen = self._done
        self._done = None
        for turn in written:
            part = self._parts[turn % PARTS]
            self._count -= len(part)
            part.clear()
        self._turn = written.stop % PARTS
        for payment in admitted:
            self._remember(payment.idempotency, payment.payment_id)

    def _remember(self, key: bytes, payment_id: bytes) -> None:
        part = self._parts[key[0]]
        if key not in part:
            part[key] = payment_id
            self._count += 1
