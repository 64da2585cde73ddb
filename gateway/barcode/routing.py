"""From a routing key to a participant: what this package asks of the gateway's directory.

`gateway.directory.Directory` satisfies `Directory`. A code of a scheme without a participant here is recognised and
has no route: that is no fault of the code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.barcode.model import Decoded, Routing

ROUTED: Final = "routed"
NO_ROUTE: Final = "recognised, no route"


class Acceptance(Protocol):
    """An acquirer that serves a merchant."""

    @property
    def acquirer_id(self) -> str:
        """The participant's id."""
        ...

    @property
    def cost_bp(self) -> float:
        """What it costs, in basis points."""
        ...


class Merchant(Protocol):
    """What this package reads of a directory's merchant."""

    @property
    def id(self) -> str:
        """The merchant's id in the gateway."""
        ...

    @property
    def acquirers(self) -> Sequence[Acceptance]:
        """Who serves it."""
        ...


class Directory(Protocol):
    """What this package asks of a directory."""

    def merchant(self, scheme: str, account: str) -> Merchant | None:
        """The merchant that holds an account of a scheme, given as `Routing.payee` names it."""
        ...

    def participant_for(self, scheme: str, participant: str = "") -> str | None:
        """The participant that serves a scheme's own participant id, or the scheme as a whole."""
        ...

    def account_of(self, merchant_id: str, scheme: str) -> str | None:
        """The account that a merchant has in a scheme, as `Routing.payee` names it."""
        ...


class _Nobody:
    """The directory of a machine that knows no participants."""

    def merchant(self, scheme: str, account: str) -> Merchant | None:
        return None

    def participant_for(self, scheme: str, participant: str = "") -> str | None:
        return None

    def account_of(self, merchant_id: str, scheme: str) -> str | None:
        return None


EMPTY: Final[Directory] = _Nobody()
"""The directory where none is given: everything is recognised, nothing has a route."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where a code leads here."""

    routing: Routing
    status: str
    """`routed`, or `recognised, no route`."""
    to: str | None
    """The participant's id: for a merchant of the directory its cheapest acquirer."""
    merchant_id: str | None


def resolve(routing: Routing | None, directory: Directory) -> Route | None:
    """Where a routing key leads by a directory; None where the code gives no key."""
    if routing is None:
        return None
    merchant = directory.merchant(routing.scheme, routing.payee)
    if merchant is not None and merchant.acquirers:
        cheapest = min(merchant.acquirers, key=lambda acceptance: acceptance.cost_bp)
        return Route(routing, ROUTED, cheapest.acquirer_id, merchant.id)
    to = directory.participant_for(routing.scheme, routing.participant)
    return Route(routing, ROUTED if to is not None else NO_ROUTE, to, merchant.id if merchant is not None else None)


def best_route(decoded: Decoded, directory: Directory) -> Route | None:
    """The first candidate that a participant here serves; failing that, the best candidate without a route.

    A label that carries several schemes is paid by whichever is served.
    """
    first = resolve(decoded.routing, directory)
    if first is None or first.to is not None:
        return first
    for candidate in decoded.candidates:
        route = resolve(candidate.routing, directory)
        if route is not None and route.to is not None and candidate.profile.valid:
            return route
    return first
