"""Names of engines' connections, and ending those whose engine is dead.

A machine that dies, or a connection that is cut, during a tick leaves a transaction open at the server. Its rows stay
locked, perhaps including the one that every tick locks last, until the server notices: by default after two hours, and
never if something in between keeps the connection alive. Therefore each connection of an engine names its owner in
`application_name`, and other engines end it when the owner's lease has expired.

What was ended is rolled back, or was committed before. Its engine, if it lives, finds the connection gone and looks up
which (PostgresJournal), or finds its lease taken: nothing uncommitted is acknowledged, and nothing is done twice. A
commit that waits for a standby is left alone: ending it would show what the standby does not have.
"""

from __future__ import annotations

from typing import Final

from gateway.journal.leases import Lease
from gateway.journal.postgres_connection import Connection, is_postgresql
from gateway.journal.postgres_sql import NOW_US

TICKS: Final = "tick"
"""The connection of an engine's thread."""
LEASES: Final = "lease"
"""The connection of the thread that keeps the lease and looks after other engines."""
GONE_MS: Final = 1_000
"""Longest time for the server to end a connection, in milliseconds."""
_WAITS_FOR_STANDBY: Final = "s.wait_event IS NOT DISTINCT FROM 'SyncRep'"
_WAITS_FOR_END_SINCE: Final = 140_000

END_FORMER: Final = (
    "SELECT s.pid, {ended} FROM pg_stat_activity s WHERE s.datname = current_database() "
    f"AND s.application_name = %s AND s.pid != pg_backend_pid() AND NOT ({_WAITS_FOR_STANDBY})"
)
"""Parameter: name. Ends former connections of the same thread."""
END_LAPSED: Final = (
    "SELECT s.application_name, {ended} FROM pg_stat_activity s WHERE s.datname = current_database() "
    "AND starts_with(s.application_name, %s) AND s.backend_xid IS NOT NULL "
    f"AND s.wait_event_type IS DISTINCT FROM 'Lock' AND NOT ({_WAITS_FOR_STANDBY}) "
    "AND NOT EXISTS (SELECT 1 FROM leases l WHERE (l.engine = %s OR "
    f"(l.expires_us >= {NOW_US} AND l.holder != %s)) "
    "AND starts_with(s.application_name, concat(%s::text, ' engine ', l.engine, ' epoch ', l.epoch, ' ')))"
)
"""Parameters: prefix of names on this journal, an engine to spare, a holder not to spare, the prefix again. Ends
connections with locks whose engine's lease has expired. One that itself waits for a lock is left alone: that wait ends
by its own bound."""


class Sessions:
    """Names of connections on one journal, and ending connections there. Does nothing on servers other than PostgreSQL
    itself."""

    def __init__(self, connection: Connection) -> None:
        """Learns from a connection which journal this is: a server may have several, each with its own engines. Raises
        psycopg.Error."""
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
        """Names the owner of a new connection, and ends former connections of the same thread. Raises psycopg.Error."""
        name = f"{self._prefix} engine {lease.engine} epoch {lease.epoch} {thread}"
        connection.execute(f"SET application_name = '{name}'")
        if self._genuine:
            connection.execute(END_FORMER.format(ended=self._ended), (name,)).fetchall()

    def end_lapsed(self, connection: Connection, lease: Lease) -> list[str]:
        """Ends connections that hold locks for engines whose leases have expired, except those of `lease`. Returns
        their names. Raises psycopg.Error."""
        return self._end(connection, lease.engine, "")

    def end_of_holder(self, connection: Connection, holder: str) -> list[str]:
        """The same before a lease is requested. `holder` has no lease yet in this process: connections of former
        processes are ended too. Raises psycopg.Error."""
        return self._end(connection, 0, holder)

    def _end(self, connection: Connection, spared: int, holder: str) -> list[str]:
        if not self._genuine:
            return []
        start = f"{self._prefix} engine "
        rows = connection.execute(
            END_LAPSED.format(ended=self._ended), (start, spared, holder, self._prefix)
        ).fetchall()
        return [str(row[0]) for row in rows]
