"""Connections to PostgreSQL: settings, a bound on every wait, and the meaning of errors."""

from __future__ import annotations

import re
from typing import Any, Final, Protocol

import psycopg
from psycopg import conninfo, errors

from gateway.journal import postgres_arrays
from gateway.journal.interface import JournalMismatchError
from gateway.journal.postgres_schema import WRITER_SETTINGS
from gateway.journal.postgres_waiting import Patience, PatientConnection

CONNECT_S: Final = 3
"""Seconds within which a server must accept a connection."""
STATEMENT_MS: Final = 10_000
"""Longest statement of a tick, in milliseconds; the server ends a longer one."""
READ_MS: Final = 30_000
"""Longest statement of a reader, in milliseconds: reports read much."""
LOCK_MS: Final = 2_000
"""Longest wait for another engine's transaction, which is one tick, in milliseconds."""
TRANSACTION_MS: Final = 10_000
"""After this time the server itself ends the transaction of an engine whose machine died, and frees its rows: one that
waits for the rest of an incomplete tick if the server has a setting for that (PostgreSQL 17 and later), one between two
statements on every version."""
DEAD_LINE_MS: Final = 10_000
"""After so many milliseconds without an acknowledgement of sent data, either end takes the connection for dead."""
KEEPALIVES: Final = {"idle": 5, "interval": 2, "count": 3}
"""Seconds without traffic before a probe, seconds between probes, and unanswered probes until the connection is taken
for dead: 11 s. The default is more than two hours."""
_OWN_PARAMETERS: Final = {
    "connect_timeout": CONNECT_S,
    "keepalives": 1,
    **{f"keepalives_{name}": value for name, value in KEEPALIVES.items()},
    "tcp_user_timeout": DEAD_LINE_MS,
}
"""Parameters of libpq, unless the URL has others."""
_LINE_SETTINGS: Final = (
    *(f"SET tcp_keepalives_{name} = {value}" for name, value in KEEPALIVES.items()),
    f"SET tcp_user_timeout = {DEAD_LINE_MS}",
)
"""The same on the server's side; only for PostgreSQL itself."""
_TRANSACTION_TIMEOUT_SINCE: Final = 170_000
CHECK_MS: Final = 600_000
"""Longest query of the conservation check, which reads whole tables."""

Connection = PatientConnection

REPEATABLE: Final = (
    errors.SerializationFailure,  # 40001: also CockroachDB's "restart transaction"
    errors.DeadlockDetected,  # 40P01
    errors.LockNotAvailable,  # 55P03
)
"""SQLSTATEs after which the transaction did nothing and may succeed when it is repeated."""

TRIPPED: Final = (
    errors.UniqueViolation,
    errors.DuplicateTable,
    errors.DuplicateObject,
    errors.InternalError_,  # "tuple concurrently updated", of two ALTER TABLE
)
"""SQLSTATEs that mean that somebody else is creating the same tables."""


class Connect(Protocol):
    """Opens a connection, as `connect` does; a simulated server has its own."""

    def __call__(self, url: str, *, writer: bool = False) -> Connection:
        """Opens a connection; the arguments are those of `connect`."""
        ...


def connect(url: str, *, writer: bool = False, patience: Patience | None = None) -> Connection:
    """Opens a connection in autocommit mode, on which every wait ends (see gateway.journal.postgres_waiting).
    `patience` lets other threads end the waits at once. Raises psycopg.Error; never shows the URL, which may contain a
    password."""
    named = conninfo.conninfo_to_dict(url)
    own: dict[str, Any] = {name: value for name, value in _OWN_PARAMETERS.items() if name not in named}
    connection = PatientConnection.connect(url, autocommit=True, prepare_threshold=0, **own)
    connection.patience = patience
    connection.prepared_max = None
    postgres_arrays.register(connection)
    try:
        connection.execute(_settings(connection, writer=writer), prepare=False)
    except psycopg.Error:
        connection.close()
        raise
    return connection


def _settings(connection: Connection, *, writer: bool) -> str:
    settings = [
        f"SET statement_timeout = {STATEMENT_MS if writer else READ_MS}",
        f"SET lock_timeout = {LOCK_MS}",
        f"SET idle_in_transaction_session_timeout = {TRANSACTION_MS}",
    ]
    if is_postgresql(connection):
        settings += _LINE_SETTINGS
        if writer:
            settings += WRITER_SETTINGS
            if connection.info.server_version >= _TRANSACTION_TIMEOUT_SINCE:
                settings.append(f"SET transaction_timeout = {TRANSACTION_MS}")
    return "; ".join(settings)  # one round trip


def is_postgresql(connection: Connection) -> bool:
    """Whether this is PostgreSQL itself, and not a database that speaks its protocol."""
    (version,) = connection.execute("SELECT version()").fetchone() or ("",)
    return str(version).startswith("PostgreSQL") and "-YB-" not in version


def check_durable(connection: Connection) -> None:
    """Raises JournalMismatchError if PostgreSQL's settings allow it to lose what it has acknowledged."""
    for setting in ("fsync", "full_page_writes"):
        (value,) = connection.execute(f"SHOW {setting}").fetchone() or ("",)
        if value != "on":
            raise JournalMismatchError(f"the database runs with {setting} = {value}; turn it on, payments depend on it")


def safe_url(url: str) -> str:
    """A URL without its password, which may be shown."""
    return re.sub(r"(://[^:/@]*):[^@]+@", r"\1:***@", re.sub(r"(password=)[^&\s]+", r"\1***", url))
