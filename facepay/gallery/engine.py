"""The interface of every gallery engine: in this process, on Milvus or on a GPU."""

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
    """Queries that are searched as one batch."""

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


class Source(Protocol):
    """Where the truth about templates is kept."""

    def templates(self) -> Ids:
        """Ids of all living templates, ascending."""
        ...

    def load(self, templates: Ids) -> Enrolled:
        """The templates of these ids."""
        ...


@dataclass(frozen=True, slots=True)
class Opened:
    """The result of opening a gallery."""

    quarantined: tuple[str, ...] = ()
    """Files that were damaged; moved to `quarantine/` and rebuilt."""
    dropped: int = 0
    """Rows that the source no longer knew."""
    added: int = 0
    """Rows that were missing."""


@dataclass(frozen=True, slots=True)
class State:
    """The state of a gallery."""

    epoch: int
    """Counts renewals of the secret rotation."""
    segments: int = 0
    tail_rows: int = 0
    quarantined: int = 0
    """Files found damaged and rebuilt since the start."""
    ready_in_s: float = 0.0
    """About how many seconds until searches and changes are answered; 0 where they are now."""


class GalleryUnavailable(RuntimeError):  # noqa: N818 - it is what is wrong
    """The gallery cannot be reached now. The text says what to do."""


class GalleryNotReady(GalleryUnavailable):
    """The gallery is being opened, or its kernels are being compiled. Nothing was done."""

    def __init__(self, retry_s: float) -> None:
        self.retry_s = retry_s
        """About how many seconds it still takes."""
        super().__init__(f"the face gallery is being opened; try again in {retry_s:.0f} s")


class Gallery(Engine, Protocol):
    """A gallery: an engine that is derived from a store of record, and can be made equal to it again. Every method may
    raise GalleryUnavailable."""

    def search_among(self, batch: Batch, templates: Sequence[int]) -> list[tuple[Candidate, ...]]:
        """Searches these templates only (a merchant's, or those with the same last four digits)."""
        ...

    def sample(self, count: int, random: np.random.Generator) -> tuple[Vectors, Ids]:
        """Living templates drawn at random (rotated or not, unit length) and their persons."""
        ...

    def recover(self, source: Source) -> Opened:
        """Makes the gallery equal to the source: at the start, and after the gallery could not be reached."""
        ...

    def maintain(self) -> int:
        """Upkeep for a background thread, called until it returns 0."""
        ...

    def state(self) -> State:
        """The state of the gallery."""
        ...

    def destroy(self) -> None:
        """Closes it and deletes what it keeps, for good: after a renewal."""
        ...
