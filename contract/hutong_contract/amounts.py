"""Amounts as barcodes write them, converted to minor units and back. Never a float."""

from __future__ import annotations

import re
from typing import Final

AMOUNT_CHARACTERS_MAX: Final = 13
_WRITTEN = re.compile(r"([0-9]+)(?:\.([0-9]*))?").fullmatch


def to_minor(text: str, exponent: int) -> tuple[int | None, str | None]:
    """Reads an amount (EMVCo MPM v1.1, object 54) for a currency of `exponent` decimals.

    Returns minor units and the rule that the text breaks, either of which may be None: `format` (a comma, a sign,
    an exponent, no integer part), `length`, `zero`, `amount_precision` (more decimals than the currency has, so no
    amount), `decimals` (more decimals than it has, but all zero, so the amount is still certain).
    """
    if len(text) > AMOUNT_CHARACTERS_MAX:
        return None, "length"
    written = _WRITTEN(text)
    if written is None:
        return None, "format"
    whole, decimals = written.group(1), written.group(2) or ""
    kept, dropped = decimals[:exponent], decimals[exponent:]
    minor = int(whole + kept.ljust(exponent, "0"))
    if dropped.strip("0"):
        return None, "amount_precision"
    if minor == 0:
        return None, "zero"
    return minor, "decimals" if dropped else None


def from_minor(minor: int, exponent: int) -> str:
    """Writes an amount with all decimals of its currency.

    Raises:
        ValueError: the amount is not positive, or needs more than the 13 characters of object 54.
    """
    if minor <= 0:
        raise ValueError("an amount in a code is positive")
    digits = str(minor).rjust(exponent + 1, "0")
    text = f"{digits[:-exponent]}.{digits[-exponent:]}" if exponent else digits
    if len(text) > AMOUNT_CHARACTERS_MAX:
        raise ValueError("an amount in a code has at most 13 characters")
    return text
