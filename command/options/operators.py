"""Options that say which operator asks, for commands that only an operator may use."""

from __future__ import annotations

import os
from typing import Final

import click

from hutong_contract.names import OPERATOR_TRID
from hutong_contract.secret import Secret

OPERATOR_VARIABLE: Final = "HUTONG_REQUESTOR_SECRET"

operator_option = click.option(
    "--operator",
    default=OPERATOR_TRID,
    show_default=True,
    help=f"The operator (TRID) that asks; its secret, if it has one, in {OPERATOR_VARIABLE}.",
)


def secret_of(variable: str) -> Secret[str] | None:
    """A secret from the environment, where it does not appear in a list of processes; None where there is none."""
    value = os.environ.get(variable, "")
    return Secret(value) if value else None
