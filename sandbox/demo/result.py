"""The result of the demonstration: who paid whom, provoked faults, and the checks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sandbox.demo.attempts import SUCCEEDED
from sandbox.demo.record import Line, missing, percentile_us
from sandbox.population import Population


@dataclass(frozen=True, slots=True)
class Result:
    """The whole result of the demonstration."""

    population: Population
    lines: Sequence[Line]
    differences: Sequence[str]
    """Differences between books and receipts; empty if there are none."""
    conserved: bool
    """Outcome of the conservation check on the journal and the participants' books."""
    conservation: Sequence[str]
    """The findings of that check."""
    seconds: float
    settlement: Sequence[tuple[str, str, int]] = ()
    """(participant, currency, net in minor units) of the settlement window with all payments: what each receives,
    negative if it pays."""

    @property
    def gaps(self) -> list[str]:
        """The gaps of the matrix."""
        wallets = [wallet.id for wallet in self.population.wallets]
        return missing(self.lines, wallets, [acquirer.id for acquirer in self.population.acquirers])

    @property
    def failures(self) -> list[str]:
        """All deviations from what was expected, in sentences."""
        wrong = [
            f"{line.scene}: {line.wallet_id} at {line.merchant_id} came to {line.outcome}, not {line.expected}"
            + (f" ({line.wrong})" if line.wrong else "")
            for line in self.lines
            if not line.ok
        ]
        check = [] if self.conserved else ["the conservation check failed"]
        sums: Counter[str] = Counter()
        for _, currency, net_minor in self.settlement:
            sums[currency] += net_minor
        unsettled = [f"net positions in {currency} sum to {net}" for currency, net in sums.items() if net]
        return wrong + self.gaps + list(self.differences) + check + unsettled

    @property
    def ok(self) -> bool:
        """Whether everything was as expected."""
        return not self.failures

    def as_json(self) -> dict[str, Any]:
        """Plain values for JSON; latencies in milliseconds."""
        latencies = [line.latency_us for line in self.lines if line.key and line.ok]
        shares = {"p50": 0.50, "p99": 0.99, "max": 1.0}
        return {
            "ok": self.ok,
            "seed": self.population.seed,
            "seconds": round(self.seconds, 1),
            "payments": sum(line.outcome == SUCCEEDED for line in self.lines),
            "attempts": len(self.lines),
            "matrix": [line.as_json() for line in self.lines if line.key],
            "events": [line.as_json() for line in self.lines if not line.key],
            "latency_ms": {name: percentile_us(latencies, share) / 1_000 for name, share in shares.items()},
            "conserved": self.conserved,
            "settlement": [
                {"participant": participant, "currency": currency, "net_minor": net_minor}
                for participant, currency, net_minor in self.settlement
            ],
            "failures": self.failures,
        }
