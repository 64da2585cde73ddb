"""What a terminal does with a face: signs the capture, and seals it so that only the face service can read it.

The format is hutong/facepay/v1/capture.proto. The service uses the same functions to open and check. The signature
binds nonce, terminal, time, frames, liveness, embedding and factors together, so that no part can be taken from another
capture.
"""

from __future__ import annotations

import hashlib
import os
import sys
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hutong.facepay.v1 import capture_pb2, face_pb2
from hutong_contract.secret import Secret

Algorithm = face_pb2.SignatureAlgorithm
Embedding = Iterable[float]
"""Numbers of a face as its network gives them: a list, a NumPy array of one dimension, …"""
CAPTURE_PURPOSE: Final = b"hutong face capture v1"
ENROLMENT_PURPOSE: Final = b"hutong face enrolment v1"
NONCE_BYTES: Final = 16
SEALED_BYTES_MAX: Final = 4 * 1024 * 1024
"""Largest sealed message that is opened: eight frames of half a megabyte."""

_VERSION: Final = b"\x01"
_KEY_ID_BYTES: Final = 8
_POINT_BYTES: Final = 32
_IV_BYTES: Final = 12
_HEADER_BYTES: Final = len(_VERSION) + _KEY_ID_BYTES + _POINT_BYTES


class SealError(ValueError):
    """A sealed message cannot be opened: another key, another version, or altered."""


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """The face service's public key, as BeginCapture gives it."""

    key_id: bytes
    """8 bytes: the start of the SHA-256 of the public key."""
    public_key: bytes
    """X25519, 32 bytes."""


class TerminalKey:
    """A terminal's signing key; in a real terminal it lives in a secure element."""

    def __init__(self, private: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls, algorithm: Algorithm.ValueType = Algorithm.SIGNATURE_ALGORITHM_ED25519) -> TerminalKey:
        """A new random key."""
        if algorithm == Algorithm.SIGNATURE_ALGORITHM_P256:
            return cls(ec.generate_private_key(ec.SECP256R1()))
        return cls(ed25519.Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> TerminalKey:
        """The Ed25519 key of a 32-byte seed; for simulated terminals."""
        return cls(ed25519.Ed25519PrivateKey.from_private_bytes(seed))

    @property
    def algorithm(self) -> Algorithm.ValueType:
        """How it signs."""
        if isinstance(self._private, ec.EllipticCurvePrivateKey):
            return Algorithm.SIGNATURE_ALGORITHM_P256
        return Algorithm.SIGNATURE_ALGORITHM_ED25519

    @property
    def public_key(self) -> bytes:
        """32 bytes (Ed25519) or an uncompressed point of 65 (P-256)."""
        if isinstance(self._private, ec.EllipticCurvePrivateKey):
            return self._private.public_key().public_bytes(
                serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
            )
        return self._private.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """A signature over the message."""
        if isinstance(self._private, ec.EllipticCurvePrivateKey):
            return self._private.sign(message, ec.ECDSA(hashes.SHA256()))
        return self._private.sign(message)


def public_key_is_valid(algorithm: Algorithm.ValueType, public_key: bytes) -> bool:
    """Whether the bytes are a public key of the algorithm."""
    try:
        _load_public(algorithm, public_key)
    except ValueError:
        return False
    return True


def signature_is_valid(algorithm: Algorithm.ValueType, public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether the key signed the message."""
    try:
        key = _load_public(algorithm, public_key)
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        else:
            key.verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _load_public(
    algorithm: Algorithm.ValueType, public_key: bytes
) -> ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey:
    if algorithm == Algorithm.SIGNATURE_ALGORITHM_P256:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), public_key)
    if algorithm == Algorithm.SIGNATURE_ALGORITHM_ED25519:
        return ed25519.Ed25519PublicKey.from_public_bytes(public_key)
    raise ValueError("unknown signature algorithm")


def embedding_bytes(embedding: Embedding) -> bytes:
    """An embedding as it travels: little-endian float32."""
    packed = array("f", embedding)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def hash_parts(parts: Iterable[bytes]) -> bytes:
    """SHA-256 over parts, each preceded by its length as 8 bytes, so that no boundary can be moved."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()


def frame_hash(frames: Sequence[bytes], depth_map: bytes) -> bytes:
    """CaptureStatement.frame_hash."""
    return hash_parts([*frames, depth_map])


def factors_hash(nonce: bytes, passcode: str, last_four: str) -> bytes:
    """CaptureStatement.factors_hash."""
    return hash_parts([nonce, passcode.encode(), last_four.encode()])


@dataclass(frozen=True, slots=True)
class Captured:
    """What a terminal's camera and keypad captured."""

    embedding: Embedding
    liveness: Mapping[str, float]
    """Cue name to score, 0 (attack) to 1 (live), as the terminal's own checks found."""
    frames: tuple[bytes, ...] = ()
    """JPEG or PNG, in the order of capture."""
    depth_map: bytes = b""
    challenge: str = ""
    """The challenge that was answered."""
    passcode: Secret[str] | None = None
    last_four: Secret[str] | None = None


def build_capture(
    captured: Captured,
    *,
    key: TerminalKey,
    service: ServiceKey,
    nonce: bytes,
    terminal_id: str,
    merchant_id: str,
    captured_at_us: int,
    amount_minor: int = 0,
    currency: str = "",
) -> face_pb2.FaceCapture:
    """Signs and seals one capture. `captured_at_us` is UTC; the amount is the one the payer was shown, or 0."""
    passcode = captured.passcode.reveal() if captured.passcode else ""
    last_four = captured.last_four.reveal() if captured.last_four else ""
    embedding = embedding_bytes(captured.embedding)
    statement = capture_pb2.CaptureStatement(
        nonce=nonce,
        terminal_id=terminal_id,
        merchant_id=merchant_id,
        captured_at_us=captured_at_us,
        frame_hash=frame_hash(captured.frames, captured.depth_map),
        embedding_hash=hashlib.sha256(embedding).digest(),
        factors_hash=factors_hash(nonce, passcode, last_four),
        liveness=[capture_pb2.Cue(name=name, score=score) for name, score in captured.liveness.items()],
        amount_minor=amount_minor,
        currency=currency,
        challenge=captured.challenge,
    ).SerializeToString()
    contents = capture_pb2.CaptureContents(
        statement=statement,
        signature=key.sign(statement),
        embedding=embedding,
        passcode=passcode,
        last_four=last_four,
        frames=captured.frames,
        depth_map=captured.depth_map,
    )
    return face_pb2.FaceCapture(sealed=seal(service, contents.SerializeToString(), CAPTURE_PURPOSE))


def build_enrolment(
    service: ServiceKey,
    embeddings: Sequence[Embedding],
    passcode: Secret[str],
    last_four: Secret[str] | None = None,
) -> bytes:
    """Seals what an enrolment desk took, for EnrollRequest.sealed."""
    contents = capture_pb2.EnrollmentContents(
        embeddings=[embedding_bytes(embedding) for embedding in embeddings],
        passcode=passcode.reveal(),
        last_four=last_four.reveal() if last_four else "",
    )
    return seal(service, contents.SerializeToString(), ENROLMENT_PURPOSE)


def key_id_of(public_key: bytes) -> bytes:
    """The 8 bytes that name a service key."""
    return hashlib.sha256(public_key).digest()[:_KEY_ID_BYTES]


def seal(service: ServiceKey, plaintext: bytes, purpose: bytes) -> bytes:
    """Encrypts for the holder of the service key: ephemeral X25519, HKDF-SHA256, AES-256-GCM."""
    ephemeral = x25519.X25519PrivateKey.generate()
    point = ephemeral.public_key().public_bytes_raw()
    shared = ephemeral.exchange(x25519.X25519PublicKey.from_public_bytes(service.public_key))
    header = _VERSION + service.key_id + point
    initial = os.urandom(_IV_BYTES)
    cipher = AESGCM(_derive(shared, point + service.public_key, purpose))
    return header + initial + cipher.encrypt(initial, plaintext, header)


def unseal(private: x25519.X25519PrivateKey, sealed: bytes, purpose: bytes) -> bytes:
    """Decrypts what `seal` made for this key and purpose. Raises SealError for anything else."""
    if not _HEADER_BYTES + _IV_BYTES < len(sealed) <= SEALED_BYTES_MAX or sealed[:1] != _VERSION:
        raise SealError("not a sealed message of version 1")
    public_key = _public_of(private)
    if sealed[1 : 1 + _KEY_ID_BYTES] != key_id_of(public_key):
        raise SealError("sealed to another key")
    header, initial = sealed[:_HEADER_BYTES], sealed[_HEADER_BYTES : _HEADER_BYTES + _IV_BYTES]
    point = header[-_POINT_BYTES:]
    try:
        shared = private.exchange(x25519.X25519PublicKey.from_public_bytes(point))
        cipher = AESGCM(_derive(shared, point + public_key, purpose))
        return cipher.decrypt(initial, sealed[_HEADER_BYTES + _IV_BYTES :], header)
    except (InvalidTag, ValueError):
        raise SealError("altered, or sealed for another purpose") from None


@lru_cache(maxsize=8)
def _public_of(private: x25519.X25519PrivateKey) -> bytes:
    """The public key of a service key: a curve multiplication, done once and not for every capture."""
    return private.public_key().public_bytes_raw()


def _derive(shared: bytes, salt: bytes, purpose: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt, purpose).derive(shared)
