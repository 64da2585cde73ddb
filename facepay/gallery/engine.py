"""What every gallery engine offers, whatever stands behind it: this process, Milvus or a GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Ids = NDArray[np.int64]

PLACES: Final = 8
"""Best persons kept for a query: two decide, the rest show who else is alike."""
BATCH_MAX: Final = 64
"""Most queries in one search; larger batches are split by the caller."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Queries that are searched together."""

    vectors: Vectors
    """[Q, D] float32, unit length."""
    floors: Vectors
    """[Q]: persons at or above this cosine must be found; those below may be."""
    regions: NDArray[np.uint32] | None = None
    """[Q]: only this region's rows; 0 for all. None for all."""
    margin: float = 0.05
    """Persons this much below the best are wanted as well."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A person found, with the best of the person's templates."""

    person: int
    score: float
    """Cosine."""
    template: int


@dataclass(frozen=True, slots=True)
class Enrolled:
    """Templates to add, in ascending order of their ids, which are never used again."""

    templates: Ids
    persons: Ids
    regions: NDArray[np.uint32]
    vectors: Vectors
    """[M, D] float32, unit length."""


class Engine(Protocol):
    """A gallery: enrol, delete, search. Safe to call from several threads."""

    def add(self, enrolled: Enrolled) -> None:
        """Makes templates findable; they are when it returns."""
        ...

    def remove(self, templates: Sequence[int]) -> int:
        """Makes templates unfindable, and returns how many there were; nobody finds them after it returned."""
        ...

    def search(self, batch: Batch) -> list[tuple[Candidate, ...]]:
        """For each query the best persons, best first."""
        ...

    def __len__(self) -> int:
        """Living templates."""
        ...

    def close(self) -> None:
        """Frees what is held."""
        ...
