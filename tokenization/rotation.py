"""Rotates the KEK while payments run: makes a new version, re-wraps every data key in small jobs, destroys the old
version.

Each step is durable and can be repeated, so an interrupted rotation continues at the next start: the vault's `rotating`
mark stays until the last data key is wrapped by the active version. Resolving never needs a KEK, so it never waits.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from hutong_contract.errors import HutongError
from tokenization import purposes as purpose_keys
from tokenization import records
from tokenization.keyring import KekStore, KekVersion
from tokenization.records import ACCOUNT_HEAD, WRAPPED_BYTES
from tokenization.store import Session
from tokenization.suite import Mac
from tokenization.vault import Vault
from tokenization.writing import Change, Writes

CHUNK: Final = 1_000
"""Accounts per job: a few milliseconds of the GIL, so that payments are not delayed noticeably."""
SWITCH_INTERVAL_S: Final = 0.001
"""Python's thread switch interval during a rotation, in seconds."""
_WRAPPED_AT: Final = ACCOUNT_HEAD.size - WRAPPED_BYTES


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """The KEK's versions, and what a rotation has left to do."""

    store: str
    suite: str
    versions: tuple[KekVersion, ...]
    active: int
    accounts: int
    remaining: int
    rotating: bool


class Rotation:
    """Rotations of one vault; at most one runs at a time."""

    def __init__(self, vault: Vault, clock_us: Callable[[], int]) -> None:
        self._vault = vault
        self._keks: KekStore = vault.keks
        self._row_mac: Mac = vault.purposes.row
        self._clock_us = clock_us
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._running = False
        self._again = False
        self._cursor = 0

    def begin(self, change: Change) -> int:
        """Makes a new version active for all new keys and starts re-wrapping the others. Returns its number.

        Raises HutongError(VAULT_UNAVAILABLE). Called during a rotation, the running one simply goes further.
        """

        def job(session: Session) -> int:
            self._keks.reload()
            version = self._keks.add_version(change.now_us)
            self._activate(session, version)
            Writes(self._row_mac).event(session, 0, 0, "key_rotated", change)
            return version

        version = self._vault.write(job)
        self.resume()
        return version

    def resume(self) -> None:
        """Continues an interrupted rotation in a thread of its own; does nothing if there is none."""
        with self._lock:
            self._cursor = 0
            if self._running:
                self._again = True  # The running thread begins anew, for the newer version.
                return
            self._running = self._again = True
            self._thread = threading.Thread(target=self._run, name="vault-rotation", daemon=True)
            self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Waits until the running rotation has ended. Returns whether it has."""
        thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return thread is None or not thread.is_alive()

    @property
    def cursor(self) -> int:
        """The last account that the running rotation has looked at."""
        return self._cursor

    def stop(self) -> None:
        """Ends the thread after its current chunk; the rest is done at the next start."""
        self._stop.set()
        self.wait(60)

    def status(self) -> KeyStatus:
        """Counts what is left. Reads the whole table of accounts."""

        def query(session: Session) -> tuple[int, int, dict[str, int]]:
            meta: dict[str, int] = dict(session.rows("SELECT name, value FROM meta"))
            counted = "SELECT COUNT(*), COUNT(CASE WHEN kek <> ? THEN 1 END) FROM accounts"
            accounts, remaining = session.rows(counted, (meta["active_kek"],))[0]
            return accounts, remaining, meta

        accounts, remaining, meta = self._vault.read(query)
        if meta["active_kek"] != self._keks.active():
            self._keks.reload()
        suite = self._vault.purposes.suite.name
        versions = tuple(self._keks.versions())
        rotating = bool(meta["rotating"])
        return KeyStatus(self._keks.name, suite, versions, meta["active_kek"], accounts, remaining, rotating)

    def _activate(self, session: Session, version: int) -> None:
        """Makes this version wrap new keys, and re-wraps the service's own keys."""
        for name, kek, wrapped in session.rows("SELECT name, kek, wrapped FROM purposes"):
            key = self._keks.unwrap(kek, wrapped, purpose_keys.aad_of(name, kek))
            again = self._keks.wrap(version, key, purpose_keys.aad_of(name, version))
            session.run("UPDATE purposes SET kek = ?, wrapped = ? WHERE name = ?", (version, again, name))
        session.run("UPDATE meta SET value = ? WHERE name = 'active_kek'", (version,))
        session.run("UPDATE meta SET value = 1 WHERE name = 'rotating'")

    def _run(self) -> None:
        # Two busy threads hand the interpreter over each 5 ms by default, and payments would wait that long again and
        # again while a chunk is worked on. Shorter turns serve both.
        usual = sys.getswitchinterval()
        sys.setswitchinterval(min(usual, SWITCH_INTERVAL_S))
        try:
            while self._goes_on():
                while not self._stop.is_set() and self._vault.write(self._step):
                    continue
        except HutongError:
            # The vault cannot be written now: the mark stays, and the next start or rotation goes on.
            self._running = False
        finally:
            sys.setswitchinterval(usual)

    def _goes_on(self) -> bool:
        """Whether there may be work: at first, and after another request. Otherwise the thread ends."""
        with self._lock:
            goes_on, self._again = self._again and not self._stop.is_set(), False
            self._running = goes_on
            return goes_on

    def _step(self, session: Session) -> bool:
        """One chunk; False when nothing is left."""
        meta: dict[str, int] = dict(session.rows("SELECT name, value FROM meta"))
        active = meta["active_kek"]
        if self._keks.active() != active:
            self._keks.reload()
        if self._keks.active() > active:
            # Killed between making the version and activating it.
            self._activate(session, self._keks.active())
            return True  # Durable before anything else: an old version is destroyed only when nothing needs it.
        if not meta["rotating"]:
            return False
        rows = session.accounts_after(self._cursor, CHUNK)
        if not rows:
            return self._finish(session, active)
        changed = self._rewrapped([row for row in rows if row[4] != active], active)
        if changed:
            # One statement for all: between statements the interpreter would be given away to the resolving thread.
            session.run(_update_many(len(changed)), [*(value for row in changed for value in row), active])
        self._cursor = rows[-1][0]
        return True

    def _rewrapped(self, rows: list[tuple[Any, ...]], active: int) -> list[tuple[int, bytes, bytes]]:
        """Id, record and tag of each row, its data key wrapped by the active version."""
        keys = [
            (self._keks.unwrap(row[4], _wrapped(row), records.key_aad(row[1], row[4])), records.key_aad(row[1], active))
            for row in rows
            if _wrapped(row) != records.NO_WRAPPED_KEY
        ]
        fresh = iter(self._keks.wrap_many(active, keys))
        changed = []
        for number, ref, blind, version, _, record in rows:
            erased = record[_WRAPPED_AT : ACCOUNT_HEAD.size] == records.NO_WRAPPED_KEY
            wrapped = records.NO_WRAPPED_KEY if erased else next(fresh)
            record = record[:_WRAPPED_AT] + wrapped + record[ACCOUNT_HEAD.size :]
            tag = records.account_tag(self._row_mac, (number, ref, blind, version, active, record))
            changed.append((number, record, tag))
        return changed

    def _finish(self, session: Session, active: int) -> bool:
        """Ends a rotation once every row is under the active version; accounts added meanwhile already are."""
        if session.rows("SELECT 1 FROM accounts WHERE kek <> ? LIMIT 1", (active,)):
            self._cursor = 0
            return True
        session.run("UPDATE meta SET value = 0 WHERE name = 'rotating'")
        for version in self._keks.versions():
            if version.state == "retiring":
                self._keks.retire(version.version, self._clock_us())
        return False


def _wrapped(row: tuple[Any, ...]) -> bytes:
    record: bytes = row[5]
    return record[_WRAPPED_AT : ACCOUNT_HEAD.size]


def _update_many(count: int) -> str:
    values = ", ".join(["(?, ?, ?)"] * count)
    return (
        f"WITH fresh (id, record, tag) AS (VALUES {values}) "  # noqa: S608 - placeholders only
        "UPDATE accounts SET kek = ?, record = fresh.record, tag = fresh.tag FROM fresh WHERE accounts.id = fresh.id"
    )
