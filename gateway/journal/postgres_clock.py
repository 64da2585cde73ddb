"""The database's clock, with which each gateway on it compares its machine's, and how far the other gateways' are off.

A gateway whose clock differs says so in `meta`, each second while it does; the others read that. Leases are counted by
the database's clock alone.
"""

from __future__ import annotations

from typing import Final

import psycopg

from gateway.engine.clock import Clock
from gateway.engine.clock_watch import Reading, differs, wrong
from gateway.journal.interface import ClockDiffersError, JournalMismatchError
from gateway.journal.postgres_connection import Connect, Connection, connect, safe_url
from gateway.journal.postgres_sql import NOW_US

_SAID: Final = "clock of engine "
"""Followed by an engine number: name of a row of `meta`. Its value: by how many microseconds that engine's clock is
ahead of the database's, and when that was so by the database's clock."""
FRESH_US: Final = 10_000_000
"""What a gateway said longer ago than this is not believed any more: it has ended, or its clock is right again."""
_SAY: Final = (
    f"INSERT INTO meta (name, value) VALUES (%s, CAST(CAST(%s AS BIGINT) AS TEXT) || ' ' || CAST({NOW_US} AS TEXT)) "
    "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
_SAID_BY: Final = f"SELECT name, value, {NOW_US} FROM meta WHERE name LIKE '{_SAID}%%' AND name != %s"
ASKED_MAX: Final = 3
"""Times that a slow answer is asked for again, at a start."""
SLOW_US: Final = 500_000


def compare(connection: Connection, engine: int, clock: Clock) -> tuple[Reading, dict[int, int]]:
    """The database's time beside the wall clock, and which other gateways' clocks differ from it: engine number to
    microseconds ahead. Says so of this gateway's own where it differs. Raises psycopg.Error."""
    reading = read(connection, clock)
    own = f"{_SAID}{engine}"
    if differs(reading.off_us):
        connection.execute(_SAY, (own, reading.off_us))
    return reading, _others(connection, own)


def read(connection: Connection, clock: Clock) -> Reading:
    """The database's time beside the wall clock. Raises psycopg.Error."""
    before_us = clock.wall_us()
    (now_us,) = connection.execute(f"SELECT {NOW_US}").fetchone() or (before_us,)
    return Reading(before_us, int(now_us), clock.wall_us())


def _others(connection: Connection, own: str) -> dict[int, int]:
    others = {}
    for name, value, now_us in connection.execute(_SAID_BY, (own,)):
        off, _, said = str(value).partition(" ")
        if abs(int(now_us) - int(said)) <= FRESH_US:
            others[int(str(name).removeprefix(_SAID))] = int(off)
    return others


def compare_at_start(url: str, clock: Clock, *, connect: Connect = connect) -> None:
    """Raises ClockDiffersError where the wall clock and the database's are too far apart to begin, and
    JournalMismatchError where the database cannot be asked."""
    try:
        connection = connect(url)
        try:
            for _ in range(ASKED_MAX):
                reading = read(connection, clock)
                if reading.after_us - reading.before_us < SLOW_US:
                    break
            others: dict[int, int] = {}
            if differs(reading.off_us):
                (there,) = connection.execute("SELECT to_regclass('meta') IS NOT NULL").fetchone() or (False,)
                others = _others(connection, "") if there else {}
        finally:
            connection.close()
    except psycopg.Error as error:
        raise JournalMismatchError(f"{safe_url(url)} is not a usable journal: {error}") from error
    if differs(reading.off_us):
        raise ClockDiffersError(
            f"{wrong(reading.off_us, others)}. Nothing was started: a hold or a token that a wrong clock ends is gone, "
            "for all gateways"
        )
