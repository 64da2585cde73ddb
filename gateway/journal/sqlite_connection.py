"""Connections to a journal on SQLite: settings for durability, and the meaning of errors."""

from __future__ import annotations

import functools
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from gateway.engine.ports import JournalUnavailableError
from gateway.journal.interface import JournalMismatchError
from gateway.journal.schema import VERSION, sqlite_statements
from hutong_contract import stored_schema

CHECKPOINT_PAGES: Final = 1000
"""Pages of write-ahead log (8 MB) after which SQLite copies it into the database file, while callers wait."""
CACHE_KIB: Final = 65536
"""Page cache: the random keys of spends touch pages all over their tree."""
PAGE_BYTES: Final = 8192
"""A tick writes whole pages: larger ones cost fewer system calls and checksums for the same rows."""
BUSY_TIMEOUT_S: Final = 10.0

Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")
Factory = type[sqlite3.Connection]


def connect(path: Path | str, *, read_only: bool = False, factory: Factory = sqlite3.Connection) -> sqlite3.Connection:
    """Opens a journal file with the settings for durability. `factory` makes the connection; a simulated disk passes
    its own."""
    connection: sqlite3.Connection = sqlite3.connect(
        path,
        isolation_level=None,
        timeout=BUSY_TIMEOUT_S,
        check_same_thread=False,
        factory=factory,
    )
    connection.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # takes effect on a new file only
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA cache_size = -{CACHE_KIB if not read_only else 4096}")
    if read_only:
        connection.execute("PRAGMA query_only = ON")
    return connection


def check_version(connection: sqlite3.Connection, path: Path | str) -> None:
    """Raises JournalMismatchError unless the file is empty or a journal of this version; changes nothing."""
    found = stored_schema.sqlite_columns(connection)
    if not found:
        return
    if "value TEXT" not in found.get("meta", ()):
        raise JournalMismatchError(f"{path} is not a journal: it holds other tables ({', '.join(sorted(found)[:5])})")
    row = connection.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
    version = "unknown" if row is None else row[0]
    if version != str(VERSION):
        raise JournalMismatchError(stored_schema.refusal(path, version, VERSION))
    if unlike := stored_schema.differences(found, stored_schema.columns_of(sqlite_statements())):
        raise JournalMismatchError(stored_schema.refusal_of_unlike(path, VERSION, unlike))


def readable(read: Callable[Parameters, Answer]) -> Callable[Parameters, Answer]:
    """Translates SQLite's errors into JournalUnavailableError."""

    @functools.wraps(read)
    def wrapped(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Answer:
        try:
            return read(*args, **kwargs)
        except sqlite3.Error as error:
            raise JournalUnavailableError(str(error)) from error

    return wrapped
