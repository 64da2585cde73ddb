"""The seal of a vault file that is closed: no bit of it can change unnoticed.

The last process to close a vault computes a MAC over the whole file and writes it beside the file. The next process to
open it checks the seal first, and removes it before anything is written. A vault whose process was killed has no seal;
then the tag of every row and the database's full check replace it, which takes longer.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import os
from pathlib import Path
from typing import Final

from tokenization.errors import VaultDamagedError
from tokenization.keyring import write_durably
from tokenization.suite import Suite

_CHUNK_BYTES: Final = 1 << 20


class Seal:
    """The seal of one vault file, and the lock by which a process knows that it is the last one to close it."""

    def __init__(self, vault: Path, key: bytes, suite: Suite) -> None:
        self._vault = vault
        self._path = vault.with_name(vault.name + ".seal")
        self._key = key
        self._suite = suite
        self._descriptor = os.open(vault.with_name(vault.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)

    def check(self) -> bool:
        """Whether the file is sealed and unchanged; False where there is no seal. Raises VaultDamagedError."""
        try:
            expected = self._path.read_bytes()
        except FileNotFoundError:
            return False
        if not hmac.compare_digest(expected, self._compute()):
            if not self._path.exists():
                return False  # Another process broke the seal while this one was reading, and has written since.
            raise VaultDamagedError(
                f"{self._vault} was changed since it was closed; nothing was done. Restore it from a backup"
            )
        return True

    def enter(self) -> None:
        """Registers this process among those that have the vault open."""
        fcntl.flock(self._descriptor, fcntl.LOCK_SH)

    def break_seal(self) -> None:
        """Removes the seal, before the first write."""
        self._path.unlink(missing_ok=True)

    def leave(self) -> None:
        """Seals the file if no other process has it open. The database must be closed already."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._descriptor)
            return
        # A log that is still there was left by another process's crash: its rows are not in the file yet.
        log = self._vault.with_name(self._vault.name + "-wal")
        if not log.exists() or log.stat().st_size == 0:
            write_durably(self._path, self._compute())
        os.close(self._descriptor)

    def forget(self) -> None:
        """Closes without sealing."""
        os.close(self._descriptor)

    def _compute(self) -> bytes:
        digest = hashlib.new(self._suite.digest)
        with self._vault.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
        return self._suite.mac_once(self._key, digest.digest())
