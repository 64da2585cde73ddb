"""The books of simulated participants: one SQLite file, append-only, durable before anybody is answered.

A file holds the books of one participant or of all those of a data folder, whose entries then share a commit.
`Books.commit` writes what was appended since the last one, in one transaction (WAL, synchronous=FULL). An account is
stored as a reference: the last four characters of its token or merchant id and a keyed hash of it.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import itertools
import os
import secrets
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from hutong_contract import stored_schema

FILE_NAME: Final = "books.db"
KEY_NAME: Final = "books.key"
KEY_BYTES: Final = 32
BUSY_TIMEOUT_MS: Final = 5_000
PAGE_BYTES: Final = 8192
"""A commit writes whole pages: larger ones cost fewer system calls and checksums for the same rows."""
CHECKPOINT_PAGES: Final = 1_000
"""Pages of write-ahead log (8 MB) after which SQLite copies it into the database file, while callers wait."""
REFERENCE_CACHE_MAX: Final = 200_000
"""Account references kept in memory, at about 200 bytes each."""
PAYMENT_ID_BYTES: Final = 16
IDS_PER_QUERY_MAX: Final = 500

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS accounts (
    participant TEXT NOT NULL,
    account TEXT NOT NULL,
    currency TEXT NOT NULL,
    opening_minor INTEGER NOT NULL,
    PRIMARY KEY (participant, account, currency)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS entries (
    leg_id BLOB NOT NULL,
    participant TEXT NOT NULL,
    kind INTEGER NOT NULL,
    original BLOB,
    account TEXT NOT NULL,
    currency TEXT NOT NULL,
    terminal TEXT NOT NULL,
    amount_minor INTEGER NOT NULL,
    effect_minor INTEGER NOT NULL,
    held_minor INTEGER NOT NULL,
    result INTEGER NOT NULL,
    code TEXT NOT NULL,
    time_us INTEGER NOT NULL,
    PRIMARY KEY (leg_id, participant)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_original ON entries (original, participant) WHERE original IS NOT NULL;
"""
STATEMENTS: Final = tuple(stored_schema.split(_SCHEMA))
VERSION: Final = 1
"""Of the books' tables, kept as the file's `user_version`; books of another version are refused."""
DIGESTS: Final = {1: "8fb5030e5550f68d"}
"""Of the text of the tables, by version. A new text is a new version: an entry is added, and none is ever changed."""
_ROW: Final = "(?,?,?,nullif(?,x''),?,?,?,?,?,?,?,?,?)"
"""sqlite3 binds bytearrays at once, and looks each time for an adapter of bytes or None."""
_INSERT: Final = f"INSERT INTO entries VALUES {_ROW}"  # noqa: S608 - a constant
ROWS_PER_STATEMENT: Final = 16
"""Rows that go together cost half of what they cost one by one."""
_INSERT_MANY: Final = f"INSERT INTO entries VALUES {', '.join([_ROW] * ROWS_PER_STATEMENT)}"  # noqa: S608 - a constant


class BooksError(Exception):
    """The books cannot be read or written now; nothing of the batch was done. Free disk space or repair the file."""


class Entry(NamedTuple):
    """One line of the books, in the order of the table's columns."""

    leg_id: bytes | bytearray
    participant: str
    kind: int
    """hutong.participant.v1.LegKind"""
    original: bytes | bytearray | None
    """The leg that a reversal, refund or capture speaks of; without any, NULL or no bytes."""
    account: str
    """Reference of the account, see `Books.reference`; empty where there is none."""
    currency: str
    terminal: str
    amount_minor: int
    """As asked for."""
    effect_minor: int
    """As done: signed change of the account's balance; 0 for what was declined."""
    held_minor: int
    """As done: signed change of what is set aside of the account's balance."""
    result: int
    """hutong.participant.v1.AnswerResult"""
    code: str
    time_us: int


class Books:
    """Open books. Not for several threads at once; any one thread at a time may use them."""

    def __init__(self, folder: Path) -> None:
        """Opens or creates `folder`/books.db. Raises BooksError where that cannot be done."""
        folder.mkdir(parents=True, exist_ok=True)
        self._key = _load_key(folder / KEY_NAME)
        self._pending: list[Entry] = []
        self._moved: dict[str, dict[tuple[str, str], int]] | None = None
        self.path = folder / FILE_NAME
        self._database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        try:
            self._database.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
            self._database.execute(f"PRAGMA page_size={PAGE_BYTES}")  # takes effect on a new file only
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute(f"PRAGMA wal_autocheckpoint={CHECKPOINT_PAGES}")
            self._database.execute("PRAGMA synchronous=FULL")
            stored_schema.prepare_sqlite(self._database, self.path, VERSION, STATEMENTS)
        except stored_schema.SchemaError as error:
            self._database.close()
            raise BooksError(str(error)) from error
        except sqlite3.Error as error:
            self._database.close()
            raise BooksError(f"{self.path} cannot be opened: {error}") from error
        self.reference = functools.lru_cache(maxsize=REFERENCE_CACHE_MAX)(self._reference)

    def _reference(self, account: str) -> str:
        """The reference of an account in the books: its last four characters, and a keyed hash, which cannot be used to
        pay."""
        digest = hmac.new(self._key, account.encode(), hashlib.sha256).hexdigest()
        return f"{account[-4:]}.{digest[:24]}"

    def open_accounts(self, participant: str, accounts: Iterator[tuple[str, str, int]]) -> None:
        """Opens accounts at a participant: (reference, currency, opening balance in minor units). An account that is
        open already stays as it is. Durable on return."""
        rows = [(participant, *account) for account in accounts]
        with self._transaction() as database:
            database.executemany("INSERT OR IGNORE INTO accounts VALUES (?,?,?,?)", rows)

    def balances(self, participant: str) -> dict[tuple[str, str], int]:
        """(account reference, currency) -> what can be spent, in minor units: the opening balance and the effects of
        all entries, without what is set aside."""
        rows = self._database.execute(
            "SELECT account, currency, opening_minor FROM accounts WHERE participant = ?", (participant,)
        )
        balances = {(account, currency): opening for account, currency, opening in rows}
        for (account, currency), moved in self._all_moved().get(participant, {}).items():
            balances[account, currency] = balances.get((account, currency), 0) + moved
        return balances

    def _all_moved(self) -> dict[str, dict[tuple[str, str], int]]:
        """Each participant's entries added up; all in one scan, which is kept until something is written."""
        if self._moved is None:
            self._moved = {}
            for participant, account, currency, effect in self._database.execute(
                "SELECT participant, account, currency, sum(effect_minor - held_minor) FROM entries "
                "WHERE effect_minor != 0 OR held_minor != 0 GROUP BY participant, account, currency"
            ):
                self._moved.setdefault(participant, {})[account, currency] = effect
        return self._moved

    def highest_leg(self) -> bytes:
        """The highest leg id that any entry has or speaks of; empty where there is none."""
        (leg,) = self._database.execute("SELECT max(leg_id) FROM entries").fetchone()
        (original,) = self._database.execute("SELECT max(original) FROM entries WHERE original IS NOT NULL").fetchone()
        return max(leg or b"", original or b"")

    def find(self, participant: str, leg_id: bytes) -> tuple[Entry | None, list[Entry]]:
        """A committed entry, and the committed entries that speak of it (reversals, refunds and captures)."""
        return self.find_many(participant, [leg_id])[leg_id]

    def find_many(self, participant: str, leg_ids: Sequence[bytes]) -> dict[bytes, tuple[Entry | None, list[Entry]]]:
        """The same for each of several, which cost a tenth of what they cost one by one."""
        entries: dict[bytes, Entry] = {}
        about: dict[bytes, list[Entry]] = {}
        for start in range(0, len(leg_ids), IDS_PER_QUERY_MAX):
            some = leg_ids[start : start + IDS_PER_QUERY_MAX]
            among, values = f"IN ({', '.join('?' * len(some))}) AND participant = ?", (*some, participant)
            for row in self._database.execute(f"SELECT * FROM entries WHERE leg_id {among}", values):  # noqa: S608 - marks
                entries[row[0]] = Entry(*row)
            for row in self._database.execute(f"SELECT * FROM entries WHERE original {among}", values):  # noqa: S608 - marks
                about.setdefault(row[3], []).append(Entry(*row))
        return {leg_id: (entries.get(leg_id), about.get(leg_id, [])) for leg_id in leg_ids}

    def append(self, entry: Entry) -> None:
        """Adds a line to what the next commit writes."""
        self._pending.append(entry)

    def commit(self) -> None:
        """Writes all that was appended, in one durable transaction; without any, does nothing.

        Raises BooksError if that fails: nothing was written, and the lines wait for `take_pending`.
        """
        if not self._pending:
            return
        with self._transaction() as database:
            lines, size = self._pending, ROWS_PER_STATEMENT
            whole = len(lines) - len(lines) % size
            parts = (tuple(itertools.chain.from_iterable(lines[at : at + size])) for at in range(0, whole, size))
            database.executemany(_INSERT_MANY, parts)
            database.executemany(_INSERT, lines[whole:])
        self._pending.clear()
        self._moved = None

    def take_pending(self) -> list[Entry]:
        """Drops what is not committed, so that balances can be restored."""
        pending, self._pending = self._pending, []
        return pending

    def close(self) -> None:
        """Closes the file; what was not committed is lost."""
        self._database.close()

    def _transaction(self) -> _Transaction:
        return _Transaction(self._database, self.path)


class _Transaction:
    """BEGIN, then COMMIT or ROLLBACK; SQLite's errors become BooksError."""

    __slots__ = ("_database", "_path")

    def __init__(self, database: sqlite3.Connection, path: Path) -> None:
        self._database = database
        self._path = path

    def __enter__(self) -> sqlite3.Connection:
        try:
            self._database.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise BooksError(f"{self._path} cannot be written: {error}") from error
        return self._database

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            try:
                self._database.execute("COMMIT")
            except sqlite3.Error as failure:
                error = failure
            else:
                return
        if self._database.in_transaction:
            self._database.execute("ROLLBACK")
        if isinstance(error, sqlite3.Error):
            raise BooksError(f"{self._path} cannot be written: {error}") from error


def _load_key(path: Path) -> bytes:
    """Reads the key of account references, or makes one, readable by the owner only."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        key = path.read_bytes()
        if len(key) != KEY_BYTES:
            raise BooksError(f"{path} is not a key of {KEY_BYTES} bytes; restore it from a copy") from None
        return key
    with os.fdopen(handle, "wb") as file:
        key = secrets.token_bytes(KEY_BYTES)
        file.write(key)
        file.flush()
        os.fsync(file.fileno())
    return key


def totals(path: Path) -> dict[tuple[str, bytes, str], int]:
    """What each payment moved: (participant, payment id, currency) -> net in minor units, without zeros.

    Reads as `_added_up` does."""
    return _added_up(path, "effect_minor")


def holds(path: Path) -> dict[tuple[str, bytes, str], int]:
    """What each payment still sets aside: (participant, payment id, currency) -> minor units, without zeros."""
    return _added_up(path, "held_minor")


def _added_up(path: Path, column: str) -> dict[tuple[str, bytes, str], int]:
    """A column of the entries added up for each payment.

    Reads the file at `path` only, also while it is in use. The payment id is the first 16 bytes of its legs' ids; a
    refund is a payment with an id of its own.
    """
    database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        rows = database.execute(
            f"SELECT participant, substr(leg_id, 1, {PAYMENT_ID_BYTES}) AS payment, currency, sum({column}) AS net "  # noqa: S608 - constants
            "FROM entries GROUP BY participant, payment, currency HAVING net != 0"
        )
        return {(participant, payment, currency): net for participant, payment, currency, net in rows}
    finally:
        database.close()
