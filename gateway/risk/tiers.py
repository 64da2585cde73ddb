"""How well a payer was verified, as one of four tiers (银发〔2017〕296号); A is the strongest. Pure.

The regulation's daily limits are for bar codes. A token that its requestor presents without a bar code is paid under
the agreement between issuer and requestor: tier A, with the agreement's own limit.
"""

from __future__ import annotations

from typing import Final

from hutong.gateway.v1 import payment_pb2 as pb

TIERS: Final = ("A", "B", "C", "D")
TWO_FACTORS: Final = frozenset({"12", "14"})
"""EMV assurance methods that count as two factors: verified here (face and passcode), or asserted by the issuer."""
CODE_KINDS: Final = frozenset({pb.KEY_KIND_PAYMENT_CODE, pb.KEY_KIND_CONSUMER_CODE})
"""Keys that a payer shows as a bar code."""

_TOKEN: Final = int(pb.KEY_KIND_TOKEN)


def tier_of(
    key_kind: int, assurance: str, *, static_code: bool, scanned: bool, static_merchant: bool, agreement: bool
) -> str:
    """The tier of a payment.

    Args:
        key_kind: of the payer's key, a hutong.gateway.v1.KeyKind.
        assurance: EMV assurance method, two digits.
        static_code: the payer's code does not change, or counts as one that does not (a screenshot).
        scanned: the payee's key is a merchant's bar code.
        static_merchant: that code does not change.
        agreement: the account has a limit of its own by agreement.
    """
    if key_kind == _TOKEN and not scanned:
        return "A"
    if static_code or static_merchant:
        return "D"
    if assurance in TWO_FACTORS:
        return "A" if agreement else "B"
    return "C"


def counts_as_static(key_kind: int, made_us: int, now_us: int, fresh_us: int, *, seen: bool) -> bool:
    """Whether the payer's code counts as static. A screenshot of a dynamic code does: it is older than a wallet shows a
    code, or was presented before."""
    return key_kind in CODE_KINDS and (seen or now_us - made_us > fresh_us)


def missing_factor(key_kind: int, assurance: str, *, static_code: bool, proven: bool) -> str:
    """A factor that the payer can add; empty if none is missing. `proven`: a cryptogram or signature of the payer's
    device was checked."""
    if static_code:
        return "fresh_code"
    if assurance in TWO_FACTORS or proven:
        return ""
    return "passcode" if key_kind == pb.KEY_KIND_FACE else "cryptogram"
