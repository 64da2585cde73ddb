"""Amounts on the command line."""

from __future__ import annotations

import click

from gateway.barcode.amounts import to_minor
from gateway.barcode.currencies import EXPONENT_OF


def minor_units(amount: str, currency: str) -> int:
    """An amount such as 12.50 in minor units of a currency (ISO 4217). Raises click.UsageError."""
    exponent = EXPONENT_OF.get(currency)
    if exponent is None:
        raise click.UsageError(f"{currency!r} is not an ISO 4217 alphabetic code.")
    minor, broken = to_minor(amount, exponent)
    if minor is None:
        raise click.UsageError(f"--amount {amount}: {broken}. Write it as 12.50, with at most {exponent} decimals.")
    return minor
