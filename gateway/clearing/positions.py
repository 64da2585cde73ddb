"""Net positions, computed from groups of settled payments. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gateway.clearing.model import Position, Tally, is_refund

Group = tuple[int, str, str, str, int, int]
"""(kind, currency, debtor, creditor, count, minor units): settled payments with equal kind, currency and parties."""

_PARTS: Final = {
    (False, True): "debits",
    (False, False): "credits",
    (True, True): "refunds_paid",
    (True, False): "refunds_received",
}
"""(whether a refund, whether the debtor's side) to the part of a position."""


class Positions:
    """Sums up groups. Memory is one entry for each participant and currency."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str], dict[str, Tally]] = {}

    def add(self, groups: Iterable[Group]) -> None:
        """Counts groups on both their sides."""
        for kind, currency, debtor, creditor, count, amount_minor in groups:
            for participant, debtors_side in ((debtor, True), (creditor, False)):
                tallies = self._tallies.setdefault((participant, currency), {})
                part = _PARTS[is_refund(kind), debtors_side]
                before = tallies.get(part, Tally())
                tallies[part] = Tally(before.count + count, before.amount_minor + amount_minor)

    def all(self) -> list[Position]:
        """Every position, by participant and currency."""
        return [
            Position(participant, currency, **tallies)
            for (participant, currency), tallies in sorted(self._tallies.items())
        ]
