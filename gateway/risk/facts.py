"""The facts of one payment that rules are evaluated on, as values."""

from __future__ import annotations

from typing import NamedTuple

UNKNOWN_AGE_US = -1


class Facts(NamedTuple):
    """One payment. Empty text and bytes: unknown."""

    now_us: int
    key_kind: int
    """Of the payer's key, a hutong.gateway.v1.KeyKind."""
    amount_minor: int
    currency: str
    tier: str
    assurance: str = "00"
    static_code: bool = False
    """The payer's code does not change, or is a screenshot."""
    static_merchant: bool = False
    """The payer scanned a merchant's static code."""
    proven: bool = False
    """A cryptogram or signature of the payer's device was checked."""
    account: bytes = b""
    key: bytes = b""
    key_age_us: int = UNKNOWN_AGE_US
    """How long the routing key has existed."""
    issuer: str = ""
    merchant: str = ""
    category: str = ""
    terminal: str = ""
    caller: str = ""
