"""Crypto suites: which cipher, hash and MAC a deployment uses. Everything else asks a `Suite` and names none.

| suite | authenticated cipher | hash under HMAC | signatures of transit codes |
| --- | --- | --- | --- |
| international | AES-256-GCM | SHA-256 | ECDSA P-256 |
| sm | SM4-GCM (128-bit key) | SM3 | ECDSA P-256: SM2 is not offered by the library used |
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hutong_contract.payment_code import HASHES

KEY_BYTES: Final = 32
"""Length of every symmetric key at rest; SM4 uses the first half."""
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
OVERHEAD_BYTES: Final = NONCE_BYTES + TAG_BYTES

Mac = Callable[[bytes], bytes]
"""A keyed MAC: message to 32 bytes."""


class SealBrokenError(Exception):
    """A ciphertext does not belong to this key, or was changed, or stands in another row or field."""


class Aead(Protocol):
    """An authenticated cipher with its key. A sealed value is nonce, ciphertext and tag in one piece."""

    def seal(self, plain: bytes, aad: bytes) -> bytes:
        """Encrypts under a fresh random nonce (at most 2^32 times for one key)."""
        ...

    def seal_many(self, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """`seal` for pairs of plaintext and aad, with one request for random bytes, since each such request releases
        the GIL."""
        ...

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        """Decrypts. Raises SealBrokenError."""
        ...


def _nonces(count: int) -> list[bytes]:
    pool = os.urandom(NONCE_BYTES * count)
    return [pool[start : start + NONCE_BYTES] for start in range(0, len(pool), NONCE_BYTES)]


class _AesGcm:
    __slots__ = ("_cipher",)

    def __init__(self, key: bytes) -> None:
        self._cipher = AESGCM(key)

    def seal(self, plain: bytes, aad: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, aad)

    def seal_many(self, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        encrypt = self._cipher.encrypt
        pairs = zip(_nonces(len(items)), items, strict=True)
        return [nonce + encrypt(nonce, plain, aad) for nonce, (plain, aad) in pairs]

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], aad)
        except (InvalidTag, ValueError):
            raise SealBrokenError from None


class _Sm4Gcm:
    __slots__ = ("_algorithm",)

    def __init__(self, key: bytes) -> None:
        self._algorithm = algorithms.SM4(key[:16])

    def seal(self, plain: bytes, aad: bytes) -> bytes:
        return self._seal(os.urandom(NONCE_BYTES), plain, aad)

    def seal_many(self, items: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        pairs = zip(_nonces(len(items)), items, strict=True)
        return [self._seal(nonce, plain, aad) for nonce, (plain, aad) in pairs]

    def _seal(self, nonce: bytes, plain: bytes, aad: bytes) -> bytes:
        encryptor = Cipher(self._algorithm, modes.GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(aad)
        return nonce + encryptor.update(plain) + encryptor.finalize() + encryptor.tag

    def open(self, sealed: bytes, aad: bytes) -> bytes:
        if len(sealed) < OVERHEAD_BYTES:
            raise SealBrokenError
        mode = modes.GCM(sealed[:NONCE_BYTES], sealed[-TAG_BYTES:])
        decryptor = Cipher(self._algorithm, mode).decryptor()
        decryptor.authenticate_additional_data(aad)
        try:
            return decryptor.update(sealed[NONCE_BYTES:-TAG_BYTES]) + decryptor.finalize()
        except InvalidTag:
            raise SealBrokenError from None


@dataclass(frozen=True, slots=True)
class Suite:
    """One choice of algorithms."""

    name: str
    cipher: Callable[[bytes], Aead]
    """Key of 32 bytes to an authenticated cipher."""
    digest: str
    """The hash's name, as hashlib knows it."""

    def mac(self, key: bytes) -> Mac:
        """An HMAC with its key schedule done once: half the cost for each message."""
        keyed = hmac.new(key, digestmod=self.digest)

        def compute(message: bytes) -> bytes:
            running = keyed.copy()
            running.update(message)
            return running.digest()

        return compute

    def mac_once(self, key: bytes, message: bytes) -> bytes:
        """One HMAC under a key that is used once."""
        return hmac.digest(key, message, self.digest)


SUITES: Final = {
    "international": Suite("international", _AesGcm, HASHES["international"]),
    "sm": Suite("sm", _Sm4Gcm, HASHES["sm"]),
}


def suite_named(name: str) -> Suite:
    """Raises ValueError for a name that is not in `SUITES`."""
    if name not in SUITES:
        raise ValueError(f"no crypto suite {name!r}; one of {', '.join(SUITES)}")
    return SUITES[name]
