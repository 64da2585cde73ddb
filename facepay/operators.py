"""Operators of the face service: only they may enrol, erase and register terminals over gRPC.

An operator proves itself by the name in a client certificate (mutual TLS), or by a secret in the call's metadata. If
neither is configured and the port can be reached from this machine only, every caller counts as the operator.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Final

from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret

SECRET_MIN: Final = 16
"""Characters of an operator's secret: guesses are not counted, so it must not be guessable."""


@dataclass(frozen=True, slots=True)
class Operators:
    """Who is an operator. Raises ValueError for a secret that is too short."""

    identities: frozenset[str] = frozenset()
    """Names in client certificates that are operators."""
    secret: Secret[str] | None = field(default=None, repr=False)
    whoever_reaches: bool = False
    """Whether every caller counts as an operator, if neither names nor a secret are configured: for a port on
    loopback."""

    def __post_init__(self) -> None:
        if self.secret is not None and len(self.secret.reveal()) < SECRET_MIN:
            raise ValueError(f"the face operator's secret needs {SECRET_MIN} characters or more")

    def check(self, proven: frozenset[str], secret: str) -> None:
        """Whether a call with these proven names and this secret is an operator's. Raises FACE_OPERATOR_ONLY."""
        if self.identities or self.secret is not None:
            allowed = bool(self.identities & proven) or (
                self.secret is not None and _same(secret, self.secret.reveal())
            )
        else:
            allowed = self.whoever_reaches
        if not allowed:
            raise HutongError(Reason.ERROR_REASON_FACE_OPERATOR_ONLY)


def _same(given: str, expected: str) -> bool:
    """Compares digests in constant time, so that the duration reveals neither the secret nor its length."""
    one, other = (hashlib.sha256(text.encode("utf-8", "replace")).digest() for text in (given, expected))
    return hmac.compare_digest(one, other)
