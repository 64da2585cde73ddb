"""What the store of record keeps: subjects with their consents, and terminals."""

from __future__ import annotations

from dataclasses import dataclass, field

from facepay.gallery.engine import Vectors
from hutong_contract.secret import Secret

"""Templates of one person: more add errors, not recognition."""


@dataclass(frozen=True, slots=True)
class Consent:
    """Why and until when somebody allowed that their face be kept."""

    purpose: str
    text_version: str
    given_at_us: int
    expires_at_us: int = 0
    """0 where it has no end."""


@dataclass(frozen=True, slots=True)
class NewSubject:
    """Somebody to enrol."""

    name: str
    vectors: Vectors
    """[M, D] unit length."""
    reference: Secret[str]
    consent: Consent
    passcode_hash: str | None = None
    last_four: str = field(default="", repr=False)
    region: int = 0
    merchants: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """Somebody enrolled."""

    person: int
    name: str
    reference: Secret[str]
    passcode_hash: str | None = field(repr=False)
    has_last_four: bool
    failures: int
    locked_until_us: int
    consent: Consent


@dataclass(frozen=True, slots=True)
class Terminal:
    """A registered terminal."""

    merchant_id: str
    algorithm: int
    public_key: bytes
