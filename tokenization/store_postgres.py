"""The vault's rows on PostgreSQL, for many gateways with one vault. Needs the extra `postgres` (psycopg).

The same statements as on SQLite. An advisory lock that ends with its transaction admits one writer at a time. Changes
of other processes are looked for at most every POLL_S, so their suspensions take effect that much later than on SQLite.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import psycopg

from hutong_contract import stored_schema
from tokenization import schema
from tokenization.store import Row, Session, StoreError

POLL_S: Final = 0.005
"""Seconds between two looks for changes: a round trip to the server, at most 200 times a second."""
_WRITER_LOCK: Final = 7_305_021_126
_COLUMNS: Final = (
    "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema() "
    "ORDER BY table_name, ordinal_position"
)
_SUM: Final = "SELECT COALESCE(SUM(value), 0) FROM meta"
"""A sum that grows with every added row; every change adds one (an event at least)."""


class _PostgresSession:
    __slots__ = ("_connection",)

    def __init__(self, connection: psycopg.Connection[Row]) -> None:
        self._connection = connection

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        try:
            return self._connection.execute(_translated(sql), parameters).fetchall()
        except psycopg.Error as error:
            raise StoreError(type(error).__name__) from error

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        try:
            return self._connection.execute(_translated(sql), parameters).rowcount
        except psycopg.Error as error:
            raise StoreError(type(error).__name__) from error

    def run_many(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        try:
            with self._connection.cursor() as cursor:
                cursor.executemany(_translated(sql), parameters)
        except psycopg.Error as error:
            raise StoreError(type(error).__name__) from error

    def accounts_after(self, number: int, limit: int) -> list[Row]:
        sql = "SELECT id, ref, blind, version, kek, record FROM accounts WHERE id > ? ORDER BY id LIMIT ?"
        return self.rows(sql, (number, limit))


class PostgresStore:
    """A vault in the schema that the connection's search path begins with. Implements store.Store."""

    def __init__(self, conninfo: str) -> None:
        """Connects, and makes the tables where there are none. Raises StoreError."""
        self._conninfo = conninfo
        self._lock = threading.Lock()
        self._viewing = threading.Lock()
        self._seen: Any = None
        self._asked = 0.0
        try:
            self._reader: psycopg.Connection[Row] = psycopg.connect(conninfo, autocommit=True)
            self._viewer: psycopg.Connection[Row] = psycopg.connect(conninfo, autocommit=True)
            self._writer: psycopg.Connection[Row] = psycopg.connect(conninfo, autocommit=True)
        except psycopg.Error as error:
            raise StoreError(f"no connection ({type(error).__name__})") from error

    def create(self) -> bool:
        """Makes the tables where there are none; whether it did. Called inside `writing`."""
        if self._writer.execute("SELECT to_regclass('meta')").fetchone() != (None,):
            self._check_version()
            return False
        for statement in schema.tables("BYTEA", "BIGINT"):
            self._writer.execute(statement.encode())
        return True

    def _check_version(self) -> None:
        """Raises StoreError unless the tables are of this version; changes nothing."""
        found: dict[str, list[str]] = {}
        for table, column in self._writer.execute(_COLUMNS):
            found.setdefault(table, []).append(column)
        version = 1
        if found.get("meta") == ["name", "value"]:
            row = self._writer.execute("SELECT value FROM meta WHERE name = %s", (schema.VERSION_NAME,)).fetchone()
            version = row[0] if row is not None else version
        if version != schema.SCHEMA_VERSION:
            raise StoreError(stored_schema.refusal("the database", version, schema.SCHEMA_VERSION))
        wanted = {
            table: [column.split()[0] for column in columns]
            for table, columns in stored_schema.columns_of(schema.tables("BLOB", "INTEGER")).items()
        }
        if unlike := stored_schema.differences(found, wanted):
            raise StoreError(stored_schema.refusal_of_unlike("the database", version, unlike))

    def changed(self) -> bool:
        """Whether the sum of all counters has changed; looked up at most every POLL_S."""
        now = time.monotonic()
        if now - self._asked < POLL_S:
            return False
        self._asked = now
        try:
            seen = self._reader.execute(_SUM.encode()).fetchone()
        except psycopg.Error as error:
            raise StoreError(type(error).__name__) from error
        if seen == self._seen:
            return False
        self._seen = seen
        return True

    @contextlib.contextmanager
    def reading(self) -> Iterator[Session]:
        """One consistent view."""
        with _view(self._reader) as session:
            yield session

    @contextlib.contextmanager
    def looking(self) -> Iterator[Session]:
        """One consistent view, for queries that may take long."""
        with self._viewing, _view(self._viewer) as session:
            yield session

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """One exclusive transaction."""
        with self._lock:
            try:
                self._writer.execute("BEGIN")
                try:
                    self._writer.execute("SELECT pg_advisory_xact_lock(%s)", (_WRITER_LOCK,))
                    yield _PostgresSession(self._writer)
                    self._writer.execute("COMMIT")
                except BaseException:
                    if not self._writer.closed:
                        self._writer.execute("ROLLBACK")
                    raise
            except psycopg.Error as error:
                raise StoreError(type(error).__name__) from error

    def scrub(self) -> None:
        """Removes dead rows. The server's write-ahead log and its archives cannot be reached from here."""
        with self._lock:
            self._writer.execute("VACUUM accounts, keys")

    def close(self) -> None:
        """Ends all connections."""
        self._reader.close()
        self._viewer.close()
        self._writer.close()


@contextlib.contextmanager
def _view(connection: psycopg.Connection[Row]) -> Iterator[Session]:
    try:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        try:
            yield _PostgresSession(connection)
        finally:
            connection.execute("ROLLBACK")
    except psycopg.Error as error:
        raise StoreError(type(error).__name__) from error


def _translated(sql: str) -> bytes:
    return sql.replace("?", "%s").encode()
