"""Connections of engines by name, and the end of those that nobody stands behind any more.

A machine that dies, or a line that is cut, in the middle of a tick leaves a transaction open at the server. Its rows
stay locked, the one that every tick locks last perhaps among them, until the server notices that nobody is there: by
default in two hours, and never where something in between keeps the connection alive. So each connection of an engine
says in `application_name` whose it is, and others end it when the engine's lease has run out.

What was ended is rolled back, or was committed before. Its engine, if it lives, finds the connection gone and looks up
which (PostgresJournal), or finds its lease taken: nothing is acknowledged that is not there, and nothing is done twice.
A commit that waits for a standby is left alone: to end it would show what the standby does not have.
"""

from __future__ import annotations

from typing import Final

from gateway.journal.leases import Lease
from gateway.journal.postgres_connection import Connection, is_postgresql
from gateway.journal.postgres_sql import NOW_US

TICKS: Final = "tick"
"""The connection of an engine's thread."""
LEASES: Final = "lease"
"""The connection of the thread that looks after the lease and after other engines."""
GONE_MS: Final = 1_000
"""How long the server may take to end a connection."""
_WAITS_FOR_STANDBY: Final = "s.wait_event IS NOT DISTINCT FROM 'SyncRep'"
_WAITS_FOR_END_SINCE: Final = 140_000

END_FORMER: Final = (
    "SELECT s.pid, {ended} FROM pg_stat_activity s WHERE s.datname = current_database() "
    f"AND s.application_name = %s AND s.pid != pg_backend_pid() AND NOT ({_WAITS_FOR_STANDBY})"
)
"""Name. Connections of this very thread that it has given up."""
END_LAPSED: Final = (
    "SELECT s.application_name, {ended} FROM pg_stat_activity s WHERE s.datname = current_database() "
    "AND starts_with(s.application_name, %s) AND s.backend_xid IS NOT NULL "
    f"AND s.wait_event_type IS DISTINCT FROM 'Lock' AND NOT ({_WAITS_FOR_STANDBY}) "
    "AND NOT EXISTS (SELECT 1 FROM leases l WHERE (l.engine = %s OR "
    f"(l.expires_us >= {NOW_US} AND l.holder != %s)) "
    "AND starts_with(s.application_name, concat(%s::text, ' engine ', l.engine, ' epoch ', l.epoch, ' ')))"
)
"""Beginning of names on this journal, an engine to spare, a holder not to spare, the beginning again. Connections with
locks whose engine's lease has run out. One that itself waits for a lock is not what others wait for: that wait ends by
its own bound."""


class Sessions:
    """Names of connections on one journal, and what may be ended there. Does nothing on servers that are not
    PostgreSQL itself."""

    def __init__(self, connection: Connection) -> None:
        """Learns from a connection which journal this is: a server may have several, and they know nothing of each
        other's engines. Raises psycopg.Error."""
        self._genuine = is_postgresql(connection)
        self._ended = "pg_terminate_backend(s.pid)"
        self._prefix = "hutong"
        if self._genuine:
            if connection.info.server_version >= _WAITS_FOR_END_SINCE:
                self._ended = f"pg_terminate_backend(s.pid, {GONE_MS})"
            # Engines with the same number may be in another schema.
            (table,) = connection.execute("SELECT 'leases'::regclass::oid").fetchone() or (0,)
            self._prefix = f"hutong {table}"

    def name(self, connection: Connection, lease: Lease, thread: str) -> None:
        """Says whose a new connection is, and ends those that the same thread had before. Raises psycopg.Error."""
        name = f"{self._prefix} engine {lease.engine} epoch {lease.epoch} {thread}"
        connection.execute(f"SET application_name = '{name}'")
        if self._genuine:
            connection.execute(END_FORMER.format(ended=self._ended), (name,)).fetchall()

    def end_lapsed(self, connection: Connection, lease: Lease) -> list[str]:
        """Ends connections that hold locks for engines whose leases have run out, but for those of `lease`. Returns
        their names. Raises psycopg.Error."""
        return self._end(connection, lease.engine, "")

    def end_of_holder(self, connection: Connection, holder: str) -> list[str]:
        """The same before a lease is asked for. `holder` has no lease yet in this life: what an earlier one left is
        ended too. Raises psycopg.Error."""
        return self._end(connection, 0, holder)

    def _end(self, connection: Connection, spared: int, holder: str) -> list[str]:
        if not self._genuine:
            return []
        start = f"{self._prefix} engine "
        rows = connection.execute(
            END_LAPSED.format(ended=self._ended), (start, spared, holder, self._prefix)
        ).fetchall()
        return [str(row[0]) for row in rows]
