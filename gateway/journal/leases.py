"""Engine numbers on a shared journal: leased, kept by a heartbeat, fenced, and taken over when their holder dies.

Every payment in flight belongs to one engine number, and a number to one process. A lease expires LEASE_US after the
last tick or heartbeat, by the database's own clock. Whoever takes over raises the epoch, and every tick names the epoch
that its engine was given. Therefore an engine that was only slow, and comes back, can no longer commit, and nothing
uncommitted is acknowledged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.journal.interface import JournalMismatchError
from gateway.journal.memory import Standing
from gateway.journal.postgres_connection import Connection
from gateway.journal.postgres_sql import NOW_US

LEASE_US: Final = 5_000_000
"""How long an engine may be silent before others take its payments over: longer than any pause of a healthy process."""
ATTEMPTS_MAX: Final = 20
"""Most processes that start at the same moment and want the same number."""
ADOPTED_MAX: Final = 2_000
"""Most payments taken over in one transaction: some tens of milliseconds."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A process's right to an engine number."""

    engine: int
    epoch: int
    tick: int
    """The number of the engine's last tick."""
    holder: str
    duration_us: int = LEASE_US


def acquire(connection: Connection, holder: str, *, engine: int | None = None, duration_us: int = LEASE_US) -> Lease:
    """Takes a free number, or the given one. A lease is free if it has expired or was given back; for the holder of the
    same name, which must be unique to one living process, it is always free. Raises JournalMismatchError if there is
    none."""
    for _ in range(ATTEMPTS_MAX):
        wanted = engine if engine is not None else _free(connection, holder)
        connection.execute(
            "INSERT INTO leases (engine, epoch, tick, holder, expires_us) VALUES (%s, 0, 0, '', 0) "
            "ON CONFLICT (engine) DO NOTHING",
            (wanted,),
        )
        row = connection.execute(
            f"UPDATE leases SET epoch = epoch + 1, holder = %s, expires_us = {NOW_US} + %s "
            f"WHERE engine = %s AND (expires_us < {NOW_US} OR holder = %s) RETURNING epoch, tick",
            (holder, duration_us, wanted, holder),
        ).fetchone()
        if row is not None:
            return Lease(wanted, row[0], row[1], holder, duration_us)
        if engine is not None:
            break
    raise JournalMismatchError(
        "every engine number is held by another gateway"
        if engine is None
        else f"engine number {engine} is held by another gateway, and for {duration_us // 1_000_000} s after its end"
    )


def _free(connection: Connection, holder: str) -> int:
    """The lowest number that is available: the holder's own, an expired one, or a new one."""
    row = connection.execute(
        f"SELECT engine FROM leases WHERE expires_us < {NOW_US} OR holder = %s "
        "ORDER BY CASE WHEN holder = %s THEN 0 ELSE 1 END, engine LIMIT 1",
        (holder, holder),
    ).fetchone()
    if row is not None:
        return int(row[0])
    (highest,) = connection.execute("SELECT COALESCE(max(engine), 0) FROM leases").fetchone() or (0,)
    return int(highest) + 1


def beat(connection: Connection, lease: Lease, tick: int) -> bool:
    """Prolongs a lease. False if another engine has taken it, or if the database has lost ticks: it must have `tick`,
    the last that this engine knows to be committed."""
    changed = connection.execute(
        f"UPDATE leases SET expires_us = {NOW_US} + %s WHERE engine = %s AND epoch = %s AND tick >= %s AND holder = %s",
        (lease.duration_us, lease.engine, lease.epoch, tick, lease.holder),
    )
    return changed.rowcount == 1


def standings(connection: Connection) -> list[Standing]:
    """The last tick and epoch of each engine number, whoever holds it."""
    return [Standing(*row) for row in connection.execute("SELECT engine, epoch, tick FROM leases ORDER BY engine")]


def release(connection: Connection, lease: Lease) -> None:
    """Gives a lease back, so that its payments in flight may be taken over at once."""
    connection.execute(
        "UPDATE leases SET expires_us = 0, holder = '' WHERE engine = %s AND epoch = %s AND holder = %s",
        (lease.engine, lease.epoch, lease.holder),
    )


def orphans(connection: Connection, lease: Lease) -> list[int]:
    """Engine numbers without a holder that have payments in flight."""
    rows = connection.execute(
        f"SELECT engine FROM leases WHERE expires_us < {NOW_US} AND engine != %s AND EXISTS "
        "(SELECT 1 FROM payments WHERE payments.engine = leases.engine AND payments.open = 1) ORDER BY engine",
        (lease.engine,),
    )
    return [row[0] for row in rows]


def adopt(connection: Connection, lease: Lease, tick: int, orphan: int) -> list[bytes]:
    """Makes up to ADOPTED_MAX payments in flight of a number without a holder this engine's own; none if the number has
    a holder again, or if this engine's own lease was taken. `tick`: see `beat`."""
    with connection.transaction():
        fenced = connection.execute(
            f"UPDATE leases SET epoch = epoch + 1, holder = '' WHERE engine = %s AND expires_us < {NOW_US}", (orphan,)
        )
        if fenced.rowcount != 1 or not beat(connection, lease, tick):
            return []
        rows = connection.execute(
            "UPDATE payments SET engine = %s WHERE payment_id IN "
            "(SELECT payment_id FROM payments WHERE engine = %s AND open = 1 ORDER BY payment_id LIMIT %s) "
            "RETURNING payment_id",
            (lease.engine, orphan, ADOPTED_MAX),
        ).fetchall()
        connection.execute("UPDATE mail SET engine = %s WHERE engine = %s", (lease.engine, orphan))
        return sorted(bytes(row[0]) for row in rows)
