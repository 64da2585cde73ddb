"""Key-encryption keys (KEKs) in a hardware module, through PKCS#11: created there, used there, never exported.

Needs the extra `hsm` (python-pkcs11) and the module's own library. A version is an AES-256 key with the label
`hutong-kek-N`; its id holds the time of its creation. Retiring a version destroys the key. The module is used to
register accounts, to read an account number, and to rotate; resolving payments does not need it.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Sequence
from typing import Any, Final

import pkcs11
from pkcs11 import Attribute, KeyType, Mechanism, ObjectClass

from hutong_contract.secret import Secret
from tokenization.errors import VaultError
from tokenization.keyring import KekVersion
from tokenization.suite import KEY_BYTES, NONCE_BYTES, TAG_BYTES, SealBrokenError

LABEL: Final = "hutong-kek-"
SEAL_LABEL: Final = "hutong-seal"
_ID: Final = struct.Struct(">q")
_SEAL_INPUT: Final = b"hutong vault file seal, version1"


class HsmKeks:
    """KEKs in one token of a PKCS#11 module. Implements keyring.KekStore for the international suite."""

    name = "pkcs11"
    suite_name = "international"

    def __init__(self, library: str, token_label: str, pin: Secret[str], now_us: int) -> None:
        """Opens a session; makes version 1 in an empty token. Raises VaultError where the module refuses."""
        self._lock = threading.RLock()
        self._keys: dict[int, Any] = {}
        self._made: dict[int, int] = {}
        self.is_new = False
        """Whether the module's token was empty, so that no other vault depends on its keys."""
        try:
            token = pkcs11.lib(library).get_token(token_label=token_label)
            self._session = token.open(rw=True, user_pin=pin.reveal())
            self.reload()
            if not self._keys:
                self.is_new = True
                self._generate(SEAL_LABEL, bytes(_ID.size))
                self.add_version(now_us)
        except (pkcs11.PKCS11Error, RuntimeError) as error:
            text = f"the key module {library}, token {token_label!r}, cannot be used ({type(error).__name__})"
            raise VaultError(f"{text}; check library, token label and PIN") from None

    def close(self) -> None:
        """Ends the session."""
        self._session.close()

    def versions(self) -> list[KekVersion]:
        """Versions whose key exists, oldest first."""
        newest = self.active()
        states = {number: "active" if number == newest else "retiring" for number in sorted(self._keys)}
        return [KekVersion(number, state, self._made[number]) for number, state in states.items()]

    def active(self) -> int:
        """The newest version."""
        return max(self._keys)

    def wrap(self, version: int, key: bytes, aad: bytes) -> bytes:
        """Seals a data key inside the module."""
        nonce = os.urandom(NONCE_BYTES)
        with self._lock:
            sealed: bytes = self._keys[version].encrypt(
                key, mechanism=Mechanism.AES_GCM, mechanism_param=_gcm(nonce, aad)
            )
        return nonce + sealed

    def wrap_many(self, version: int, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """`wrap` for pairs of data key and aad."""
        return [self.wrap(version, key, aad) for key, aad in items]

    def unwrap(self, version: int, wrapped: bytes, aad: bytes) -> bytes:
        """Opens a data key inside the module. Raises SealBrokenError."""
        parameters = _gcm(wrapped[:NONCE_BYTES], aad)
        with self._lock:
            key = self._keys.get(version)
            if key is None:
                raise SealBrokenError
            try:
                plain: bytes = key.decrypt(
                    wrapped[NONCE_BYTES:], mechanism=Mechanism.AES_GCM, mechanism_param=parameters
                )
            except pkcs11.PKCS11Error:
                raise SealBrokenError from None
        return plain

    def add_version(self, now_us: int) -> int:
        """Makes a new active version inside the module."""
        with self._lock:
            number = max(self._keys, default=0) + 1
            self._generate(f"{LABEL}{number}", _ID.pack(now_us))
            self.reload()
        return number

    def retire(self, version: int, now_us: int) -> None:
        """Destroys a retiring version's key."""
        with self._lock:
            if version == self.active():
                raise ValueError("the active version cannot be retired; rotate first")
            self._keys[version].destroy()
            self.reload()

    def reload(self) -> None:
        """Reads again which versions the module has."""
        with self._lock:
            found: dict[int, Any] = {}
            made: dict[int, int] = {}
            key: Any  # what a secret key can do depends on its kind, which the library's types do not tell
            for key in self._session.get_objects({Attribute.CLASS: ObjectClass.SECRET_KEY}):
                if key.label.startswith(LABEL):
                    number = int(key.label.removeprefix(LABEL))
                    found[number], made[number] = key, _ID.unpack(key[Attribute.ID])[0]
            self._keys, self._made = found, made

    def seal_key(self) -> bytes:
        """The key of the vault file's seal: a constant, encrypted with a key that never leaves the module."""
        with self._lock:
            key: Any = self._session.get_key(object_class=ObjectClass.SECRET_KEY, label=SEAL_LABEL)
            sealed: bytes = key.encrypt(_SEAL_INPUT, mechanism=Mechanism.AES_ECB)
        return sealed[:KEY_BYTES]

    def _generate(self, label: str, identity: bytes) -> None:
        self._session.generate_key(
            KeyType.AES,
            KEY_BYTES * 8,
            id=identity,
            label=label,
            store=True,
            template={Attribute.SENSITIVE: True, Attribute.EXTRACTABLE: False},
        )


def _gcm(nonce: bytes, aad: bytes) -> Any:
    return pkcs11.GCMParams(nonce, aad, TAG_BYTES * 8)
