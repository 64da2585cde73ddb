"""Options for the people and shops of a simulated network; all of its processes are given the same."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

Command = Callable[..., None]


@dataclass(frozen=True, slots=True)
class PopulationChoice:
    """How many people and shops, and how their participants behave."""

    seed: int
    wallets_per_issuer: int
    merchants_per_acquirer: int
    magic_amounts: bool


def seed_option(text: str) -> Callable[[Command], Command]:
    """`--seed N`, 1 where it is not given; `text` says of what."""
    return click.option("--seed", type=int, default=1, show_default=True, help=text)


def population_options(command: Command) -> Command:
    """Adds the options; the command gets them as `population`."""

    @seed_option("Of the simulated people and merchants.")
    @click.option("--wallets", type=click.IntRange(1, 10_000), default=3, show_default=True, help="For each issuer.")
    @click.option("--merchants", type=click.IntRange(1, 100), default=2, show_default=True, help="For each acquirer.")
    @click.option("--magic/--no-magic", default=True, show_default=True, help="Whether magic amounts make trouble.")
    @functools.wraps(command)
    def with_population(seed: int, wallets: int, merchants: int, *, magic: bool, **rest: Any) -> None:
        command(population=PopulationChoice(seed, wallets, merchants, magic), **rest)

    return with_population
