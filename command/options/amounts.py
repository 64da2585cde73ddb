"""Amounts on the command line: every option takes them with their decimals, such as 12.50, and refuses in one way."""

from __future__ import annotations

import click

from hutong_contract.amounts import AMOUNT_CHARACTERS_MAX, to_minor
from hutong_contract.currencies import EXPONENT_OF, nearest

CURRENCY_DEFAULT = "CNY"
"""Where an amount is given without a currency."""


def exponent_of(currency: str, option: str = "--currency") -> int:
    """The number of decimals of a currency. Raises click.UsageError, which names the one that may be meant."""
    exponent = EXPONENT_OF.get(currency)
    if exponent is None:
        meant = nearest(currency)
        hint = f" Did you mean {meant}?" if meant else ""
        raise click.UsageError(f"{option} {currency}: that is no ISO 4217 code, three capital letters.{hint}")
    return exponent


def minor_units(amount: str, currency: str, option: str = "--amount") -> int:
    """An amount such as 12.50 in minor units of a currency (ISO 4217). Raises click.UsageError, which names `option`
    and shows how the amount is written."""
    exponent = exponent_of(currency)
    minor, broken = to_minor(amount, exponent)
    if minor is None:
        raise click.UsageError(f"{option} {amount}: {_said(broken or '', currency, exponent)}")
    return minor


def _said(broken: str, currency: str, exponent: int) -> str:
    """A rule of hutong_contract.amounts that an amount breaks, and what to write instead."""
    example = f"12.5{'0' * (exponent - 1)}" if exponent else "12"
    if broken == "zero":
        return f"an amount is more than zero, such as {example}."
    if broken == "length":
        return f"an amount has at most {AMOUNT_CHARACTERS_MAX} characters, such as {example}."
    if broken == "amount_precision":
        decimals = f"at most {exponent} decimals" if exponent else "no decimals"
        return f"{currency} has {decimals}: write it as {example}."
    decimals = ", decimals after a point" if exponent else ""
    return f"that is not an amount. Write digits{decimals}, without sign or spaces: {example}."
