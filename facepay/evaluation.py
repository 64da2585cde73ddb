"""Evaluates models on a set of photographs: genuine and impostor scores, ROC, open-set errors. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float32]

FPIR_POINTS: Final = (0.0, 1e-3, 1e-2, 1e-1)
FMR_POINTS: Final = (1e-4, 1e-3, 1e-2)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Scores of all pairs of photographs."""

    genuine: Scores
    impostor: Scores


@dataclass(frozen=True, slots=True)
class OpenSet:
    """Errors of searching a gallery of one photograph a person."""

    fpir: float
    threshold: float
    fnir: float
    searches_enrolled: int
    searches_strangers: int


def pairs(vectors: Scores, persons: NDArray[np.int64]) -> Pairs:
    """All pairs of unit embeddings [M, D]."""
    scores = vectors @ vectors.T
    upper = np.triu(np.ones(scores.shape, bool), 1)
    same = persons[:, None] == persons[None, :]
    return Pairs(scores[upper & same], scores[upper & ~same])


def roc(both: Pairs, points: int = 200) -> NDArray[np.float64]:
    """[M, 3]: threshold, false match rate, true match rate, at up to `points` false match rates that the pairs resolve:
    none lower than one impostor pair in all, because nothing was measured there."""
    genuine, impostor = np.sort(both.genuine), np.sort(both.impostor)
    if not len(genuine) or not len(impostor):
        return np.empty((0, 3))
    # How many impostor pairs are accepted: 1 to all, evenly by logarithm.
    accepted = np.unique(np.geomspace(1, len(impostor), points).round().astype(np.int64))
    thresholds = impostor[len(impostor) - accepted]
    tmr = 1 - np.searchsorted(genuine, thresholds) / len(genuine)
    fmr = 1 - np.searchsorted(impostor, thresholds) / len(impostor)  # Ties are accepted together.
    return np.column_stack([thresholds, fmr, tmr])


@dataclass(frozen=True, slots=True)
class EqualError:
    """Where false matches are as frequent as false non-matches."""

    rate: float
    threshold: float
    resolution: float
    """Smallest difference of rates that the pairs can show: one pair of the scarcer kind."""


def equal_error(both: Pairs) -> EqualError | None:
    """The equal error rate, between the two nearest thresholds that the scores allow; None without both kinds."""
    if not len(both.genuine) or not len(both.impostor):
        return None
    genuine, impostor = np.sort(both.genuine), np.sort(both.impostor)
    thresholds = np.unique(np.concatenate([genuine, impostor]))
    fnmr = np.searchsorted(genuine, thresholds) / len(genuine)
    fmr = 1 - np.searchsorted(impostor, thresholds) / len(impostor)
    at = int(np.argmin(np.abs(fnmr - fmr)))
    rate = float((fnmr[at] + fmr[at]) / 2)
    return EqualError(rate, float(thresholds[at]), 1 / min(len(genuine), len(impostor)))


def interval(share: NDArray[np.float64], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """95 % limits (Wilson's) of shares that were counted among `count` trials."""
    z = 1.96
    middle = share + z * z / (2 * count)
    reach = z * np.sqrt((share * (1 - share) + z * z / (4 * count)) / count)
    below = np.asarray((middle - reach) / (1 + z * z / count), np.float64)
    above = np.asarray((middle + reach) / (1 + z * z / count), np.float64)
    return np.clip(below, 0, 1), np.clip(above, 0, 1)


def true_match_at(both: Pairs, fmr: float) -> float | None:
    """Share of genuine pairs accepted where this share of impostor pairs is; None where there are too few pairs."""
    if len(both.impostor) * fmr < 1 or not len(both.genuine):
        return None
    threshold = np.quantile(both.impostor, 1 - fmr)
    return float((both.genuine > threshold).mean())


def open_set(vectors: Scores, persons: NDArray[np.int64]) -> list[OpenSet]:
    """Enrols the first photograph of each second person; every other photograph searches. Strangers are the rest."""
    names = np.unique(persons)
    enrolled = names[::2]
    first = np.array([np.flatnonzero(persons == name)[0] for name in enrolled], np.int64)
    rest = np.setdiff1d(np.arange(len(persons)), first)
    mated = rest[np.isin(persons[rest], enrolled)]
    strangers = rest[~np.isin(persons[rest], enrolled)]
    if not len(mated) or not len(strangers):
        return []
    own = vectors[mated] @ vectors[first].T
    best = own.argmax(axis=1)
    right = enrolled[best] == persons[mated]
    score = own.max(axis=1)
    false = np.sort((vectors[strangers] @ vectors[first].T).max(axis=1))
    out = []
    for fpir in FPIR_POINTS:
        allowed = int(fpir * len(false))
        threshold = float(np.nextafter(false[len(false) - 1 - allowed], np.float32(2)))
        fnir = float((~(right & (score >= threshold))).mean())
        out.append(OpenSet(fpir, threshold, fnir, len(mated), len(strangers)))
    return out
