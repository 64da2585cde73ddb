"""The vault: rows on disk, their image in memory, and the one writer.

Writing: jobs wait in a bounded queue. One thread drains it, runs each job inside a savepoint of one exclusive
transaction, commits once for all of them, updates memory, and only then answers. Reading: from memory only; before each
batch `refresh` asks the database, without touching the disk, whether anything was committed.
"""

from __future__ import annotations

import logging
import queue
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Final, TypeVar

from hutong_contract.errors import HutongError, Reason
from tokenization import records, schema
from tokenization.errors import VaultDamagedError
from tokenization.failures import Failures
from tokenization.index import Index
from tokenization.keyring import KekStore
from tokenization.purposes import Purposes
from tokenization.store import Session, Store, StoreError

_log = logging.getLogger(__name__)
Result = TypeVar("Result")
JOBS_MAX: Final = 10_000
"""Jobs that may wait for the writer; beyond them callers are refused."""
JOBS_PER_COMMIT: Final = 256
"""Jobs that share one commit: enough to hide the disk, few enough to keep the first from waiting long."""
JOB_TIMEOUT_S: Final = 120.0
"""Longest wait for a job, in seconds: a large batch on a slow disk."""
ROWS_PER_READ: Final = 10_000
_SIMPLE: Final = ("policies", "requestors", "codes", "aliases")


class Vault:
    """Rows, their image and the writer. Thread-safe."""

    def __init__(self, store: Store, keks: KekStore, purposes: Purposes, *, check_tags: bool) -> None:
        """Loads everything. Raises VaultDamagedError. `check_tags` is off only where a seal proved the whole file."""
        self.store = store
        self.keks = keks
        self.purposes = purposes
        self.index = Index()
        self.failures = Failures()
        self._applying = threading.Lock()
        self._cursors = dict.fromkeys(schema.COLUMNS, 0)
        self._jobs: queue.Queue[tuple[Callable[[Session], Any], Future[Any]] | None] = queue.Queue(JOBS_MAX)
        self._thread: threading.Thread | None = None
        self._closing = False
        self._behind = False
        with self._applying:
            try:
                self._catch_up(check_tags=check_tags, starting=True)
                self._check_counters()
            except (StoreError, TypeError, ValueError, LookupError, AssertionError, struct.error) as error:
                raise VaultDamagedError(f"the vault cannot be read ({error!r}); restore it from a backup") from error

    # Reading.

    def refresh(self, now_us: int) -> None:
        """Lets memory see everything committed so far. Raises StoreError where that cannot be read."""
        with self._applying:
            if self.store.changed() or self._behind:
                self._follow_up()
            self.index.forget_codes(now_us)

    def _follow_up(self) -> None:
        """Updates memory; if that fails, the next call tries again before it answers anything."""
        self._behind = True
        try:
            self._catch_up()
        except VaultDamagedError as error:
            raise StoreError(str(error)) from error
        self._behind = False

    def read(self, query: Callable[[Session], Result]) -> Result:
        """Runs a query on the database. Raises HutongError(VAULT_UNAVAILABLE)."""
        try:
            with self.store.looking() as session:
                return query(session)
        except StoreError:
            raise HutongError(Reason.ERROR_REASON_VAULT_UNAVAILABLE) from None

    def reopen(self, store: Store) -> None:
        """Goes on with another connection to the same database."""
        with self._applying:
            self.store.close()
            self.store = store

    def _catch_up(self, *, check_tags: bool = True, starting: bool = False) -> None:
        """Applies rows after the cursors, table by table, in one consistent view."""
        with self.store.reading() as session:
            for table in ("policies", "requestors"):
                self._follow(session, table, check_tags=check_tags)
            self._follow_accounts(session, check_tags=check_tags)
            self._follow_keys(session, check_tags=check_tags)
            for table in ("codes", "aliases", "failures"):
                self._follow(session, table, check_tags=check_tags)
            self._follow_events(session, check_tags=check_tags, starting=starting)

    def _check_counters(self) -> None:
        """Checks the counters of ids, which must never be assigned twice."""
        with self.store.reading() as session:
            counters: dict[str, int] = dict(session.rows("SELECT name, value FROM meta"))
        for table, cursor in self._cursors.items():
            if counters[table] < cursor:
                raise _damaged("meta", cursor)

    def _follow(self, session: Session, table: str, *, check_tags: bool) -> None:
        apply = {
            "policies": self.index.apply_policies,
            "requestors": self.index.apply_requestors,
            "codes": self.index.apply_codes,
            "aliases": self.index.apply_aliases,
            "failures": self.failures.apply,
        }[table]
        statement = schema.select(table, "id > ? ORDER BY id LIMIT ?")
        while rows := session.rows(statement, (self._cursors[table], ROWS_PER_READ)):
            if check_tags and table in _SIMPLE:
                for row in rows:
                    self._check(row, records.plain_tag(self.purposes.row, table, row[:-1]))
            apply(rows)
            self._cursors[table] = rows[-1][0]

    def _follow_accounts(self, session: Session, *, check_tags: bool) -> None:
        statement = schema.select("accounts", "id > ? ORDER BY id LIMIT ?")
        while rows := session.rows(statement, (self._cursors["accounts"], ROWS_PER_READ)):
            if check_tags:
                self._check_accounts(rows)
            self.index.apply_accounts(rows)
            self._cursors["accounts"] = rows[-1][0]

    def _follow_keys(self, session: Session, *, check_tags: bool) -> None:
        statement = schema.select("keys", "id > ? ORDER BY id LIMIT ?")
        while rows := session.rows(statement, (self._cursors["keys"], ROWS_PER_READ)):
            for row in rows:
                if check_tags:
                    self._check(row, records.key_tag(self.purposes.row, row))
                self.index.apply_key(row)
            self._cursors["keys"] = rows[-1][0]

    def _follow_events(self, session: Session, *, check_tags: bool, starting: bool) -> None:
        """Reads again the known rows that events name as changed."""
        statement = schema.select("events", "id > ? ORDER BY id LIMIT ?")
        accounts: set[int] = set()
        keys: set[int] = set()
        while rows := session.rows(statement, (self._cursors["events"], ROWS_PER_READ)):
            if check_tags:
                for row in rows:
                    self._check(row, records.plain_tag(self.purposes.row, "events", row[:-1]))
            accounts.update(row[1] for row in rows)
            keys.update(row[2] for row in rows if row[2])
            self._cursors["events"] = self.index.last_event = rows[-1][0]
        if starting:
            return  # At start the rows themselves were read just now, in the same view.
        for number in sorted(keys):
            for row in session.rows(schema.select("keys", "id = ?"), (number,)):
                self._check(row, records.key_tag(self.purposes.row, row))
                self.index.apply_key(row)
        for number in sorted(accounts):
            for row in session.rows(schema.select("accounts", "id = ?"), (number,)):
                self._check_accounts([row])
                self.index.apply_account(row)

    def _check_accounts(self, rows: list[tuple[Any, ...]]) -> None:
        row_mac, tag = self.purposes.row, records.account_tag
        for row in rows:
            if tag(row_mac, row) != row[6]:
                raise _damaged("accounts", row[0])

    @staticmethod
    def _check(row: tuple[Any, ...], tag: bytes) -> None:
        if row[-1] != tag:
            raise _damaged("a table", row[0])

    # Writing.

    def start(self) -> None:
        """Starts the writer."""
        self._thread = threading.Thread(target=self._write_loop, name="vault-writer", daemon=True)
        self._thread.start()

    def submit(self, job: Callable[[Session], Result]) -> Future[Result]:
        """Queues a job for the writer. Its future ends when the job is durable and memory has caught up."""
        future: Future[Result] = Future()
        if self._closing:
            raise HutongError(Reason.ERROR_REASON_VAULT_UNAVAILABLE)
        try:
            self._jobs.put_nowait((job, future))
        except queue.Full:
            raise HutongError(Reason.ERROR_REASON_VAULT_UNAVAILABLE) from None
        return future

    def write(self, job: Callable[[Session], Result]) -> Result:
        """Runs a job and waits for it. Raises what the job raised, or HutongError(VAULT_UNAVAILABLE)."""
        try:
            return self.submit(job).result(JOB_TIMEOUT_S)
        except TimeoutError:
            raise HutongError(Reason.ERROR_REASON_VAULT_UNAVAILABLE) from None

    def close(self) -> None:
        """Finishes queued jobs and closes the database."""
        self._closing = True
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(JOB_TIMEOUT_S)
        with self._applying:
            self.store.close()

    def _write_loop(self) -> None:
        while True:
            batch = [self._jobs.get()]
            while len(batch) < JOBS_PER_COMMIT and not self._jobs.empty():
                batch.append(self._jobs.get())
            self._write([item for item in batch if item is not None])
            if None in batch:
                return

    def _write(self, batch: list[tuple[Callable[[Session], Any], Future[Any]]]) -> None:
        outcomes: list[tuple[Future[Any], Any, BaseException | None]] = []
        try:
            with self.store.writing() as session:
                for job, future in batch:
                    outcomes.append((future, *_run(session, job)))
            with self._applying:
                self._behind = True
                self.store.changed()
                self._follow_up()
        except Exception as failure:  # noqa: BLE001 - the writer must outlive whatever went wrong; callers are told
            if not isinstance(failure, StoreError):
                _log.exception("the vault's writer failed")
            refused = HutongError(Reason.ERROR_REASON_VAULT_UNAVAILABLE)
            outcomes = [(future, None, refused) for _, future in batch]
        for future, result, error in outcomes:
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)


def _run(session: Session, job: Callable[[Session], Any]) -> tuple[Any, BaseException | None]:
    """Runs one job in its savepoint, so that a refusal undoes this job only."""
    session.run("SAVEPOINT job")
    try:
        result = job(session)
    except StoreError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a job raises belongs to its caller, not to the batch
        session.run("ROLLBACK TO SAVEPOINT job")
        session.run("RELEASE SAVEPOINT job")
        return None, error
    session.run("RELEASE SAVEPOINT job")
    return result, None


def _damaged(table: str, number: int) -> VaultDamagedError:
    return VaultDamagedError(
        f"row {number} of {table} in the vault was changed outside of Hutong; nothing was done. "
        "Restore the vault from a backup"
    )
