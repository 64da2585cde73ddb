"""The recall certificate: how often a gallery's first answer is that of an exact float scan, with its interval."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from facepay.gallery.engine import Candidate, Ids, Vectors

TIE: Final = 0.002
"""Scores this near are a tie: six standard deviations of what int8 rounding changes."""


@dataclass(frozen=True, slots=True)
class Exact:
    """The two best of an exact scan, for each query: [Q, 2], best first."""

    persons: Ids
    scores: Vectors


@dataclass(frozen=True, slots=True)
class Certificate:
    """What was measured."""

    data: str
    """Which data: "clustered" or "isotropic"."""
    queries: int
    """Queries whose exact best score reaches the decision threshold; only they count."""
    agreed: int
    agreement: float
    lower_95: float
    """Lower end of the 95 % interval (Clopper-Pearson for no or few misses, by Poisson)."""
    largest_score_error: float

    def as_json(self) -> dict[str, object]:
        """For machines."""
        return asdict(self)


class Top2:
    """Collects an exact scan's two best, block by block."""

    def __init__(self, queries: int) -> None:
        self.persons: Ids = np.full((queries, 2), -1, np.int64)
        self.scores: Vectors = np.full((queries, 2), -2, np.float32)

    def offer(self, queries: Vectors, vectors: Vectors, first_person: int) -> None:
        """Scans one block [M, D] of persons first_person, first_person + 1 ..."""
        for start in range(0, len(queries), 256):
            scores = queries[start : start + 256] @ vectors.T
            best = scores.argmax(axis=1)
            rows = np.arange(len(scores))
            self._merge(start, best + first_person, scores[rows, best])
            scores[rows, best] = -2
            best = scores.argmax(axis=1)
            self._merge(start, best + first_person, scores[rows, best])

    def _merge(self, start: int, persons: NDArray[np.int64], scores: Vectors) -> None:
        part = slice(start, start + len(persons))
        for place in range(2):
            better = scores > self.scores[part, place]
            self.scores[part, place], scores = (
                np.where(better, scores, self.scores[part, place]),
                np.where(better, self.scores[part, place], scores),
            )
            self.persons[part, place], persons = (
                np.where(better, persons, self.persons[part, place]),
                np.where(better, self.persons[part, place], persons),
            )

    def result(self) -> Exact:
        """What was found."""
        return Exact(self.persons, self.scores)


def compare(
    data: str, exact: Exact, found: list[tuple[Candidate, ...]], threshold: float, person_offset: int = 0
) -> Certificate:
    """Compares first answers where the exact best reaches the threshold; a tie counts as agreement."""
    counted = agreed = 0
    error = 0.0
    for persons, scores, candidates in zip(exact.persons.tolist(), exact.scores.tolist(), found, strict=True):
        if scores[0] < threshold:
            continue
        counted += 1
        if not candidates:
            continue
        person = candidates[0].person - person_offset
        same = person == persons[0] or (person == persons[1] and scores[0] - scores[1] < TIE)
        agreed += same
        if person == persons[0]:
            error = max(error, abs(candidates[0].score - scores[0]))
    missed = counted - agreed
    # Poisson upper limit of the expected misses: 3.0 for none, then the usual approximation.
    upper = 3.0 if missed == 0 else missed + 1.96 * math.sqrt(missed) + 2.0
    agreement = agreed / counted if counted else 0.0
    return Certificate(data, counted, agreed, agreement, max(0.0, 1 - upper / counted) if counted else 0.0, error)
