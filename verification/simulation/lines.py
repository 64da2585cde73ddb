"""Connections to the journal's server that are cut during a transaction, and a server that stands still.

A connection is cut for one end only: the process finds its connection gone, or is gone itself with its machine, while
the server keeps what it received, and its locks, until somebody ends it. A server that stands still answers nothing;
when it goes on, it may or may not carry out what was sent meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, Protocol

import psycopg

from gateway.journal.leases import LEASE_US
from gateway.journal.postgres_connection import Connection
from verification.simulation.database import Database

FREED_US: Final = 3 * LEASE_US
"""Within this time the living engines must have ended whatever a cut connection left at the server."""
LOOK_US: Final = 500_000
"""Time until a process notices that the server goes on."""
LOCK_WAIT_US: Final = 2_000_000
"""How long an engine waits for a lock of such a connection."""


class Sent(Protocol):
    """A statement on its way."""

    statement: str
    parameters: Any


@dataclass(slots=True)
class _Cut:
    real: Connection
    since_us: int
    pid: int


class Lines:
    """What is left at the server by connections that their processes have given up."""

    def __init__(self, database: Database, now_us: Callable[[], int]) -> None:
        self._database = database
        self._now_us = now_us
        self._cut: list[_Cut] = []
        self._silent: list[tuple[Connection, bool, Sequence[Sent]]] = []

    # -- lines that were cut -----------------------------------------------------------------------------------

    def keep(self, real: Connection) -> None:
        """Keeps a connection open at the server, without a process at its other end."""
        self._cut.append(_Cut(real, self._now_us(), real.info.backend_pid))

    @property
    def any_cut(self) -> bool:
        """Whether there may be connections without a process."""
        return bool(self._cut)

    def overdue(self, *, watched: bool) -> str:
        """What has been locked for too long; empty if there is nothing. `watched`: whether any engine could have ended
        it by now."""
        now_us = self._now_us()
        for one in list(self._cut):
            if not watched:
                one.since_us = now_us
            elif now_us - one.since_us > FREED_US and self.at_rest():
                return ""
            elif now_us - one.since_us > FREED_US and one in self._cut:
                return f"a connection has kept its locks for {(now_us - one.since_us) / 1e6:.1f} s"
        return ""

    def at_rest(self) -> bool:
        """Whether all of them have been ended, or hold no locks."""
        for one in list(self._cut):
            row = self._database.control.execute(
                "SELECT backend_xid FROM pg_stat_get_activity(%s)", (one.pid,)
            ).fetchone()
            if row is None or row[0] is None:
                one.real.close()
                self._cut.remove(one)
        return not self._cut

    # -- a server that stands still ----------------------------------------------------------------------------

    def hold(self, real: Connection, sent: Sequence[Sent], *, writer: bool) -> None:
        """The process has stopped waiting for the answers to these statements."""
        self._silent.append((real, writer, list(sent)))

    def go_on(self, *, carry_out: bool) -> None:
        """The server goes on: it carries out what was sent, or first finds the connection ended."""
        silent, self._silent = self._silent, []
        for real, writer, sent in silent:
            if carry_out:
                with suppress(psycopg.Error), real.pipeline():
                    for one in sent:
                        real.execute(one.statement, one.parameters)
            self._database.give_back(real, writer=writer)

    def end_all(self) -> None:
        """Ends every connection, with the server or with the run."""
        self.go_on(carry_out=False)
        for one in self._cut:
            self._database.end(one.real)
            self._database.give_back(one.real, writer=True)
        self._cut.clear()
