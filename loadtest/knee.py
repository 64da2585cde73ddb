"""Where a server's knee is, from stages of rising load: the last rate that it keeps, and the curve behind it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hutong_contract.extras import needs

KEPT: Final = 0.95
"""Goodput of a stage, as a share of what was offered, from which the server counts as keeping up."""
STAGES_MIN: Final = 4
"""Stages that a curve with three parameters needs at least."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What was seen at one rate."""

    offered_per_s: float
    goodput_per_s: float
    """Calls that did what was asked."""
    p99_ms: float
    """From when each call was due."""
    concurrency: float = 0.0
    """Calls in flight, on average; 0 where it is not known: Little's law then says it from the median."""


@dataclass(frozen=True, slots=True)
class Usl:
    """The universal scalability law, X(N) = gamma N / (1 + sigma (N - 1) + kappa N (N - 1)), fitted to stages."""

    gamma: float
    """Calls a second with one in flight."""
    sigma: float
    """Contention: the share of the work that is done one after the other."""
    kappa: float
    """Crosstalk: what each pair of calls in flight costs."""
    r2: float
    """Share of the variance that the curve explains; a low one says that the machine, not the server, was measured."""

    @property
    def peak_concurrency(self) -> float:
        """Calls in flight at the highest throughput; infinity without crosstalk."""
        return float("inf") if self.kappa <= 0 else float(np.sqrt(max(0.0, 1 - self.sigma) / self.kappa))


@dataclass(frozen=True, slots=True)
class Knee:
    """What a search found."""

    knee_per_s: float
    """The highest rate whose goodput was at least KEPT of it; 0 where none was."""
    slo_per_s: float
    """The highest such rate whose p99 was within the objective; 0 where none was."""
    usl: Usl | None
    """None where there were too few stages, or no curve fits them."""


def keeps_up(stage: Stage) -> bool:
    """Whether the server did nearly all that it was asked for."""
    return stage.goodput_per_s >= KEPT * stage.offered_per_s


def find(stages: Sequence[Stage], slo_p99_ms: float) -> Knee:
    """Evaluates stages of rising load, in any order."""
    kept = [stage for stage in stages if keeps_up(stage)]
    within = [stage for stage in kept if stage.p99_ms <= slo_p99_ms]
    return Knee(
        max((stage.offered_per_s for stage in kept), default=0.0),
        max((stage.offered_per_s for stage in within), default=0.0),
        fit([(stage.concurrency, stage.goodput_per_s) for stage in stages if stage.concurrency > 0]),
    )


def fit(points: Sequence[tuple[float, float]]) -> Usl | None:
    """Fits the law to (calls in flight, calls a second); None for too few points or where no curve fits."""
    if len(points) < STAGES_MIN:
        return None
    with needs("bench"):
        from scipy.optimize import curve_fit

    in_flight = np.array([point[0] for point in points])
    rate = np.array([point[1] for point in points])

    def law(n: NDArray[np.float64], gamma: float, sigma: float, kappa: float) -> NDArray[np.float64]:
        rates: NDArray[np.float64] = gamma * n / (1 + sigma * (n - 1) + kappa * n * (n - 1))
        return rates

    start = (float((rate / in_flight).max()), 0.1, 1e-4)
    try:
        (gamma, sigma, kappa), _ = curve_fit(
            law, in_flight, rate, p0=start, bounds=((0, 0, 0), (np.inf, np.inf, np.inf)), maxfev=10_000
        )
    except RuntimeError:  # it did not converge
        return None
    spread = float(((rate - rate.mean()) ** 2).sum())
    left = float(((rate - law(in_flight, gamma, sigma, kappa)) ** 2).sum())
    return Usl(float(gamma), float(sigma), float(kappa), 1 - left / spread if spread else 0.0)
