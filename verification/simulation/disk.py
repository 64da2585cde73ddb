"""The journal's disk: SQLite's own files, with faults at its statements and power cuts that drop what was not synced.

The files are real (best on a tmpfs) and so is SQLite. A commit counts as synced if the connection itself asks for that
(`PRAGMA synchronous` FULL or more), which is read from the connection. A power cut continues on a copy of the database
file and of the write-ahead log up to its last synced byte; a torn commit on one that ends inside the last commit's
frames, which SQLite's checksums must detect.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from gateway.engine.core import Core
from gateway.engine.loop import Engine
from gateway.journal.conservation import examine
from gateway.journal.interface import Reader
from gateway.journal.report import Report
from gateway.journal.sqlite import SqliteJournal
from gateway.journal.sqlite_reader import SqliteReader
from verification.simulation.plan import DiskFault
from verification.simulation.storage import Life, Rows, TornError

NEWEST_KEYS_MAX: Final = 4
"""Small, so that most keys are in the journal's table, and some are written there in nearly every tick."""
_FULL: Final = 2
"""The value of PRAGMA synchronous from which a commit in WAL mode is synced."""
_READS: Final = ("SELECT", "PRAGMA")


class Disk:
    """The journal's files, and the fault in force."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._generation = 0
        self._name(0)
        self._synced_bytes = 0
        self._statements = 0
        self.hole = False
        """Whether the log has a part that a failed sync did not write."""
        self.mode = ""
        """The fault in force: one of verification.simulation.plan.DISK_MODES."""
        self.failing_statement = 1
        self.torn_part: float | None = None
        """If set, power fails in the next commit, and this share of it is written."""
        self.has_clock = False
        self.failed = 0
        """Number of statements that failed."""

    def _name(self, generation: int) -> None:
        self.path = self._folder / f"journal-{generation}.db"
        """The journal's file."""
        self._wal = self.path.with_name(self.path.name + "-wal")

    def power_cut(self) -> None:
        """Cuts the power: continues with what was synced. Connections to the former files must be closed after this."""
        before, log = self.path, self._wal
        self._generation += 1
        self._name(self._generation)
        shutil.copyfile(before, self.path)
        if log.exists():
            with log.open("rb") as whole:
                self._wal.write_bytes(whole.read(self._synced_bytes))
        self.hole = False

    # -- as storage ------------------------------------------------------------------------------------------

    @property
    def faulty(self) -> bool:
        return bool(self.mode)

    @property
    def hidden(self) -> bool:
        """Whether the newest commit's sync failed: SQLite shows such a commit to nobody."""
        return self.hole

    def process(self, number: int, life: Life) -> Files:
        return Files(self, number, life)

    def rows(self) -> Rows:
        connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA query_only = ON")
        return connection

    def fail(self, fault: DiskFault) -> None:
        self.mode, self.failing_statement = fault.mode, fault.statement

    def mend(self) -> None:
        self.mode = ""

    def tear(self, part: float | None) -> None:
        self.torn_part = part

    def leap(self, by_us: int) -> None:
        """Does nothing: a file has no clock."""

    def keep(self) -> None:
        """Does nothing: putting files back is not simulated."""

    def put_back(self) -> set[str]:
        return set()

    def at_rest(self, living: Mapping[str, int]) -> bool:
        """True: engines on one file know nothing of each other."""
        return True

    def overdue(self, *, watched: bool) -> str:
        """Nothing is overdue: the operating system frees the locks of a process that ends."""
        return ""

    def skip(self, idle_us: int, engines: list[int]) -> None:
        pass

    def examine(self) -> Report:
        return examine(self.path)

    def close(self) -> None:
        pass

    def connections(self, step: Callable[[], None]) -> Connections:
        """The connections of one process. `step` is called before each statement; it may raise CrashError."""
        return Connections(self, step)

    def forget_former(self) -> None:
        """Deletes the files from before the last power cut."""
        for path in self._folder.glob(f"journal-{self._generation - 1}.db*"):
            path.unlink()

    # -- called by connections ------------------------------------------------------------------------------

    def opening(self) -> None:
        """A connection is opened."""
        if self.mode.endswith("blind") or self.mode == "unreadable":
            self._fail("unable to open database file")

    def before(self, statement: str) -> None:
        """Before each statement."""
        mode = self.mode
        if not mode or mode.startswith("commit"):
            return
        if statement.startswith(_READS):
            if mode == "unreadable":
                self._fail("disk I/O error")
        elif statement.startswith("BEGIN"):
            self._statements = 0
        elif mode in ("full", "unreadable"):
            self._fail("database or disk is full")
        else:
            self._statements += 1
            if self._statements >= self.failing_statement:
                self._fail("disk I/O error")

    def commit(self, connection: _Connection, commit: Callable[[], Any]) -> Any:
        """Instead of a COMMIT."""
        if self.mode.startswith("commit_lost"):
            self._fail("disk I/O error")
        done = commit()
        try:
            size = self._wal.stat().st_size
        except FileNotFoundError:  # checkpointed and closed: all is in the database file
            size = 0
        if self.torn_part is not None:
            self._synced_bytes += int((size - self._synced_bytes) * self.torn_part)
            self.torn_part = None
            raise TornError
        if self.mode.startswith("commit_taken"):
            # What a sync failed to write counts as written: later syncs succeed, and it is still not on the disk.
            self.hole = True
            self.mode = "" if self.mode == "commit_taken" else self.mode
            self._fail("disk I/O error")
        if connection.synced and not self.hole:
            self._synced_bytes = size
        return done

    def checkpoint(self, checkpoint: Callable[[], sqlite3.Cursor]) -> sqlite3.Cursor:
        """Instead of a checkpoint, which writes the log's pages anew, into the database file."""
        if self.mode:
            self._fail("disk I/O error")
        done = checkpoint()
        if not self._wal.exists() or not self._wal.stat().st_size:
            self.hole, self._synced_bytes = False, 0
        return done

    def _fail(self, text: str) -> None:
        self.failed += 1
        raise sqlite3.OperationalError(text)


class Connections:
    """The connections of one process."""

    def __init__(self, disk: Disk, step: Callable[[], None]) -> None:
        self.disk = disk
        self.step = step
        self.open: list[_Connection] = []
        self.factory: type[sqlite3.Connection] = type("Connection", (_Connection,), {"process": self})

    def close_all(self) -> None:
        """Ends the process's connections; uncommitted work is lost."""
        for connection in self.open:
            connection.close()
        self.open.clear()


class Files(Connections):
    """The connections of one simulated process to the journal's files."""

    def __init__(self, disk: Disk, number: int, life: Life) -> None:
        super().__init__(disk, life.step)
        self._number = number
        self._readers: list[SqliteReader] = []

    def open_journal(self) -> SqliteJournal:
        number = self._number + 1
        return SqliteJournal(self.disk.path, number, factory=self.factory, newest_keys_max=NEWEST_KEYS_MAX)

    def open_reader(self) -> Reader:
        reader = SqliteReader(self.disk.path)
        self._readers.append(reader)
        return reader

    def close_all(self) -> None:
        super().close_all()
        for reader in self._readers:
            reader.close()
        self._readers.clear()

    def join(self, engine: Engine, core: Core) -> None:
        pass


class _Connection(sqlite3.Connection):
    process: Connections
    _synced: bool | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.process.open.append(self)
        self.process.disk.opening()

    @property
    def synced(self) -> bool:
        """Whether this connection's commits are synced before they return."""
        if self._synced is None:
            self._synced = super().execute("PRAGMA synchronous").fetchone()[0] >= _FULL
        return self._synced

    def execute(self, statement: str, *args: Any) -> sqlite3.Cursor:
        """As sqlite3's, unless the disk fails."""
        self.process.step()
        disk = self.process.disk
        disk.before(statement)
        if statement == "COMMIT":
            cursor: sqlite3.Cursor = disk.commit(self, lambda: super(_Connection, self).execute(statement))
            return cursor
        if statement.startswith("PRAGMA wal_checkpoint("):
            return disk.checkpoint(lambda: super(_Connection, self).execute(statement))
        return super().execute(statement, *args)

    def executemany(self, statement: str, *args: Any) -> sqlite3.Cursor:
        """As sqlite3's, unless the disk fails."""
        self.process.step()
        self.process.disk.before(statement)
        return super().executemany(statement, *args)
