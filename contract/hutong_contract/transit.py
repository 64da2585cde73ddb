"""Transit codes: a gate lets a rider through without a network, and the fare is collected later.

    issuer key ── signs ──► certificate (credential, rider's public key, validity, fare limit)
    rider's key ── signs ──► statement (certificate, time)

The gate holds the issuers' public keys. It checks the certificate, the statement's signature, and that the
statement is fresh; then it opens. The code is submitted as the payer's key later, and the token service lets each
statement be paid once. All signatures are ECDSA over P-256 with SHA-256, as r and s of 32 bytes each.

A code is the text `HTT1.` and unpadded base64url of 209 bytes: 284 characters, a QR symbol of version 12 at error
correction M.
"""

from __future__ import annotations

import base64
import binascii
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

PREFIX: Final = "HTT1."
WINDOW_US: Final = 60_000_000
"""How long after its time a gate accepts a statement."""
SKEW_US: Final = 30_000_000
"""How far ahead of the gate's clock a statement may be."""
ISSUER_KEY_ID_BYTES: Final = 8
PUBLIC_KEY_BYTES: Final = 33
SIGNATURE_BYTES: Final = 64

_CERTIFICATE: Final = struct.Struct(">B8s16s33sIII3s")
"""Format version, issuer key id, credential, rider's compressed public key, not before and not after (seconds since
1970), fare limit in minor units, its currency."""
_TIME: Final = struct.Struct(">Q")
CERTIFICATE_BYTES: Final = _CERTIFICATE.size + SIGNATURE_BYTES
CODE_BYTES: Final = CERTIFICATE_BYTES + _TIME.size + SIGNATURE_BYTES
_VERSION: Final = 1
_CURVE: Final = ec.SECP256R1()
_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())
_TEXT_LENGTH: Final = len(PREFIX) + (CODE_BYTES * 8 + 5) // 6


class TransitCodeError(ValueError):
    """A transit code that must not open a gate. `reason` is one of the words in `REASONS`."""

    def __init__(self, reason: str) -> None:
        assert reason in REASONS
        self.reason = reason
        super().__init__(REASONS[reason])


REASONS: Final = {
    "malformed": "this is not a transit code; show the code again",
    "issuer": "the certificate is not from an issuer that this gate knows; update the gate's keys",
    "certificate": "the certificate's signature is wrong",
    "validity": "the certificate is not valid now; the wallet must fetch a new one",
    "signature": "the rider's signature is wrong",
    "stale": "the code is older than its window; show a fresh one",
    "early": "the code is from the future; the phone's clock or the gate's is wrong",
    "fare": "the fare is above the certificate's limit or in another currency",
}


@dataclass(frozen=True, slots=True)
class Certificate:
    """What an issuer states about a rider's key."""

    issuer_key_id: bytes
    credential: bytes
    """16 bytes that name the routing key; they cannot pay."""
    public_key: bytes
    """The rider's P-256 public key, compressed, 33 bytes."""
    not_before_s: int
    not_after_s: int
    fare_max_minor: int
    currency: str

    def body(self) -> bytes:
        """The bytes that the issuer signs. Raises struct.error where a field is out of range."""
        return _CERTIFICATE.pack(
            _VERSION,
            self.issuer_key_id,
            self.credential,
            self.public_key,
            self.not_before_s,
            self.not_after_s,
            self.fare_max_minor,
            self.currency.encode(),
        )


@dataclass(frozen=True, slots=True)
class TransitCode:
    """A code's parts, not yet verified."""

    certificate: Certificate
    time_us: int
    """When the rider's phone signed, UTC in microseconds."""
    raw: bytes
    """All of the code's bytes, signatures included."""

    @property
    def certificate_raw(self) -> bytes:
        """The signed certificate."""
        return self.raw[:CERTIFICATE_BYTES]


def is_transit_code(text: str) -> bool:
    """Whether a text has the form of a transit code."""
    return len(text) == _TEXT_LENGTH and text.startswith(PREFIX)


def issuer_key_id(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """Eight bytes that name an issuer's key: the head of the SHA-256 of its compressed point."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(compress(public_key))
    return digest.finalize()[:ISSUER_KEY_ID_BYTES]


def compress(public_key: ec.EllipticCurvePublicKey) -> bytes:
    """A P-256 public key as 33 bytes."""
    return public_key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def _sign(key: ec.EllipticCurvePrivateKey, message: bytes) -> bytes:
    r, s = utils.decode_dss_signature(key.sign(message, _ALGORITHM))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _holds(key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes) -> bool:
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    try:
        key.verify(utils.encode_dss_signature(r, s), message, _ALGORITHM)
    except InvalidSignature:
        return False
    return True


def sign_certificate(certificate: Certificate, issuer_key: ec.EllipticCurvePrivateKey) -> bytes:
    """The issuer's part: the certificate's bytes with its signature."""
    body = certificate.body()
    return body + _sign(issuer_key, b"hutong transit certificate" + body)


def build_code(certificate: bytes, rider_key: ec.EllipticCurvePrivateKey, time_us: int) -> str:
    """The phone's part: a fresh code for a signed certificate, at `time_us`."""
    if len(certificate) != CERTIFICATE_BYTES:
        raise ValueError(f"a signed certificate has {CERTIFICATE_BYTES} bytes")
    head = certificate + _TIME.pack(time_us)
    raw = head + _sign(rider_key, b"hutong transit code" + head)
    return PREFIX + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def parse_code(text: str) -> TransitCode:
    """Parses a code without verifying it. Raises TransitCodeError("malformed")."""
    if not is_transit_code(text):
        raise TransitCodeError("malformed")
    body = text[len(PREFIX) :]
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise TransitCodeError("malformed") from None
    # Base64 leaves spare bits: only one spelling is accepted, so that one code has one text.
    if len(raw) != CODE_BYTES or base64.urlsafe_b64encode(raw).decode().rstrip("=") != body or raw[0] != _VERSION:
        raise TransitCodeError("malformed")
    _, key_id, credential, public_key, not_before_s, not_after_s, fare_max, currency = _CERTIFICATE.unpack_from(raw)
    if not (currency.isalpha() and currency.isupper()):
        raise TransitCodeError("malformed")
    certificate = Certificate(
        key_id, credential, public_key, not_before_s, not_after_s, fare_max, currency.decode("ascii")
    )
    return TransitCode(certificate, _TIME.unpack_from(raw, CERTIFICATE_BYTES)[0], raw)


def check_certificate(code: TransitCode, issuer_keys: Mapping[bytes, ec.EllipticCurvePublicKey]) -> None:
    """Checks that a known issuer signed the certificate. Raises TransitCodeError."""
    issuer_key = issuer_keys.get(code.certificate.issuer_key_id)
    if issuer_key is None:
        raise TransitCodeError("issuer")
    body, signature = code.raw[: _CERTIFICATE.size], code.raw[_CERTIFICATE.size : CERTIFICATE_BYTES]
    if not _holds(issuer_key, signature, b"hutong transit certificate" + body):
        raise TransitCodeError("certificate")


def check_signature(code: TransitCode) -> None:
    """Checks that the certified rider signed the statement, while the certificate was valid."""
    certificate = code.certificate
    if not certificate.not_before_s <= code.time_us // 1_000_000 <= certificate.not_after_s:
        raise TransitCodeError("validity")
    try:
        rider_key = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, certificate.public_key)
    except ValueError:
        raise TransitCodeError("signature") from None
    head, signature = code.raw[:-SIGNATURE_BYTES], code.raw[-SIGNATURE_BYTES:]
    if not _holds(rider_key, signature, b"hutong transit code" + head):
        raise TransitCodeError("signature")


def open_gate(
    text: str,
    issuer_keys: Mapping[bytes, ec.EllipticCurvePublicKey],
    now_us: int,
    fare_minor: int,
    currency: str,
) -> TransitCode:
    """The gate's part, with no network: everything that can be checked here. Raises TransitCodeError.

    A gate also remembers the `raw` codes of the last window, so that one code does not open it twice; a second use
    at another gate is caught when the codes are submitted.
    """
    code = parse_code(text)
    if code.time_us > now_us + SKEW_US:
        raise TransitCodeError("early")
    if code.time_us < now_us - WINDOW_US:
        raise TransitCodeError("stale")
    if currency != code.certificate.currency or fare_minor > code.certificate.fare_max_minor:
        raise TransitCodeError("fare")
    check_certificate(code, issuer_keys)
    check_signature(code)
    return code
