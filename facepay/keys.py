"""The face service's keys: a master key in one file, a key for each subject, a secret for each gallery epoch.

Subject keys and epoch secrets lie wrapped in `keys.db`, apart from the templates they protect, and are erased for
good by deleting their row (SQLite overwrites it: secure_delete). What derives from the master key (the capture key,
the last-four key) is never stored.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import sqlite3
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hutong_contract import stored_schema
from hutong_contract.capture import ServiceKey, key_id_of
from hutong_contract.secret import Secret

KEY_BYTES: Final = 32
_IV_BYTES: Final = 12
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS subject_key (person INTEGER PRIMARY KEY, wrapped BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS epoch (epoch INTEGER PRIMARY KEY, wrapped BLOB NOT NULL);
"""
STATEMENTS: Final = tuple(stored_schema.split(_SCHEMA))
VERSION: Final = 1
"""Of these tables, kept as the file's `user_version`; a file of another version is refused."""
DIGESTS: Final = {1: "566934b8ef6a50c5"}
"""Digests of the text of the tables, by version. A new text is a new version: add an entry, never change one."""


class KeyFileInvalid(Exception):  # noqa: N818 - it is what happened
    """The master key file is not one: put the right one back, or start with an empty folder."""


class Keyring:
    """Keys of one face service; safe from several threads."""

    def __init__(self, folder: Path, master: Secret[bytes] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._master = master or _master(folder / "face-master.key")
        self._wrap = AESGCM(self._derive(b"subject keys"))
        self._last_four = self._derive(b"last four")
        self.capture_key = x25519.X25519PrivateKey.from_private_bytes(self._derive(b"capture"))
        self._lock = threading.Lock()
        self._db = sqlite3.connect(folder / "keys.db", check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=DELETE")  # No write-ahead log in which an erased key would linger.
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("PRAGMA secure_delete=ON")
        try:
            stored_schema.prepare_sqlite(self._db, folder / "keys.db", VERSION, STATEMENTS)
        except stored_schema.SchemaError:
            self._db.close()
            raise

    @property
    def service_key(self) -> ServiceKey:
        """The public key to which terminals seal captures."""
        public = self.capture_key.public_key().public_bytes_raw()
        return ServiceKey(key_id_of(public), public)

    @property
    def name(self) -> str:
        """A name of this keyring, derived from the master key, for places that several services share. It reveals
        nothing of the key."""
        return self._derive(b"name")[:8].hex()

    def create(self, persons: Sequence[int]) -> list[AESGCM]:
        """New keys for new persons, durable when it returns."""
        keys = [AESGCM.generate_key(256) for _ in persons]
        rows = [(person, self._wrapped(key, b"subject%d" % person)) for person, key in zip(persons, keys, strict=True)]
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany("INSERT OR REPLACE INTO subject_key VALUES (?, ?)", rows)
            self._db.execute("COMMIT")
        return [AESGCM(key) for key in keys]

    def get(self, person: int) -> AESGCM | None:
        """A person's key; None where it was erased."""
        with self._lock:
            row = self._db.execute("SELECT wrapped FROM subject_key WHERE person = ?", (person,)).fetchone()
        return AESGCM(self._unwrapped(row[0], b"subject%d" % person)) if row else None

    def erase(self, person: int) -> None:
        """Destroys a person's key, so that whatever it sealed can no longer be read."""
        with self._lock:
            self._db.execute("DELETE FROM subject_key WHERE person = ?", (person,))

    def epoch(self) -> tuple[int, Secret[bytes]]:
        """The current gallery epoch and its secret; creates the first one."""
        with self._lock:
            row = self._db.execute("SELECT epoch, wrapped FROM epoch ORDER BY epoch DESC LIMIT 1").fetchone()
        if row is None:
            return self.next_epoch()
        return int(row[0]), Secret(self._unwrapped(row[1], b"epoch%d" % row[0]))

    def next_epoch(self) -> tuple[int, Secret[bytes]]:
        """A new epoch with a fresh secret."""
        secret = secrets.token_bytes(KEY_BYTES)
        with self._lock:
            number = int(self._db.execute("SELECT coalesce(max(epoch), 0) + 1 FROM epoch").fetchone()[0])
            wrapped = self._wrapped(secret, b"epoch%d" % number)
            self._db.execute("INSERT INTO epoch VALUES (?, ?)", (number, wrapped))
        return number, Secret(secret)

    def forget_epochs_before(self, epoch: int) -> None:
        """Destroys the secrets of earlier epochs."""
        with self._lock:
            self._db.execute("DELETE FROM epoch WHERE epoch < ?", (epoch,))

    def last_four_tag(self, last_four: str) -> bytes:
        """A keyed tag of four digits, by which rows are found without storing the digits."""
        return hmac.new(self._last_four, last_four.encode(), hashlib.sha256).digest()[:16]

    def close(self) -> None:
        """Closes the file."""
        self._db.close()

    def _derive(self, purpose: bytes) -> bytes:
        return HKDF(hashes.SHA256(), KEY_BYTES, None, b"hutong face " + purpose).derive(self._master.reveal())

    def _wrapped(self, key: bytes, name: bytes) -> bytes:
        initial = os.urandom(_IV_BYTES)
        return initial + self._wrap.encrypt(initial, key, name)

    def _unwrapped(self, wrapped: bytes, name: bytes) -> bytes:
        return self._wrap.decrypt(wrapped[:_IV_BYTES], wrapped[_IV_BYTES:], name)


def seal_row(key: AESGCM, plaintext: bytes, name: bytes) -> bytes:
    """Encrypts one stored value; `name` binds it to its place."""
    initial = os.urandom(_IV_BYTES)
    return initial + key.encrypt(initial, plaintext, name)


def open_row(key: AESGCM, sealed: bytes, name: bytes) -> bytes:
    """Decrypts it. Raises cryptography's InvalidTag where it is not what was sealed there."""
    return key.decrypt(sealed[:_IV_BYTES], sealed[_IV_BYTES:], name)


def _master(path: Path) -> Secret[bytes]:
    """Reads the master key, or makes it: 32 random bytes, readable by the owner alone."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        value = path.read_bytes()
        if len(value) != KEY_BYTES:
            raise KeyFileInvalid(f"{path} does not hold a key of {KEY_BYTES} bytes") from None
        return Secret(value)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())
    return Secret(path.read_bytes())
