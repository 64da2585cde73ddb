"""The gateway's interface to the face service: whose face is this, and is it enough to pay.

The gateway passes on a sealed capture that it cannot read, and gets an opaque reference, which the token service
resolves like any other key. The face service never learns an account number; the gateway never sees a template.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hutong_contract.errors import HutongError
from hutong_contract.secret import Secret


@dataclass(frozen=True, slots=True)
class FaceUse:
    """A sealed capture presented for one payment."""

    sealed: bytes
    """hutong.facepay.v1.FaceCapture.sealed"""
    amount_minor: int
    currency: str
    merchant_id: str
    terminal_id: str


@dataclass(frozen=True, slots=True)
class FaceMatch:
    """A person who was found, is live, and has the factors that the amount needs."""

    reference: Secret[str]
    """The subject's opaque routing reference, registered with the token service as a key of kind FACE."""
    assurance_method: str
    """EMV assurance method code: "11" one factor, "12" two."""
    capture_id: bytes
    """16 bytes that name the capture's nonce: the gateway spends it once with the payment."""


class FaceResolver(Protocol):
    """The narrow interface between the gateway and the face service. Blocking, and called from worker threads:
    searching takes milliseconds and checking a passcode a fifth of a second."""

    def resolve(self, uses: Sequence[FaceUse], now_us: int) -> list[FaceMatch | HutongError]:
        """Answers each use in its place; refusals (not live, ambiguous, needs a passcode ...) are HutongErrors."""
        ...
