"""What a set of photographs says about models: genuine and impostor scores, ROC, open-set errors. Pure."""

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


def roc(both: Pairs, points: int = 400) -> NDArray[np.float64]:
    """[points, 3]: threshold, false match rate, true match rate."""
    thresholds = np.linspace(-0.2, 1.0, points)
    genuine, impostor = np.sort(both.genuine), np.sort(both.impostor)
    tmr = 1 - np.searchsorted(genuine, thresholds) / max(1, len(genuine))
    fmr = 1 - np.searchsorted(impostor, thresholds) / max(1, len(impostor))
    return np.column_stack([thresholds, fmr, tmr])


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
