"""Amounts, times and names as they stand in statements. Pure."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Final

from hutong_contract.currencies import EXPONENT_OF

NAME_MAX: Final = 35
"""Max35Text of ISO 20022."""
_HASH_CHARACTERS: Final = 8


def decimal(amount_minor: int, currency: str) -> str:
    """Minor units, not negative, in the currency's own decimals: 1250 CNY is "12.50", 1250 JPY is "1250"."""
    exponent = EXPONENT_OF[currency]
    if not exponent:
        return str(amount_minor)
    whole, rest = divmod(amount_minor, 10**exponent)
    return f"{whole}.{rest:0{exponent}}"


def signed(amount_minor: int, currency: str) -> str:
    """The same for people, of any sign and in any currency, known or not: "-12.50 CNY"."""
    text = decimal(abs(amount_minor), currency) if currency in EXPONENT_OF else str(abs(amount_minor))
    return f"{'-' if amount_minor < 0 else ''}{text} {currency}"


def utc(time_us: int) -> str:
    """Microseconds since the epoch in ISO 8601, in UTC."""
    seconds, microseconds = divmod(time_us, 1_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{microseconds:06}Z"


def short_name(*parts: str) -> str:
    """Joins parts by hyphens into at most NAME_MAX characters; if that is too long, it ends with a hash of the
    whole."""
    name = "-".join(parts)
    if len(name) <= NAME_MAX:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_CHARACTERS]
    return f"{name[: NAME_MAX - _HASH_CHARACTERS - 1]}-{digest}"
