"""Inputs and outputs of the face service: options, captures, answers, status."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from facepay import passcode as passcodes
from facepay.captures import CLOCK_SKEW_US, Checked, Place
from facepay.decision import Decision, Policy, Thresholds
from facepay.gallery.opening import Place as GalleryPlace
from facepay.liveness.judgement import LivenessPolicy
from facepay.records import Consent, Subject
from hutong_contract import capture
from hutong_contract.errors import HutongError, Reason
from hutong_contract.limits import SUBJECT_CHARACTERS_MAX
from hutong_contract.secret import Secret

FILING_FACES: Final = 100_000
"""Stored faces at which filing with the authority is due (rules of 2025-06-01)."""
"""Characters of an operator's name for a subject."""


@dataclass(frozen=True, slots=True)
class Options:
    """Options of the face service."""

    policy: Policy = field(default_factory=Policy)
    liveness: LivenessPolicy = field(default_factory=LivenessPolicy)
    passcode_cost: passcodes.Cost = field(default_factory=passcodes.Cost)
    filing_faces: int = FILING_FACES
    threads: int = 2
    upkeep_every_s: float = 60.0
    """How often segments are merged, scores fitted and expired consents erased, in seconds; 0: never."""
    gallery: GalleryPlace | None = None
    """Where the gallery is kept; None: in the service's own folder."""
    int8_batches: bool = False
    """Whether batches of strangers go through int8 matrix products; doubles the memory."""
    wait_for_kernels: bool = True
    """Whether opening a service with faces waits until search kernels are compiled, if this machine has none yet.
    Otherwise callers get FACE_NOT_READY until then."""


@dataclass(frozen=True, slots=True)
class Session:
    """What a terminal gets before it captures."""

    nonces: tuple[bytes, ...]
    expires_at_us: int
    service: capture.ServiceKey
    challenge: str
    dimension: int


@dataclass(frozen=True, slots=True)
class Status:
    """The state of the face service."""

    persons: int
    templates: int
    dimension: int
    segments: int
    tail_rows: int
    quarantined: int
    epoch: int
    thresholds: Thresholds
    filing_faces: int
    filing_due: bool
    outcomes: dict[str, int]
    ready_in_s: float = 0.0
    """About how many seconds until searches and enrolments are answered; 0 where they are now."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One capture to identify."""

    sealed: bytes = field(repr=False)
    place: Place = field(default_factory=Place)
    region: int = 0
    """Only this region; 0 for everybody."""
    merchant_id: str = ""
    """Only this merchant's sub-gallery; empty for everybody."""


@dataclass(frozen=True, slots=True)
class Identified:
    """The answer to a capture."""

    decision: Decision
    subject: Subject | None = None
    capture: Checked | None = field(default=None, repr=False)


def check_enrolment(
    subject: str, passcode: Secret[str], last_four: str, consent: Consent, region: int, now_us: int
) -> None:
    """Refuses enrolments that are never allowed. Raises FIELD_MISSING or FIELD_INVALID."""
    missing = [name for name, value in (("subject", subject), ("consent.purpose", consent.purpose)) if not value]
    if missing:
        raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field=missing[0])
    tests = (
        ("passcode", passcodes.acceptable(passcode.reveal())),
        ("last_four", not last_four or (len(last_four) == 4 and last_four.isascii() and last_four.isdigit())),
        ("region", 0 <= region < 1 << 16),
        ("consent.given_at_us", 0 < consent.given_at_us <= now_us + CLOCK_SKEW_US),
        ("consent.expires_at_us", consent.expires_at_us == 0 or consent.expires_at_us > now_us),
        ("subject", len(subject) <= SUBJECT_CHARACTERS_MAX),
    )
    for name, good in tests:
        if not good:
            raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field=name)
