"""Key-encryption keys (KEKs): the versions of the key that wraps every account's data key.

Two stores: a file sealed by a passphrase (here), and a hardware module (`hsm`). A version is *active* (wraps new keys),
*retiring* (still unwraps, while a rotation re-wraps) or *retired* (its key was destroyed).
"""

from __future__ import annotations

import dataclasses
import json
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from argon2.low_level import Type, hash_secret_raw

from hutong_contract.secret import Secret
from tokenization.errors import VaultDamagedError, WrongPassphraseError
from tokenization.suite import KEY_BYTES, Aead, SealBrokenError, Suite

FORMAT: Final = 1
SALT_BYTES: Final = 16
FILE_BYTES_MAX: Final = 1 << 20
"""Most bytes of a key file; a larger file is refused."""


@dataclass(frozen=True, slots=True)
class KdfCost:
    """What guessing one passphrase costs (argon2id)."""

    passes: int = 3
    memory_kib: int = 65_536
    lanes: int = 1


@dataclass(frozen=True, slots=True)
class KekVersion:
    """One version, without its key."""

    version: int
    state: str
    """`active`, `retiring` or `retired`."""
    created_us: int
    retired_us: int = 0


class KekStore(Protocol):
    """A store of KEKs. Wrapping and unwrapping are safe to call from several threads."""

    name: str
    """`file` or `pkcs11`."""
    suite_name: str
    """The suite that it was made for."""

    def versions(self) -> list[KekVersion]:
        """All versions, oldest first."""
        ...

    def active(self) -> int:
        """The version that wraps new keys."""
        ...

    def wrap(self, version: int, key: bytes, aad: bytes) -> bytes:
        """Seals a data key: 60 bytes."""
        ...

    def wrap_many(self, version: int, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """`wrap` for pairs of data key and aad."""
        ...

    def unwrap(self, version: int, wrapped: bytes, aad: bytes) -> bytes:
        """Opens a data key. Raises SealBrokenError, also for a version that is gone."""
        ...

    def add_version(self, now_us: int) -> int:
        """Makes a new active version, durably; the former one is retiring. Returns its number."""
        ...

    def retire(self, version: int, now_us: int) -> None:
        """Destroys a retiring version's key, durably."""
        ...

    def reload(self) -> None:
        """Reads again what another process may have written."""
        ...

    def seal_key(self) -> bytes:
        """The key of the vault file's seal; the same for all versions."""
        ...


def _derive(passphrase: Secret[str], salt: bytes, cost: KdfCost) -> bytes:
    return hash_secret_raw(
        passphrase.reveal().encode(), salt, cost.passes, cost.memory_kib, cost.lanes, KEY_BYTES, Type.ID
    )


def write_durably(path: Path, data: bytes) -> None:
    """Replaces a file atomically: after a crash it has its old or its new contents. Only its owner can read it."""
    fresh = path.with_name(path.name + ".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class FileKeks:
    """KEKs in one file, sealed under a key derived from a passphrase."""

    name = "file"

    def __init__(self, path: Path, suite: Suite, head: dict[str, object], sealing: Aead) -> None:
        """Use `create` or `open`."""
        self.suite_name = suite.name
        self._path = path
        self._suite = suite
        self._head = head
        self._sealing = sealing
        self._lock = threading.Lock()
        self._versions: dict[int, KekVersion] = {}
        self._keys: dict[int, bytes] = {}
        self._ciphers: dict[int, Aead] = {}
        self._seal_key = b""

    @classmethod
    def create(cls, path: Path, suite: Suite, passphrase: Secret[str], now_us: int, cost: KdfCost) -> FileKeks:
        """A new file with version 1."""
        salt = os.urandom(SALT_BYTES)
        head: dict[str, object] = {
            "format": FORMAT, "suite": suite.name, "kdf": "argon2id", "salt": salt.hex(), **dataclasses.asdict(cost),
        }  # fmt: skip
        keks = cls(path, suite, head, suite.cipher(_derive(passphrase, salt, cost)))
        keks._seal_key = os.urandom(KEY_BYTES)
        keks.add_version(now_us)
        return keks

    @classmethod
    def open(cls, path: Path, suite: Suite, passphrase: Secret[str]) -> FileKeks:
        """Raises WrongPassphraseError, VaultDamagedError."""
        head, _ = _read(path)
        try:
            cost = KdfCost(int(str(head["passes"])), int(str(head["memory_kib"])), int(str(head["lanes"])))
            salt = bytes.fromhex(str(head["salt"]))
            if not 8 * cost.lanes <= cost.memory_kib <= 1 << 22 or not 0 < cost.passes < 100 or not 0 < cost.lanes < 64:
                raise ValueError
        except ValueError:
            raise VaultDamagedError(f"{path} asks for an impossible key derivation; restore it from a backup") from None
        keks = cls(path, suite, head, suite.cipher(_derive(passphrase, salt, cost)))
        keks.reload()
        return keks

    def rename(self, path: Path) -> None:
        """Gives the file its final name; fails if a file of that name exists."""
        self._path.replace(path)
        self._path = path

    def versions(self) -> list[KekVersion]:
        """All versions, oldest first."""
        return [self._versions[number] for number in sorted(self._versions)]

    def active(self) -> int:
        """The newest version."""
        return max(self._versions)

    def wrap(self, version: int, key: bytes, aad: bytes) -> bytes:
        """Seals a data key."""
        return self._ciphers[version].seal(key, aad)

    def wrap_many(self, version: int, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """`wrap` for pairs of data key and aad."""
        return self._ciphers[version].seal_many(items)

    def unwrap(self, version: int, wrapped: bytes, aad: bytes) -> bytes:
        """Opens a data key. Raises SealBrokenError."""
        cipher = self._ciphers.get(version)
        if cipher is None:
            raise SealBrokenError
        return cipher.open(wrapped, aad)

    def add_version(self, now_us: int) -> int:
        """Makes a new active version."""
        with self._lock:
            number = max(self._versions, default=0) + 1
            versions = {
                old.version: dataclasses.replace(old, state="retiring") if old.state == "active" else old
                for old in self._versions.values()
            }
            versions[number] = KekVersion(number, "active", now_us)
            self._save(versions, {**self._keys, number: os.urandom(KEY_BYTES)})
        return number

    def retire(self, version: int, now_us: int) -> None:
        """Destroys a retiring version's key: the file is written without it."""
        with self._lock:
            old = self._versions[version]
            if old.state == "active":
                raise ValueError("the active version cannot be retired; rotate first")
            versions = {**self._versions, version: dataclasses.replace(old, state="retired", retired_us=now_us)}
            self._save(versions, {number: key for number, key in self._keys.items() if number != version})

    def reload(self) -> None:
        """Reads the file. Raises WrongPassphraseError, VaultDamagedError."""
        head, sealed = _read(self._path)
        try:
            plain = self._sealing.open(sealed, _aad(head))
        except SealBrokenError:
            raise WrongPassphraseError(
                f"the passphrase does not open {self._path}, or the file was changed; nothing was done. "
                "Give the passphrase in HUTONG_PASSPHRASE or restore the file from a backup"
            ) from None
        body = json.loads(plain)
        with self._lock:
            self._seal_key = bytes.fromhex(body["seal"])
            self._adopt(
                {int(fields["version"]): KekVersion(**fields) for fields in body["versions"]},
                {int(number): bytes.fromhex(key) for number, key in body["keys"].items()},
            )

    def seal_key(self) -> bytes:
        """The key of the vault file's seal."""
        return self._seal_key

    def _adopt(self, versions: dict[int, KekVersion], keys: dict[int, bytes]) -> None:
        self._versions, self._keys = versions, keys
        self._ciphers = {number: self._suite.cipher(key) for number, key in keys.items()}

    def _save(self, versions: dict[int, KekVersion], keys: dict[int, bytes]) -> None:
        body = {
            "versions": [dataclasses.asdict(version) for version in versions.values()],
            "seal": self._seal_key.hex(),
            "keys": {str(number): key.hex() for number, key in keys.items()},
        }
        sealed = self._sealing.seal(json.dumps(body).encode(), _aad(self._head))
        write_durably(self._path, json.dumps({**self._head, "sealed": sealed.hex()}).encode())
        self._adopt(versions, keys)


def suite_name_of(path: Path) -> str:
    """The crypto suite of a key file. Raises VaultDamagedError."""
    return str(_read(path)[0]["suite"])


def _aad(head: Mapping[str, object]) -> bytes:
    return json.dumps(head, sort_keys=True).encode()


def _read(path: Path) -> tuple[dict[str, object], bytes]:
    try:
        with path.open("rb") as file:
            text = file.read(FILE_BYTES_MAX)
        fields = json.loads(text)
        # One spelling only, so that no bit can change unseen.
        if json.dumps(fields).encode() != text:
            raise ValueError
        written = fields.pop("sealed")
        sealed = bytes.fromhex(written)
        if (
            sealed.hex() != written
            or fields["format"] != FORMAT
            or not {"suite", "salt", "passes", "memory_kib", "lanes"} <= fields.keys()
        ):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise VaultDamagedError(f"{path} is missing or damaged; restore it from a backup") from None
    return fields, sealed
