"""A model of how strangers score: the upper tail, fitted from pairs, and the threshold for N people.

Among N enrolled strangers a search exceeds t with probability 1 - (1 - F)^N, where F is the chance of one pair. N and a
false-positive budget together require an F far below what can be counted (3e-10 at 325,500). Therefore the logarithm of
the tail is fitted as a parabola where there is data, and extrapolated. Relatives are not strangers: the fit ends before
the few pairs in a million that twins and siblings make. A bootstrap over probes gives confidence limits, of which the
upper one is used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

BINS: Final = 800
"""Bins over -1..1: a quarter of a hundredth each."""
TAIL_FROM: Final = 1e-2
"""The fit starts at the score that this share of pairs exceeds."""
TAIL_COUNT_MIN: Final = 40
"""The fit ends where fewer pairs than this are left, because their number says little."""
RELATIVES_SHARE: Final = 0.1
"""The fit also ends where pairs of relatives would distort it: at most one person in ten is assumed to have one among
those enrolled."""
RELATIVES_WEIGHT: Final = 10
"""Factor by which pairs of strangers must outnumber those of relatives."""
RESAMPLES: Final = 100
SCORE_MAX: Final = 0.98
"""No threshold is higher: photographs of one person rarely score more."""


@dataclass(frozen=True, slots=True)
class ScoreModel:
    """ln F(s) = a + b s + c s^2 beyond the fit's start."""

    a: float
    b: float
    c: float
    pairs: int
    """Pairs that it was fitted from; 0 for the default."""
    spread: float = 0.0
    """Half the width of the 95 % interval of the score where ln F is that of one in 10^9."""

    def threshold(self, enrolled: int, fpir: float) -> float:
        """The cosine that strangers among so many reach in a share `fpir` of searches; its upper 95 % limit."""
        wanted = false_match_rate(enrolled, fpir)
        return min(SCORE_MAX, self._score(math.log(wanted)) + self.spread)

    def _score(self, log_rate: float) -> float:
        constant = self.a - log_rate
        root = self.b * self.b - 4 * self.c * constant
        if self.c >= -1e-9:
            return -constant / self.b
        return (-self.b - math.sqrt(max(root, 0.0))) / (2 * self.c)


def false_match_rate(enrolled: int, fpir: float) -> float:
    """The chance of one pair that gives `fpir` among so many."""
    return -math.expm1(math.log1p(-fpir) / max(1, enrolled))


def gaussian(mean: float, sigma: float) -> ScoreModel:
    """The model of scores that are normal, fitted to the normal tail between 3 and 7 sigma."""
    z = np.linspace(3, 7, 80)
    log_tail = np.array([math.log(0.5 * math.erfc(value / math.sqrt(2))) for value in z])
    c, b, a = np.polyfit(mean + sigma * z, log_tail, 2)
    return ScoreModel(float(a), float(b), float(c), 0)


DEFAULT: Final = gaussian(0.0, 0.066)
"""Before anything can be fitted: strangers of a 512-dimensional network, on the careful side."""


def fit(
    vectors: Vectors, persons: NDArray[np.int64], probes: int, random: np.random.Generator, enrolled: int = 0
) -> ScoreModel:
    """Fits from templates [M, D] and their persons: the first `probes` of a random order against all others.

    `enrolled` is how many templates they were drawn from (0: these are all): two relatives are rarely drawn both.
    Returns DEFAULT where there are too few pairs to say anything (fewer than some 200,000).
    """
    order = random.permutation(len(vectors))[:probes]
    histograms = np.zeros((len(order), BINS), np.int64)
    for start in range(0, len(order), 128):
        chosen = order[start : start + 128]
        scores = vectors[chosen] @ vectors.T
        bins = np.clip(((scores + 1) * (BINS / 2)).astype(np.int32), 0, BINS - 1)
        same = persons[chosen][:, None] == persons[None, :]
        bins[same] = 0
        offset = np.arange(len(chosen), dtype=np.int32)[:, None] * BINS
        counts = np.bincount((bins + offset).ravel(), minlength=len(chosen) * BINS)
        histograms[start : start + 128] = counts.reshape(len(chosen), BINS)
        histograms[start : start + 128, 0] -= same.sum(axis=1)
    drawn = len(vectors) / max(enrolled, len(vectors))
    relatives = RELATIVES_SHARE * len(order) * drawn
    return fit_histograms(histograms, random, max(TAIL_COUNT_MIN, round(RELATIVES_WEIGHT * relatives)))


def fit_histograms(
    histograms: NDArray[np.int64], random: np.random.Generator, count_min: int = TAIL_COUNT_MIN
) -> ScoreModel:
    """Fits from histograms of impostor scores, one for each probe: [P, BINS] over -1..1."""
    central = _parabola(histograms.sum(axis=0), count_min)
    if central is None:
        return DEFAULT
    rare = math.log(1e-9)
    model = ScoreModel(*central, int(histograms.sum()))
    scores = []
    for _ in range(RESAMPLES):
        weights = np.bincount(random.integers(0, len(histograms), len(histograms)), minlength=len(histograms))
        again = _parabola(weights @ histograms, count_min)
        if again is not None:
            scores.append(ScoreModel(*again, 1)._score(rare))  # noqa: SLF001 - this module's own class
    low, high = np.quantile(scores, [0.025, 0.975]) if scores else (0.0, 0.1)
    return ScoreModel(*central, model.pairs, float(high - low) / 2)


def _parabola(histogram: NDArray[np.int64], count_min: int) -> tuple[float, float, float] | None:
    total = int(histogram.sum())
    above = np.cumsum(histogram[::-1])[::-1]
    edges = np.arange(BINS) * (2 / BINS) - 1
    window = (above <= total * TAIL_FROM) & (above >= count_min)
    if total == 0 or window.sum() < 8:
        return None
    weights = np.sqrt(above[window])  # A count's logarithm has the standard error 1 / sqrt(count).
    c, b, a = np.polyfit(edges[window], np.log(above[window] / total), 2, w=np.sqrt(weights))
    if c > 0 or b + 2 * c * edges[window][-1] >= 0:
        b, a = np.polyfit(edges[window], np.log(above[window] / total), 1, w=np.sqrt(weights))
        c = 0.0
    return (float(a), float(b), float(c)) if b + 2 * c * edges[window][-1] < 0 else None
