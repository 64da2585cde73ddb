"""Connections to PostgreSQL: settings, bounds on every wait, and what an error means."""

from __future__ import annotations

import re
from typing import Any, Final, Protocol

import psycopg
from psycopg import errors

from gateway.journal import postgres_arrays
from gateway.journal.interface import JournalMismatchError
from gateway.journal.postgres_schema import WRITER_SETTINGS

CONNECT_S: Final = 5
STATEMENT_MS: Final = 30_000
"""Longest statement of a tick; beyond it the database is taken for gone."""
LOCK_MS: Final = 5_000
"""Longest wait for another engine's transaction, which is one tick."""
IDLE_IN_TRANSACTION_MS: Final = 10_000
"""After this the database itself ends the transaction of an engine whose machine died, and frees its rows."""
CHECK_MS: Final = 600_000
"""Longest query of the conservation check, which reads whole tables."""

Connection = psycopg.Connection[tuple[Any, ...]]

REPEATABLE: Final = (
    errors.SerializationFailure,  # 40001: also CockroachDB's "restart transaction"
    errors.DeadlockDetected,  # 40P01
    errors.LockNotAvailable,  # 55P03
)
"""The transaction did nothing and may succeed when it is done again."""

TRIPPED: Final = (
    errors.UniqueViolation,
    errors.DuplicateTable,
    errors.DuplicateObject,
    errors.InternalError_,  # "tuple concurrently updated", of two ALTER TABLE
)
"""Somebody else makes the same tables at this moment."""


class Connect(Protocol):
    """Opens a connection, as `connect` does: what a simulated server has in its place."""

    def __call__(self, url: str, *, writer: bool = False) -> Connection:
        """See `connect`."""
        ...


def connect(url: str, *, writer: bool = False) -> Connection:
    """Opens a connection in autocommit mode. Raises psycopg.Error; never shows the URL, which may hold a password."""
    connection = psycopg.connect(
        url, autocommit=True, connect_timeout=CONNECT_S, prepare_threshold=0, tcp_user_timeout=STATEMENT_MS
    )
    connection.prepared_max = None
    postgres_arrays.register(connection)
    try:
        connection.execute(f"SET statement_timeout = {STATEMENT_MS}")
        connection.execute(f"SET lock_timeout = {LOCK_MS}")
        connection.execute(f"SET idle_in_transaction_session_timeout = {IDLE_IN_TRANSACTION_MS}")
        if writer and is_postgresql(connection):
            for setting in WRITER_SETTINGS:
                connection.execute(setting)
    except psycopg.Error:
        connection.close()
        raise
    return connection


def is_postgresql(connection: Connection) -> bool:
    """Whether this is PostgreSQL itself, and not a database that speaks its protocol."""
    (version,) = connection.execute("SELECT version()").fetchone() or ("",)
    return str(version).startswith("PostgreSQL") and "-YB-" not in version


def check_durable(connection: Connection) -> None:
    """Raises JournalMismatchError where PostgreSQL is set up to lose what it has acknowledged."""
    for setting in ("fsync", "full_page_writes"):
        (value,) = connection.execute(f"SHOW {setting}").fetchone() or ("",)
        if value != "on":
            raise JournalMismatchError(f"the database runs with {setting} = {value}; turn it on, payments depend on it")


def safe_url(url: str) -> str:
    """A URL that can be shown: without its password."""
    return re.sub(r"(://[^:/@]*):[^@]+@", r"\1:***@", re.sub(r"(password=)[^&\s]+", r"\1***", url))
