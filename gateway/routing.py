"""Chooses the acquirer of a payment: eligible ones by cost, weight and health, and records the reasons.

Acquirers of equal score share a merchant's payments by their weights: over any hundred payments each share is kept
within some points, at any rate of payments.

Health is what the engine observed: the share of answers in time and their latency, as exponentially weighted means, and
a circuit breaker. An open circuit admits nothing until its time is over. Then it is half open: it admits one probe at a
time, until one succeeds (closed) or fails (open again, for twice as long).
"""

from __future__ import annotations

import enum
import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.directory import Acceptance, Directory, Merchant
from gateway.engine.model import ACQUIRERS_MAX

SMOOTHING: Final = 0.05
"""Weight of one observation in the means: about the last 20 observations count."""
FAILURES_TO_OPEN: Final = 5
"""Failures in a row that open a circuit."""
SUCCESS_TO_STAY_CLOSED: Final = 0.5
"""A mean success rate below this opens the circuit too, after OBSERVATIONS_MIN observations."""
OBSERVATIONS_MIN: Final = 20
OPEN_US: Final = 5_000_000
OPEN_US_MAX: Final = 60_000_000
PROBE_US: Final = 1_000_000
"""Time between two probes of a half-open circuit, in microseconds."""
REFRESH_US: Final = 1_000_000
"""How long a computed order is used again, in microseconds. Health changes slowly; an opening circuit ends it at
once."""
EQUAL_BP: Final = 1.0
"""Acquirers whose scores differ by less than this share the traffic by weight, in basis points."""
STARTS: Final = 32
"""Number of places at which a merchant's turns may begin, chosen by its id, so that acquirers get their shares also of
many merchants with one payment each."""
CACHE_MAX: Final = 100_000
"""Merchants whose order and turns are kept; beyond it both start again."""

FAILURE_COST_BP: Final = 1000.0
"""Cost of a certain failure in the score, in basis points."""
LATENCY_COST_BP_PER_S: Final = 20.0


class Circuit(enum.Enum):
    """The state of a circuit breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


@dataclass(slots=True)
class Health:
    """The observed health of one participant."""

    success: float = 1.0
    latency_us: float = 0.0
    observations: int = 0
    failures_in_row: int = 0
    circuit: Circuit = Circuit.CLOSED
    open_until_us: int = 0
    open_us: int = OPEN_US
    probe_after_us: int = 0

    def observe(self, well: bool, latency_us: int, now_us: int, count: int = 1) -> None:
        """Adds an observation: an answer in time or not, or several alike with their mean latency."""
        weight = SMOOTHING if count == 1 else 1.0 - (1.0 - SMOOTHING) ** count
        self.observations += count
        self.success += weight * (float(well) - self.success)
        if well:
            self.latency_us += weight * (latency_us - self.latency_us)
            self.failures_in_row = 0
            if self.circuit is Circuit.HALF_OPEN:
                self.circuit, self.open_us = Circuit.CLOSED, OPEN_US
                self.success = max(self.success, SUCCESS_TO_STAY_CLOSED)
        else:
            self.failures_in_row += count
            unhealthy = self.success < SUCCESS_TO_STAY_CLOSED and self.observations >= OBSERVATIONS_MIN
            if self.circuit is Circuit.HALF_OPEN:
                self.open_us = min(self.open_us * 2, OPEN_US_MAX)
                self._open(now_us)
            elif self.circuit is Circuit.CLOSED and (self.failures_in_row >= FAILURES_TO_OPEN or unhealthy):
                self._open(now_us)

    def _open(self, now_us: int) -> None:
        self.circuit = Circuit.OPEN
        self.open_until_us = now_us + self.open_us

    def admits(self, now_us: int) -> bool:
        """Whether a payment may be sent there now. In a half-open circuit this uses up the probe."""
        if self.circuit is Circuit.OPEN and now_us >= self.open_until_us:
            self.circuit, self.probe_after_us = Circuit.HALF_OPEN, now_us
        if self.circuit is Circuit.HALF_OPEN and now_us >= self.probe_after_us:
            self.probe_after_us = now_us + PROBE_US
            return True
        return self.circuit is Circuit.CLOSED


@dataclass(frozen=True, slots=True)
class Route:
    """The acquirers to try, in order, and the reasons."""

    acquirers: tuple[str, ...]
    explanation: str
    """JSON: [[acquirer id, score, [reasons]], ...], best first, including those that are not eligible."""
    route_id: int
    """63-bit id of the explanation, under which the journal stores it once."""


class Router:
    """Chooses acquirers. Used by the engine's thread alone."""

    def __init__(self, directory: Directory, reachable: Callable[[str], bool]) -> None:
        self.directory = directory
        self._reachable = reachable
        self._health: dict[str, Health] = {}
        self._cache: dict[tuple[str, str], _Plan] = {}
        self._turns: dict[tuple[str, str], dict[str, float]] = {}
        """What each acquirer is owed, in weights, by merchant and currency. It outlives the plans, which are computed
        again each second, so that shares are kept however few payments there are in a second."""

    def health(self, participant: str) -> Health:
        """The health of a participant."""
        return self._health.setdefault(participant, Health())

    def observe(self, participant: str, well: bool, latency_us: int, now_us: int, count: int = 1) -> None:
        """Adds observations of the engine. A circuit that changes makes all computed orders stale."""
        health = self.health(participant)
        before = health.circuit
        health.observe(well, latency_us, now_us, count)
        if health.circuit is not before:
            self._cache.clear()

    def shift(self, by_us: int) -> None:
        """Adjusts to a step of the clock: a circuit stays open for the time that it had left."""
        for health in self._health.values():
            health.open_until_us += by_us
            health.probe_after_us += by_us
        self._cache.clear()

    def route(self, merchant: Merchant, currency: str, now_us: int) -> Route:
        """The acquirers that can serve this merchant in this currency; `acquirers` is empty if nobody can."""
        key = (merchant.id, currency)
        plan = self._cache.get(key)
        if plan is None or plan.until_us <= now_us:
            if len(self._cache) >= CACHE_MAX:
                self._cache.clear()
            plan = self._cache[key] = self._plan(merchant, currency, now_us)
        return plan.next()

    def currencies(self, merchant: Merchant) -> frozenset[str]:
        """The currencies that a merchant's acquirers settle, reachable or not; empty: all."""
        settled = [self.directory.participants[served.acquirer_id].currencies for served in merchant.acquirers]
        return frozenset().union(*settled) if all(settled) else frozenset()

    def _plan(self, merchant: Merchant, currency: str, now_us: int) -> _Plan:
        """An order for each acquirer that may be first, to be used for a while; or an order with a probe, for one
        payment."""
        rated = [self._rate(acceptance, currency, now_us) for acceptance in merchant.acquirers]
        eligible = sorted((entry for entry in rated if entry.eligible), key=lambda entry: entry.score)
        equals = [entry for entry in eligible if entry.score - eligible[0].score < EQUAL_BP]
        probing = any(self.health(entry.id).circuit is not Circuit.CLOSED for entry in rated)
        shown = eligible + [entry for entry in rated if not entry.eligible]
        text = json.dumps([[entry.id, round(entry.score, 1), entry.reasons] for entry in shown], separators=(",", ":"))
        name = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
        routes: dict[str, Route] = {}
        for leader in equals:
            order = [leader.id, *(entry.id for entry in eligible if entry is not leader)]
            routes[leader.id] = Route(tuple(order[:ACQUIRERS_MAX]), text, name)
        until_us = 0 if probing else now_us + REFRESH_US
        if len(routes) < 2:
            only = routes[equals[0].id] if equals else Route((), text, name)
            return _Plan(until_us, routes, only, [], 0.0, {})
        weights = [(entry.id, entry.weight) for entry in equals]
        total = sum(weight for _, weight in weights)
        return _Plan(until_us, routes, None, weights, total, self._owed(merchant, currency, weights, total))

    def _owed(
        self, merchant: Merchant, currency: str, weights: Sequence[tuple[str, float]], total: float
    ) -> dict[str, float]:
        """The turns of a merchant's acquirers, continued from the former plan."""
        key = (merchant.id, currency)
        owed = self._turns.get(key)
        if owed is None:
            if len(self._turns) >= CACHE_MAX:
                self._turns.clear()
            owed = self._turns[key] = {served.acquirer_id: 0.0 for served in merchant.acquirers}
            for _ in range(zlib.crc32(merchant.id.encode()) % STARTS):
                _turn(weights, total, owed)
        return owed

    def _rate(self, acceptance: Acceptance, currency: str, now_us: int) -> _Rated:
        participant = self.directory.participants[acceptance.acquirer_id]
        health = self.health(participant.id)
        reasons = [f"cost {acceptance.cost_bp:g}bp", f"weight {acceptance.weight:g}"]
        eligible = True
        if participant.currencies and currency not in participant.currencies:
            reasons.append(f"does not settle {currency}")
            eligible = False
        elif not self._reachable(participant.id):
            reasons.append("not connected")
            eligible = False
        elif not health.admits(now_us):
            reasons.append(f"circuit {health.circuit.value}")
            eligible = False
        elif health.circuit is Circuit.HALF_OPEN:
            reasons.append("circuit half-open, probe")
        if health.observations:
            reasons.append(f"success {health.success:.2f}")
            reasons.append(f"latency {health.latency_us / 1000:.1f}ms")
        score = (
            -FAILURE_COST_BP  # the probe goes first; if it fails, the next acquirer takes over
            if health.circuit is Circuit.HALF_OPEN
            else acceptance.cost_bp
            + (1.0 - health.success) * FAILURE_COST_BP
            + health.latency_us / 1e6 * LATENCY_COST_BP_PER_S
            + (FAILURE_COST_BP if acceptance.weight == 0 else 0.0)
        )
        return _Rated(participant.id, score, acceptance.weight, eligible, reasons)


@dataclass(frozen=True, slots=True)
class _Rated:
    id: str
    score: float
    weight: float
    eligible: bool
    reasons: list[str]


def _turn(weights: Sequence[tuple[str, float]], total: float, owed: dict[str, float]) -> str:
    """The next acquirer, in proportion to weights and evenly spread (smooth weighted round robin): every claim grows by
    its weight; the largest claim wins and pays `total`, the sum of the weights."""
    first, most = "", float("-inf")
    for name, weight in weights:
        claim = owed[name] = owed[name] + weight
        if claim > most:
            first, most = name, claim
    owed[first] -= total
    return first


@dataclass(slots=True)
class _Plan:
    until_us: int
    routes: dict[str, Route]
    """Routes by their first acquirer."""
    only: Route | None
    """The route, if there is no choice."""
    weights: list[tuple[str, float]]
    total: float
    owed: dict[str, float]

    def next(self) -> Route:
        """The route of the next payment."""
        return self.only or self.routes[_turn(self.weights, self.total, self.owed)]
