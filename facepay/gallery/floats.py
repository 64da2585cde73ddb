"""The exact scan of float32 rows: what every other engine is measured and tested against."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from facepay.gallery.engine import Batch, Candidate, Enrolled, Vectors
from facepay.gallery.rows import DEAD, Register


class FloatScan:
    """facepay.gallery.engine.Engine by one matrix product over everything."""

    def __init__(self, dimension: int) -> None:
        self._register = Register()
        self._vectors: Vectors = np.empty((0, dimension), np.float32)

    def add(self, enrolled: Enrolled) -> None:
        with self._register.lock:
            self._vectors = np.concatenate([self._vectors, enrolled.vectors])
            self._register.add(enrolled)

    def remove(self, templates: Sequence[int]) -> int:
        return len(self._register.remove(templates))

    def search(self, batch: Batch) -> list[tuple[Candidate, ...]]:
        """The best persons for each query, also those with a score below the floor."""
        with self._register.lock:
            vectors, labels = self._vectors, self._register.labels
        scores = batch.vectors @ vectors.T
        out = []
        for query, row_scores in enumerate(scores):
            region = 0 if batch.regions is None else int(batch.regions[query])
            good = labels.persons != DEAD
            if region:
                good &= labels.regions == region
            rows = np.flatnonzero(good)
            out.append(self._register.best(rows, row_scores[rows]))
        return out

    def __len__(self) -> int:
        return len(self._register)

    def close(self) -> None:
        """Nothing to free."""
