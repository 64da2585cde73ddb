"""The values of clearing: windows, settled payments, positions. No behaviour beyond sums."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from gateway.engine.model import Kind


@dataclass(frozen=True, slots=True)
class Carried:
    """The payments in flight in one currency when a window closed."""

    currency: str
    payments: int
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Window:
    """A closed settlement window: the successful payments after event `after_sequence`, up to `last_sequence`."""

    number: int
    """From 1, without gaps."""
    after_sequence: int
    last_sequence: int
    opened_us: int
    """When the window before it closed; 0 for the first."""
    closed_us: int
    carried: tuple[Carried, ...] = ()
    """By currency."""


class Settled(NamedTuple):
    """A payment or refund that succeeded."""

    settled_us: int
    payment_id: bytes
    kind: int
    amount_minor: int
    currency: str
    debtor: str
    creditor: str
    merchant_id: str
    terminal_id: str
    reference: str
    last_four: str
    original_id: bytes | None
    created_us: int

    def signed(self, participant: str) -> int:
        """Minor units that this payment gives to a participant: positive, negative, or 0 if it is no party."""
        return self.amount_minor * ((participant == self.creditor) - (participant == self.debtor))


@dataclass(frozen=True, slots=True)
class Tally:
    """A number of payments and their sum."""

    count: int = 0
    amount_minor: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """What one participant owes or is owed in one currency after a window."""

    participant: str
    currency: str
    debits: Tally = Tally()
    """Payments that its payers made."""
    credits: Tally = Tally()
    """Payments that its merchants received."""
    refunds_paid: Tally = Tally()
    """Refunds that its merchants gave."""
    refunds_received: Tally = Tally()
    """Refunds that its payers got."""

    @property
    def incoming(self) -> Tally:
        """All that it is owed."""
        return _sum(self.credits, self.refunds_received)

    @property
    def outgoing(self) -> Tally:
        """All that it owes."""
        return _sum(self.debits, self.refunds_paid)

    @property
    def gross_minor(self) -> int:
        """All that moved, in either direction."""
        return self.incoming.amount_minor + self.outgoing.amount_minor

    @property
    def net_minor(self) -> int:
        """What it receives in settlement; negative where it pays. The nets of a currency sum to zero."""
        return self.incoming.amount_minor - self.outgoing.amount_minor

    @property
    def count(self) -> int:
        """Payments and refunds."""
        return self.incoming.count + self.outgoing.count


def _sum(one: Tally, other: Tally) -> Tally:
    return Tally(one.count + other.count, one.amount_minor + other.amount_minor)


def is_refund(kind: int) -> bool:
    """Whether a settled payment went from a merchant to a payer."""
    return kind == Kind.REFUND
