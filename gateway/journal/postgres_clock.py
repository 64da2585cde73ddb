"""The database's clock: each gateway compares its machine's clock with it, and learns how far others' differ.

A gateway whose clock differs writes that into `meta`, each second while it does; the others read it. Leases are
measured by the database's clock alone.
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
"""Prefix of the names of rows of `meta`, followed by an engine number. The value: by how many microseconds that
engine's clock is ahead of the database's, and when that was so by the database's clock."""
FRESH_US: Final = 10_000_000
"""Older statements than this are ignored: the gateway has ended, or its clock is right again."""
_SAY: Final = (
    f"INSERT INTO meta (name, value) VALUES (%s, CAST(CAST(%s AS BIGINT) AS TEXT) || ' ' || CAST({NOW_US} AS TEXT)) "
    "ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
_SAID_BY: Final = f"SELECT name, value, {NOW_US} FROM meta WHERE name LIKE '{_SAID}%%' AND name != %s"
ASKED_MAX: Final = 3
"""Most repetitions of a query whose answer was slow, at a start."""
SLOW_US: Final = 500_000


def compare(connection: Connection, engine: int, clock: Clock) -> tuple[Reading, dict[int, int]]:
    """The database's time beside the wall clock, and the gateways whose clocks differ from it: engine number ->
    microseconds ahead. Writes the difference of this gateway's own clock, if there is one. Raises psycopg.Error."""
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
    """Raises ClockDiffersError if the wall clock and the database's differ too much to start, and JournalMismatchError
    if the database cannot be asked."""
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
