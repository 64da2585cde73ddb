"""The simulated world's interface to the database of a journal, SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from gateway.engine.clock import Clock
from gateway.engine.core import Core
from gateway.engine.loop import Engine
from gateway.engine.ports import Journal
from gateway.journal.interface import Reader
from gateway.journal.report import Report
from verification.simulation.plan import DiskFault


class CrashError(BaseException):
    """The engine's process ended here. No `except Exception` of the engine may see it."""


class TornError(CrashError):
    """The engine's process ended with its machine, during a commit."""


class GoneError(CrashError):
    """The engine's process ended while this thread stood still; the rest of the thread ends too."""


class LostError(CrashError):
    """The engine's process ended with its machine, and the server is not told."""

    def __init__(self, down_us: int, *, renamed: bool) -> None:
        super().__init__()
        self.down_us = down_us
        self.renamed = renamed


class Cursor(Protocol):
    """Rows of a query."""

    def fetchone(self) -> Any:
        """The next row, or None."""
        ...

    def fetchall(self) -> list[Any]:
        """All rows."""
        ...

    def __iter__(self) -> Iterator[Any]: ...


class Rows(Protocol):
    """A view of what is committed, past all faults: for the witness."""

    def execute(self, query: str, parameters: tuple[object, ...] = (), /) -> Cursor:
        """The rows of a query whose parameters are question marks."""
        ...

    def close(self) -> None:
        """Ends it."""
        ...


class Life(Protocol):
    """The interface of a process for its connections."""

    holder: str
    """The name under which it leases an engine number."""

    def step(self, *, pause: bool = True) -> None:
        """Before each statement: the process may end here, or stand still for a while where `pause` allows it."""
        ...

    @property
    def clock(self) -> Clock:
        """Its engine's clock."""
        ...

    def monotonic_s(self) -> float:
        """Its monotonic clock."""
        ...

    def wait(self, lasts_us: int) -> bool:
        """Waits for another process, while the world goes on. False if nothing can go on yet, because the process has
        only begun."""
        ...

    def turn_soon(self) -> None:
        """Wakes its thread for other engines."""
        ...


class Neighbour(Protocol):
    """The thread that watches the other engines on the journal; the world calls its turns."""

    def turn(self) -> bool:
        """One turn. Returns whether the journal could be reached."""
        ...

    @property
    def engine(self) -> int:
        """Its engine's number."""
        ...

    @property
    def next_beat_us(self) -> int:
        """When it next prolongs its lease, by the process's monotonic clock."""
        ...

    @property
    def waits_us(self) -> int:
        """Time until the next turn, if nobody wakes it."""
        ...

    @property
    def at_rest(self) -> bool:
        """Whether no caller waits for other engines."""
        ...

    def skip(self, idle_us: int) -> None:
        """Skips time in which its turns would change nothing."""
        ...


class Process(Protocol):
    """The storage as one engine's process uses it."""

    def open_journal(self) -> Journal:
        """Raises JournalMismatchError, or what the database raises."""
        ...

    def open_reader(self) -> Reader:
        """Committed state, for queries and watchers."""
        ...

    def join(self, engine: Engine, core: Core) -> Neighbour | None:
        """Lets the engine share the journal with others; None if it does not watch others."""
        ...

    def close_all(self) -> None:
        """Ends the process's connections; uncommitted work is lost."""
        ...


class Storage(Protocol):
    """The storage of a journal, and its faults."""

    failed: int
    """Statements that failed."""
    has_clock: bool
    """Whether it has a clock with which the machines' clocks are compared."""

    @property
    def faulty(self) -> bool:
        """Whether a fault is in force."""
        ...

    @property
    def hidden(self) -> bool:
        """Whether something is committed that no reader sees until it is written again."""
        ...

    def process(self, number: int, life: Life) -> Process:
        """For a new node."""
        ...

    def rows(self) -> Rows:
        """For the witness."""
        ...

    def fail(self, fault: DiskFault) -> None:
        """A fault begins."""
        ...

    def mend(self) -> None:
        """It ends."""
        ...

    def tear(self, part: float | None) -> None:
        """Power fails in the next commit, of which this part is written; None: it does not."""
        ...

    def leap(self, by_us: int) -> None:
        """Sets the storage's own clock, if it has one."""
        ...

    def keep(self) -> None:
        """Makes a backup of what is committed now."""
        ...

    def put_back(self) -> set[str]:
        """Restores the backup and ends every connection. Returns the names of the processes whose commits are lost."""
        ...

    def power_cut(self) -> None:
        """Cuts the power: what is not durable is lost."""
        ...

    def forget_former(self) -> None:
        """After a power cut, once all connections of before are closed."""
        ...

    def at_rest(self, living: Mapping[str, int]) -> bool:
        """Whether these engines (by the names of their processes) have nothing to learn from each other."""
        ...

    def overdue(self, *, watched: bool) -> str:
        """What dead processes have kept locked for too long; empty if there is nothing. `watched`: whether any process
        is alive and does not stand still."""
        ...

    def skip(self, idle_us: int, engines: list[int]) -> None:
        """Skips time in which these engines only keep their leases."""
        ...

    def examine(self) -> Report:
        """The conservation check."""
        ...

    def close(self) -> None:
        """The run has ended."""
        ...
