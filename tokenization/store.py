"""The database of the vault: one writer at a time, any number of readers, the same few statements on every database.

`Store` is the interface. SQLite is here (WAL, synchronous=FULL), PostgreSQL in `store_postgres`. Statements use `?`.
"""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from tokenization import schema
from tokenization.errors import VaultDamagedError

BUSY_TIMEOUT_MS: Final = 5_000
"""How long a writer waits for another process's transaction before it gives up."""
CACHE_KIB: Final = 65_536
CHECKPOINT_PAGES: Final = 8_000
"""Pages of write-ahead log (64 MB) before SQLite copies it into the file. New accounts touch random pages of two trees,
so fewer checkpoints copy each page fewer times."""
Row = tuple[Any, ...]
_ACCOUNTS_AS_TEXT: Final = (
    "SELECT group_concat(id || ' ' || hex(ref) || ' ' || ifnull(hex(blind), '') || ' ' || version || ' ' || kek || ' ' "
    "|| hex(record), char(10)) FROM (SELECT * FROM accounts WHERE id > ? ORDER BY id LIMIT ?)"
)


class StoreError(Exception):
    """The database refused or failed; nothing of the transaction was kept."""


class Session(Protocol):
    """Statements inside one transaction."""

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Runs a query."""
        ...

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        """Runs a statement; returns how many rows it touched."""
        ...

    def run_many(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        """Runs a statement for each set of parameters."""
        ...

    def accounts_after(self, number: int, limit: int) -> list[Row]:
        """Accounts in the order of their ids, without their tags, read in one step."""
        ...


class Store(Protocol):
    """A database that holds a vault."""

    def changed(self) -> bool:
        """Whether anything was committed since the last call; cheap enough to ask before each batch."""
        ...

    def reading(self) -> contextlib.AbstractContextManager[Session]:
        """One consistent view. Raises StoreError. Not for two threads at once: the caller holds a lock."""
        ...

    def looking(self) -> contextlib.AbstractContextManager[Session]:
        """As `reading`, on a connection of its own, for queries that may take long. Any number of threads, in turn."""
        ...

    def writing(self) -> contextlib.AbstractContextManager[Session]:
        """One exclusive transaction, durable when it ends, undone when it raises. Raises StoreError."""
        ...

    def scrub(self) -> None:
        """Erases overwritten bytes from the database's files, as far as the database can."""
        ...

    def close(self) -> None:
        """Closes the database."""
        ...


class _SqliteSession:
    __slots__ = ("_connection",)

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[Row]:
        try:
            return self._connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def run(self, sql: str, parameters: Sequence[Any] = ()) -> int:
        try:
            return self._connection.execute(sql, parameters).rowcount
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def run_many(self, sql: str, parameters: Sequence[Sequence[Any]]) -> None:
        try:
            self._connection.executemany(sql, parameters)
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error

    def accounts_after(self, number: int, limit: int) -> list[Row]:
        # As one text: SQLite's module gives the interpreter away for each row that it steps to, and beside a busy
        # thread every return costs a turn.
        text = self.rows(_ACCOUNTS_AS_TEXT, (number, limit))[0][0]
        return [_account_columns(*line.split(" ")) for line in text.split("\n")] if text else []


def _account_columns(number: str, ref: str, blind: str, version: str, kek: str, record: str) -> Row:
    blob = bytes.fromhex
    return int(number), blob(ref), blob(blind) if blind else None, int(version), int(kek), blob(record)


class SqliteStore:
    """A vault in one SQLite file."""

    def __init__(self, path: Path, *, read_only: bool = False, at_rest: bool = False) -> None:
        """Opens an existing file. Read-only, the file cannot change; at rest, no file is made beside it either.

        Raises VaultDamagedError.
        """
        self._lock = threading.Lock()
        mode = "rw" if not read_only else "ro&immutable=1" if at_rest else "ro"
        self._reader = _connect(path, mode)
        self._writer = None if read_only else _connect(path, mode)
        self._viewer = None if read_only else _connect(path, mode)
        self._viewing = threading.Lock()
        self._seen = -1

    def changed(self) -> bool:
        """SQLite's own change counter, read from shared memory."""
        try:
            seen = self._reader.execute("PRAGMA data_version").fetchone()[0]
        except sqlite3.Error as error:
            raise StoreError(str(error)) from error
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
        assert self._viewer is not None, "opened read-only"
        with self._viewing, _view(self._viewer) as session:
            yield session

    @contextlib.contextmanager
    def writing(self) -> Iterator[Session]:
        """One exclusive transaction."""
        writer = self._writer
        assert writer is not None, "opened read-only"
        with self._lock:
            try:
                writer.execute("BEGIN IMMEDIATE")
                try:
                    yield _SqliteSession(writer)
                    writer.execute("COMMIT")
                except BaseException:
                    if writer.in_transaction:
                        writer.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StoreError(str(error)) from error

    def scrub(self) -> None:
        """Empties the write-ahead log, which may still hold freed bytes; in the file they are zeroed already
        (secure_delete)."""
        writer = self._writer
        assert writer is not None, "opened read-only"
        with self._lock:
            writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def damage(self) -> str:
        """What SQLite's own full check finds, indexes included; empty where all is well."""
        try:
            found = [row[0] for row in self._reader.execute("PRAGMA integrity_check(1)")]
        except sqlite3.Error as error:
            return str(error)
        return "" if found == ["ok"] else str(found[0])

    def close(self) -> None:
        """Closes; the last process to close copies the log into the file."""
        for connection in (self._reader, self._viewer, self._writer):
            if connection is not None:
                connection.close()


@contextlib.contextmanager
def _view(connection: sqlite3.Connection) -> Iterator[Session]:
    try:
        connection.execute("BEGIN")
        try:
            yield _SqliteSession(connection)
        finally:
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        raise StoreError(str(error)) from error


def create(path: Path) -> None:
    """An empty vault file with its tables, complete or not there at all. Raises StoreError."""
    try:
        connection = sqlite3.connect(path, isolation_level=None)
        with contextlib.closing(connection):
            connection.execute("PRAGMA page_size = 8192")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            for statement in schema.tables("BLOB", "INTEGER"):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {schema.SCHEMA_VERSION}")
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise StoreError(str(error)) from error


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            timeout=BUSY_TIMEOUT_MS / 1000,
        )
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        connection.execute("PRAGMA secure_delete = ON")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
    except sqlite3.Error as error:
        raise VaultDamagedError(f"{path} is not a vault or is damaged ({error}); restore it from a backup") from error
    if version != schema.SCHEMA_VERSION:
        connection.close()
        raise VaultDamagedError(
            f"{path} has schema version {version}, this program reads {schema.SCHEMA_VERSION}; "
            "use the program that wrote it, or restore the file from a backup"
        )
    return connection
