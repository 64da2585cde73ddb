"""A schema on a real PostgreSQL server, used for one run after another, with a clock that the world sets.

The clock needs no seam in the journal: the schema precedes `pg_catalog` in the search path, and has its own
`clock_timestamp()`. Connections that were returned in order are used again, since opening one costs more than most runs
need for a tick.
"""

from __future__ import annotations

import os
from typing import Any, Final, cast
from urllib.parse import quote

import psycopg
from psycopg.pq import TransactionStatus

from gateway.journal.postgres_connection import Connection, connect
from gateway.journal.postgres_schema import POSTGRESQL_TUNING, statements
from verification.simulation.storage import Cursor

LOCK_MS: Final = 25
"""Longest wait for a lock. One thread plays all engines, so a lock that is not free at once belongs to an engine that
stands still, and waiting does not free it."""
LOOKS_MAX: Final = 100_000
"""Most looks whether the server has ended a connection that it was told to end: some seconds."""
_CLOCK: Final = (
    "CREATE SEQUENCE simulated_us",
    "CREATE FUNCTION clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS "
    "$$ SELECT timestamptz 'epoch' + last_value * interval '1 microsecond' FROM simulated_us $$",
    "CREATE FUNCTION fail(code text) RETURNS void LANGUAGE plpgsql AS "
    "$$ BEGIN RAISE EXCEPTION 'a simulated fault' USING ERRCODE = code; END $$",
)


class Database:
    """The tables of a journal, emptied for each run."""

    def __init__(self, url: str) -> None:
        """Makes a schema on the server at `url`. Raises psycopg.Error."""
        self._name = f"hutong_simulation_{os.getpid()}"
        # Off unless the journal itself turns it on.
        options = quote(f"-c search_path={self._name},pg_catalog -c synchronous_commit=off")
        self.url = f"{url}{'&' if '?' in url else '?'}options={options}"
        self._idle: dict[bool, list[Connection]] = {False: [], True: []}
        self._ended: set[Connection] = set()
        """Connections that the server was told to end."""
        with psycopg.connect(url, autocommit=True) as first:
            first.execute(f"DROP SCHEMA IF EXISTS {self._name} CASCADE".encode())
            first.execute(f"CREATE SCHEMA {self._name}".encode())
        self.control = connect(self.url)
        self.control.execute("SET synchronous_commit = on")
        for statement in (*statements(), *POSTGRESQL_TUNING, *_CLOCK):
            self.control.execute(statement)
        self._tables = ", ".join(
            row[0]
            for row in self.control.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = %s ORDER BY tablename", (self._name,)
            )
        )

    def empty(self) -> None:
        """Empties the tables for the next run."""
        self.control.execute(f"TRUNCATE {self._tables}")

    def keep(self) -> None:
        """Copies all rows."""
        for table in self._tables.split(", "):
            self.control.execute(f"CREATE TABLE IF NOT EXISTS kept_{table} (LIKE {table})")
            self.control.execute(f"TRUNCATE kept_{table}")
            self.control.execute(f"INSERT INTO kept_{table} SELECT * FROM {table}")  # noqa: S608 - our own names

    def put_back(self) -> None:
        """Restores all rows from the copy."""
        self.empty()
        for table in self._tables.split(", "):
            self.control.execute(f"INSERT INTO {table} SELECT * FROM kept_{table}")  # noqa: S608 - our own names

    def set_clock(self, now_us: int) -> None:
        """Sets the server's clock, in microseconds since the Unix epoch."""
        self.control.execute("SELECT setval('simulated_us', %s)", (now_us,))

    def take(self, *, writer: bool) -> Connection:
        """A connection as the journal opens it."""
        if self._idle[writer]:
            return self._idle[writer].pop()
        connection = connect(self.url, writer=writer)
        connection.execute(f"SET lock_timeout = {LOCK_MS}")
        return connection

    def give_back(self, connection: Connection, *, writer: bool) -> None:
        """Returns a connection for others to use. The server rolls back what is unfinished on it."""
        try:
            if connection.info.transaction_status != TransactionStatus.IDLE:
                connection.execute("ROLLBACK")
            connection.execute("RESET application_name")
        except psycopg.Error:
            self.end(connection)
        if connection.closed or connection in self._ended:
            self._ended.discard(connection)
            connection.close()
        else:
            self._idle[writer].append(connection)

    def end(self, connection: Connection) -> None:
        """Makes the server end a connection, and waits until it has."""
        pid = connection.info.backend_pid
        self._ended.add(connection)
        self.control.execute("SELECT pg_terminate_backend(%s)", (pid,))
        for _ in range(LOOKS_MAX):
            if self.control.execute("SELECT 1 FROM pg_stat_get_activity(%s)", (pid,)).fetchone() is None:
                return
        raise AssertionError("the server does not end a connection")

    def close(self) -> None:
        """Removes the schema."""
        for connection in (*self._idle[False], *self._idle[True]):
            connection.close()
        self.control.execute(f"DROP SCHEMA {self._name} CASCADE")
        self.control.close()


class CommittedRows:
    """Committed rows of the database, read without any of the simulated faults."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def execute(self, query: str, parameters: tuple[object, ...] = (), /) -> Cursor:
        return cast("Any", self._connection).execute(query.replace("?", "%s"), parameters)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Does nothing: the connection belongs to the database."""
