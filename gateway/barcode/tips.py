"""What a merchant code asks for beyond its amount: EMVCo MPM v1.1, objects 55 to 57.

55 says which of three: 01 asks the payer for a tip, 02 adds the fee of 56, 03 adds the percentage of 57.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from hutong_contract.amounts import to_minor
from hutong_contract.currencies import EXPONENT_OF

NONE: Final = "none"
ASKED: Final = "asked"
FIXED: Final = "fixed"
PERCENT: Final = "percent"
INDICATORS: Final[Mapping[str, str]] = {ASKED: "01", FIXED: "02", PERCENT: "03"}
"""Kind of tip to the value of object 55."""
_KIND_OF: Final = {value: kind for kind, value in INDICATORS.items()}
_PERCENTAGE: Final = re.compile(r"([0-9]{1,2})(?:\.([0-9]{0,2}))?").fullmatch
_WHOLE: Final = 10_000
"""Basis points of the whole."""


@dataclass(frozen=True, slots=True)
class Tip:
    """A tip or fee, and what is due with it."""

    kind: str
    """`none`, `asked`, `fixed` or `percent`."""
    fee_minor: int | None = None
    """The fee in minor units: as written, or the percentage of the amount; None where it does not follow."""
    basis_points: int | None = None
    """A percentage in hundredths of a percent."""
    due_minor: int | None = None
    """What is to be paid in all; None where the payer decides or the code does not say enough."""


def tip(values: Mapping[str, str], currency: str | None, amount_minor: int | None) -> Tip | None:
    """What objects 55 to 57 of a code ask for; None where they cannot be understood.

    Args:
        values: root objects.
        currency: ISO 4217 alphabetic code of object 53; None where that is not known.
        amount_minor: object 54; None where the payer enters the amount.
    """
    indicator = values.get("55")
    if indicator is None:
        return Tip(NONE, due_minor=amount_minor)
    kind = _KIND_OF.get(indicator)
    if kind == ASKED:
        return Tip(ASKED)
    if kind == FIXED and currency is not None:
        fee, rule = to_minor(values.get("56", ""), EXPONENT_OF[currency])
        if fee is not None and rule in {None, "decimals"}:
            return Tip(FIXED, fee, None, None if amount_minor is None else amount_minor + fee)
    if kind == PERCENT:
        points = basis_points(values.get("57", ""))
        if points is not None:
            fee = None if amount_minor is None else percentage_of(amount_minor, points)
            return Tip(PERCENT, fee, points, None if amount_minor is None or fee is None else amount_minor + fee)
    return None


def basis_points(text: str) -> int | None:
    """A percentage as object 57 writes it (00.01 to 99.99), in hundredths of a percent; None where it is none."""
    written = _PERCENTAGE(text)
    if written is None:
        return None
    return int(written.group(1)) * 100 + int((written.group(2) or "").ljust(2, "0")) or None


def percentage_of(amount_minor: int, points: int) -> int:
    """Basis points of an amount, to the nearest minor unit; half a unit counts as one.

    EMVCo leaves the rounding of a fee open and no scheme's public documents say otherwise, so this is the way of
    trade; a gateway that takes the total and a wallet that shows it must only agree.
    """
    return (amount_minor * points + _WHOLE // 2) // _WHOLE


def written_percentage(points: int) -> str:
    """Basis points as object 57 writes them."""
    return f"{points // 100}.{points % 100:02d}"
