"""Runs seeds: each on a folder of its own, in memory where the system has such a place, or on a database server."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hutong_contract.extras import needs
from verification.simulation.disk import Disk
from verification.simulation.draw import draw, draw_shared
from verification.simulation.finish import finish
from verification.simulation.plan import Plan
from verification.simulation.result import Result
from verification.simulation.world import World

if TYPE_CHECKING:
    from verification.simulation.database import Database

MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a tmpfs, in a folder of its own with a random name
"""A place where files cost no disk, if there is one."""
_LOGGERS: Final = (
    "gateway.engine.clock_watch",
    "gateway.engine.loop",
    "gateway.journal.postgres",
    "gateway.journal.postgres_neighbours",
    "psycopg",
    "gateway.watch",
    "gateway.queries",
)
"""Loggers that are silenced: a failing journal is expected here."""


class Runner:
    """Runs plans on one kind of journal."""

    def __init__(self, database: Database | None = None) -> None:
        """On SQLite, unless there is a database."""
        self._database = database

    def draw(self, seed: int) -> Plan:
        """The run of a seed."""
        return draw(seed) if self._database is None else draw_shared(seed)

    def play(self, plan: Plan, *, trace: bool = False) -> Result:
        """One run of a plan."""
        with tempfile.TemporaryDirectory(prefix="hutong-simulation-", dir=MEMORY if MEMORY.is_dir() else None) as at:
            if (database := self._database) is None:
                world = World(plan, lambda _: Disk(Path(at)), trace=trace)
            else:
                with needs("postgres"):
                    from verification.simulation.server import Server

                world = World(plan, lambda now_us: Server(database, now_us), trace=trace)
            with _quiet():
                try:
                    world.begin()
                    finish(world)
                finally:
                    result = world.close()
        return result

    def play_seed(self, seed: int, *, trace: bool = False) -> Result:
        """One run of a seed."""
        return self.play(self.draw(seed), trace=trace)


@contextmanager
def open_runner(url: str = "") -> Iterator[Runner]:
    """A runner on SQLite, or on a schema of its own on the server at `url`."""
    if not url:
        yield Runner()
        return
    with needs("postgres"):
        from verification.simulation.database import Database

    database = Database(url)
    try:
        yield Runner(database)
    finally:
        database.close()


@contextmanager
def _quiet() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled
