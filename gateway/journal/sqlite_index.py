"""An index of payments by merchant and by token on SQLite, in a file of its own that follows the journal.

In the journal itself such an index would cost each tick about a page for each payment, since payments of one tick are
far apart in it: twice the time of a commit, and five times its bytes. Here many payments are added at once, in order,
by the thread that lists payments, and no payment waits for that. The file contains nothing that the journal does not
have: it is not synced with each payment, it knows how far it has followed, and if it does not fit its journal it is
made again.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from pathlib import Path
from typing import Final

from gateway.engine.states import State
from gateway.journal.listing import COLUMNS, ListedRow, Scan, rows
from gateway.journal.sqlite_connection import BUSY_TIMEOUT_S, PAGE_BYTES

log = logging.getLogger(__name__)

LAYOUT: Final = 1
"""Version of these tables; a file of another version is made again."""
EVENTS_PER_STEP: Final = 20_000
"""Events of the journal per transaction: some 50 ms, in which nobody else has to wait."""
CACHE_KIB: Final = 16_384
_TABLES: Final = (
    "CREATE TABLE by_merchant (merchant_id TEXT NOT NULL, payment_id BLOB NOT NULL, "
    "PRIMARY KEY (merchant_id, payment_id)) WITHOUT ROWID",
    "CREATE TABLE by_token (token_ref BLOB NOT NULL, payment_id BLOB NOT NULL, "
    "PRIMARY KEY (token_ref, payment_id)) WITHOUT ROWID",
    "CREATE TABLE followed (sequence INTEGER NOT NULL, payment_id BLOB NOT NULL)",
    "INSERT INTO followed VALUES (0, x'')",
    f"PRAGMA user_version = {LAYOUT}",
)
_FOLLOW: Final = (
    "INSERT OR IGNORE INTO {table} SELECT p.{column}, p.payment_id FROM journal.events e CROSS JOIN journal.payments p "
    "ON p.payment_id = e.payment_id WHERE e.sequence > ? AND e.sequence <= ? "
    f"AND e.state = {State.DEBITING.value} ORDER BY 1, 2"
)
"""Every payment has one event of this state, from its admission."""
_SCAN: Final = (
    f"SELECT {COLUMNS} FROM {{table}} i CROSS JOIN journal.payments p ON p.payment_id = i.payment_id "
    "WHERE i.{column} = ? AND i.payment_id < ? AND i.payment_id >= ? ORDER BY i.payment_id DESC LIMIT ?"
)


def index_path(journal: Path | str) -> Path:
    """The file of a journal's index, beside it."""
    path = Path(journal)
    return path.with_name(f"{path.stem}.index.db")


class SqliteIndex:
    """The index of one journal; for one thread. Methods raise sqlite3.Error."""

    def __init__(self, journal: Path | str) -> None:
        self._journal = Path(journal)
        self._path = index_path(journal)
        try:
            self._connection = self._open()
        except sqlite3.DatabaseError as error:
            log.warning("%s cannot be used and is made anew: %s", self._path, error)
            self._remove()
            self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, isolation_level=None, timeout=BUSY_TIMEOUT_S, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")  # consistent after a crash, if not the newest
            connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
            connection.execute("ATTACH DATABASE ? AS journal", (str(self._journal),))
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        """Creates the tables if they are missing, have another layout, or follow another journal."""
        connection.execute("BEGIN IMMEDIATE")
        try:
            (layout,) = connection.execute("PRAGMA main.user_version").fetchone()
            if layout != LAYOUT or not _fits(connection):
                for (table,) in connection.execute(
                    "SELECT name FROM main.sqlite_master WHERE type = 'table'"
                ).fetchall():
                    connection.execute(f'DROP TABLE main."{table}"')
                for statement in _TABLES:
                    connection.execute(statement)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").unlink()

    def follow(self) -> bool:
        """Adds the payments of the next EVENTS_PER_STEP events. Returns whether nothing was left then."""
        db = self._connection
        ((last,),) = db.execute("SELECT COALESCE(max(sequence), 0) FROM journal.events").fetchall()
        ((seen,),) = db.execute("SELECT sequence FROM followed").fetchall()
        if last == seen:
            return True
        if last < seen:
            self._prepare(db)  # another journal stands in its place now
            seen = 0
        to = min(seen + EVENTS_PER_STEP, last)
        db.execute("BEGIN IMMEDIATE")
        try:
            db.execute(_FOLLOW.format(table="by_merchant", column="merchant_id"), (seen, to))
            db.execute(_FOLLOW.format(table="by_token", column="account_ref"), (seen, to))
            db.execute(
                "UPDATE followed SET sequence = ?, payment_id = COALESCE((SELECT payment_id FROM journal.events "
                "WHERE sequence = ?), x'')",
                (to, to),
            )
            db.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise
        return bool(to == last)

    def scan(self, scan: Scan) -> list[ListedRow]:
        """The rows of a scan that names a token or a merchant, as far as `follow` has come."""
        table, column, value = ("by_merchant", "merchant_id", scan.merchant_id)
        named: object = value
        if scan.token_ref:
            table, column, named = "by_token", "token_ref", scan.token_ref
        query = _SCAN.format(table=table, column=column)
        return rows(self._connection.execute(query, (named, scan.before_id, scan.first_id, scan.limit)).fetchall())

    def close(self) -> None:
        """Ends the connection."""
        self._connection.close()


def _fits(connection: sqlite3.Connection) -> bool:
    """Whether the last followed event is still in its place: the journal may have been replaced by another."""
    sequence, payment_id = connection.execute("SELECT sequence, payment_id FROM followed").fetchone()
    if not sequence:
        return True
    row = connection.execute("SELECT payment_id FROM journal.events WHERE sequence = ?", (sequence,)).fetchone()
    return row is not None and bytes(row[0]) == bytes(payment_id)
