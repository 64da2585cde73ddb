"""Plain rows with tombstones, for engines that scan a matrix: float32 here, or on a GPU."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from facepay.gallery.engine import PLACES, Candidate, Enrolled, Ids

DEAD: Final = -1


@dataclass(frozen=True, slots=True)
class Labels:
    """What is known of each row beside its vector; `persons` is DEAD where deleted."""

    templates: Ids
    persons: Ids
    regions: NDArray[np.uint32]


class Register:
    """Grows with what is added, and answers which rows count. Safe from several threads."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._labels = Labels(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.uint32))

    def __len__(self) -> int:
        return int(np.count_nonzero(self._labels.persons != DEAD))

    @property
    def labels(self) -> Labels:
        """All rows so far."""
        return self._labels

    def add(self, enrolled: Enrolled) -> None:
        """Appends rows."""
        with self.lock:
            old = self._labels
            self._labels = Labels(
                np.concatenate([old.templates, enrolled.templates]),
                np.concatenate([old.persons, enrolled.persons]),
                np.concatenate([old.regions, enrolled.regions]),
            )

    def remove(self, templates: Sequence[int]) -> Ids:
        """Marks rows dead; returns their numbers."""
        with self.lock:
            rows = np.flatnonzero(np.isin(self._labels.templates, templates) & (self._labels.persons != DEAD))
            self._labels.persons[rows] = DEAD
            return rows

    def best(self, rows: Ids, scores: NDArray[np.float32]) -> tuple[Candidate, ...]:
        """The best persons among scored rows, best first."""
        labels = self._labels
        seen: dict[int, Candidate] = {}
        for at in np.argsort(-scores, kind="stable"):
            row = int(rows[at])
            person = int(labels.persons[row])
            if person != DEAD and person not in seen:
                seen[person] = Candidate(person, float(scores[at]), int(labels.templates[row]))
                if len(seen) == PLACES:
                    break
        return tuple(seen.values())
