"""Creating and opening a vault folder. All checks are done before a byte is written.

    kek.sealed    the key-encryption keys, sealed by a passphrase (absent if a hardware module keeps them)
    vault.db      the vault; its seal stands beside it while it is closed
    passphrase    random, if nobody gave one; mode 0600

Order of checks: the key file (wrong passphrase), the seal (any bit changed since the last close), all rows with their
tags and, without a seal, the database's full check. Only then is the file opened for writing and the seal broken.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hutong_contract.extras import needs
from hutong_contract.secret import Secret
from tokenization import purposes as purpose_keys
from tokenization import schema, store
from tokenization.errors import VaultDamagedError, VaultError
from tokenization.keyring import FileKeks, KdfCost, KekStore, suite_name_of
from tokenization.passphrase import find_passphrase
from tokenization.purposes import Purposes
from tokenization.requestors import BUILT_IN
from tokenization.seal import Seal
from tokenization.store import Session, SqliteStore, Store, StoreError
from tokenization.suite import Suite, suite_named
from tokenization.vault import Vault
from tokenization.writing import Writes

VAULT_FILE: Final = "vault.db"
KEK_FILE: Final = "kek.sealed"
OPENING_WAIT_S: Final = 60.0
"""How long to wait while another process opens the same vault: several times what a million accounts need."""
OPENING_POLL_S: Final = 0.02
_CREATING: Final = ".creating"


@dataclass(frozen=True, slots=True)
class OpenVault:
    """A vault ready for work, and its seal."""

    vault: Vault
    seal: Seal | None

    def close(self) -> None:
        """Closes the vault, and seals it where this process is the last to leave."""
        self.vault.close()
        if self.seal is not None:
            self.seal.leave()


def open_folder(
    folder: Path,
    passphrase: Secret[str] | None,
    suite_name: str | None,
    clock_us: Callable[[], int],
    cost: KdfCost,
    keks: KekStore | None,
) -> OpenVault:
    """Opens the vault in a folder, created where the folder has none. Raises VaultError; then nothing was changed."""
    folder.mkdir(parents=True, exist_ok=True)
    with _exclusively(folder):
        try:
            exists = _settle_creation(folder, keks)
            if keks is None:
                keks = _file_keks(folder, passphrase, suite_name, clock_us, cost, exists=exists)
            suite = suite_named(keks.suite_name)
            if not exists:
                _create(folder, keks, suite, clock_us())
            return _open(folder / VAULT_FILE, keks, suite)
        except (StoreError, sqlite3.Error) as error:
            raise VaultError(f"the vault in {folder} cannot be opened: {error}") from error
        except ValueError as error:
            raise VaultError(str(error)) from error


def open_postgres(
    conninfo: str,
    folder: Path,
    passphrase: Secret[str] | None,
    suite_name: str | None,
    clock_us: Callable[[], int],
    cost: KdfCost,
    keks: KekStore | None,
) -> OpenVault:
    """Opens the vault that a PostgreSQL database holds; `folder` has the key file, which every process on it needs.

    Every row's tag is checked. Raises VaultError.
    """
    with needs("postgres"):
        from tokenization.store_postgres import PostgresStore

    folder.mkdir(parents=True, exist_ok=True)
    with _exclusively(folder):
        try:
            exists = (folder / KEK_FILE).exists()
            if keks is None:
                keks = _file_keks(folder, passphrase, suite_name, clock_us, cost, exists=exists)
            suite = suite_named(keks.suite_name)
            opened = PostgresStore(conninfo)
            try:
                with opened.writing() as session:
                    if opened.create():
                        populate(session, keks, suite, clock_us())
                if isinstance(keks, FileKeks) and not exists:
                    keks.rename(folder / KEK_FILE)
                vault = load(opened, keks, suite, check_tags=True)
            except BaseException:
                opened.close()
                raise
        except StoreError as error:
            raise VaultError(f"the vault's database cannot be used: {error}") from error
    vault.start()
    return OpenVault(vault, None)


def populate(session: Session, keks: KekStore, suite: Suite, now_us: int) -> None:
    """Writes the first rows of a new vault: counters, the service's own keys, the built-in requestors."""
    session.run_many("INSERT INTO meta (name, value) VALUES (?, 0)", [(table,) for table in schema.COLUMNS])
    version, wrapped = purpose_keys.new_keys(keks)
    session.run_many(
        "INSERT INTO meta (name, value) VALUES (?, ?)",
        [
            ("active_kek", version),
            ("rotating", 0),
            ("created_us", now_us),
            (schema.VERSION_NAME, schema.SCHEMA_VERSION),
        ],
    )
    session.run_many(
        "INSERT INTO purposes (name, kek, wrapped) VALUES (?, ?, ?)",
        [(name, version, key) for name, key in wrapped.items()],
    )
    keys = purpose_keys.unwrap(keks, {name: (version, key) for name, key in wrapped.items()})
    writes = Writes(Purposes(keys, suite).row)
    for requestor in BUILT_IN:
        writes.requestor(session, requestor)


def load(opened: Store, keks: KekStore, suite: Suite, *, check_tags: bool) -> Vault:
    """Reads a whole vault into memory. Raises VaultDamagedError."""
    try:
        with opened.reading() as session:
            rows = session.rows("SELECT name, kek, wrapped FROM purposes")
    except StoreError as error:
        raise VaultDamagedError(f"the vault cannot be read ({error}); restore it from a backup") from error
    keys = purpose_keys.unwrap(keks, {name: (kek, wrapped) for name, kek, wrapped in rows})
    return Vault(opened, keks, Purposes(keys, suite), check_tags=check_tags)


@contextlib.contextmanager
def _exclusively(folder: Path) -> Iterator[None]:
    """A lock, so that one process at a time creates or opens the vault."""
    descriptor = os.open(folder / "opening.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        until = time.monotonic() + OPENING_WAIT_S
        while not _locked(descriptor):
            if time.monotonic() > until:
                raise VaultError(
                    f"another process has been opening {folder} for {OPENING_WAIT_S:.0f} s; look at it first"
                )
            time.sleep(OPENING_POLL_S)
        yield
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _settle_creation(folder: Path, keks: KekStore | None) -> bool:
    """Whether there is a vault. Finishes or undoes an interrupted creation; refuses half a vault."""
    vault, kek = folder / VAULT_FILE, folder / KEK_FILE
    made = vault.with_name(VAULT_FILE + _CREATING)
    has_kek = keks is not None or kek.exists()
    if kek.exists() and not vault.exists() and made.exists():
        made.replace(vault)
    if vault.exists() and has_kek:
        return True
    if vault.exists() or kek.exists():
        missing = KEK_FILE if vault.exists() else VAULT_FILE
        otherwise = ", or name the hardware module that keeps the keys" if vault.exists() else ""
        raise VaultDamagedError(f"{folder / missing} is missing; restore it from a backup{otherwise}. Nothing was done")
    return False


def _file_keks(
    folder: Path,
    passphrase: Secret[str] | None,
    suite_name: str | None,
    clock_us: Callable[[], int],
    cost: KdfCost,
    *,
    exists: bool,
) -> FileKeks:
    """The key file, opened; or a new one, under its provisional name."""
    path = folder / KEK_FILE
    if exists:
        suite = suite_named(suite_name_of(path))
        if suite_name is not None and suite_name != suite.name:
            raise VaultError(f"the vault in {folder} uses the suite {suite.name!r}, not {suite_name!r}")
        return FileKeks.open(path, suite, passphrase or find_passphrase(folder, create=False))
    given = passphrase or find_passphrase(folder, create=True)
    new = folder / (KEK_FILE + _CREATING)
    return FileKeks.create(new, suite_named(suite_name or "international"), given, clock_us(), cost)


def _create(folder: Path, keks: KekStore, suite: Suite, now_us: int) -> None:
    """Creates a complete vault under a provisional name, then renames both files, the key file first."""
    made = folder / (VAULT_FILE + _CREATING)
    for suffix in ("", "-wal", "-shm"):
        made.with_name(made.name + suffix).unlink(missing_ok=True)
    store.create(made)
    made.chmod(0o600)
    opened = SqliteStore(made)
    with opened.writing() as session:
        populate(session, keks, suite, now_us)
    opened.close()
    if isinstance(keks, FileKeks):
        keks.rename(folder / KEK_FILE)
    made.replace(folder / VAULT_FILE)


def _open(path: Path, keks: KekStore, suite: Suite) -> OpenVault:
    seal = Seal(path, keks.seal_key(), suite)
    try:
        seal.enter()
        sealed = seal.check()
        first = SqliteStore(path, read_only=True, at_rest=_is_at_rest(path))
        try:
            vault = load(first, keks, suite, check_tags=False) if sealed else _load_unsealed(path, first, keks, suite)
        except BaseException:
            first.close()
            raise
        seal.break_seal()
        vault.reopen(SqliteStore(path))
    except BaseException:
        seal.forget()
        raise
    vault.start()
    return OpenVault(vault, seal)


def _load_unsealed(path: Path, first: SqliteStore, keks: KekStore, suite: Suite) -> Vault:
    """Loads the rows while the database checks itself in another thread; only the loading needs the GIL."""
    with ThreadPoolExecutor(1) as beside:
        checking = beside.submit(_damage, path)
        try:
            vault = load(first, keks, suite, check_tags=True)
        finally:
            damage = checking.result()
    if damage:
        raise VaultDamagedError(f"{path} is damaged ({damage}); nothing was done. Restore it from a backup")
    return vault


def _damage(path: Path) -> str:
    checked = SqliteStore(path, read_only=True, at_rest=_is_at_rest(path))
    try:
        return checked.damage()
    finally:
        checked.close()


def _is_at_rest(path: Path) -> bool:
    """Whether no process has the file open and there is no write-ahead log, so that reading it leaves no file
    behind."""
    return not path.with_name(path.name + "-wal").exists()
