"""The two-stage search over a set of rows: every sketch, then exactly those rows that could matter.

Pass one takes the least Hamming distance of each block of 64 rows, by the first half of the coarse sketch. The rows
nearest by it are scored exactly, which gives a lower bound of the best score; from it follows how far by sketch a row
may lie that still matters (`sketch.limits`). Pass two takes all those, by the first half, by the whole, and where many
are left by a second sketch, and scores the rest. A query that resembles somebody leaves a handful of rows; one that
resembles nobody leaves a hundredth of the gallery; where several such wait together `int8` products may be cheaper.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from facepay.gallery import kernels
from facepay.gallery.engine import PLACES, Batch, Candidate, Ids, Vectors
from facepay.gallery.instructions import BLOCK_ROWS, GROUP_WORDS
from facepay.gallery.segment import Rows
from facepay.gallery.sketch import SIGMAS_FIRST, Bits, Projection, limits

LOWEST: Final = np.float32(-2)
"""Below every cosine: an empty place."""
ROW_LIMIT: Final = 1 << 40
"""Place = (segment number + 1) * ROW_LIMIT + row number: one integer that kernels can carry."""
SPLIT_ROWS_MIN: Final = 600_000
"""Fewer rows times queries are not worth waking another thread for, which takes as long as some 200,000."""
CROWDED_SIGMAS: Final = 2.7
"""Where the coarse limit is less than this many standard deviations below the mean distance of strangers, more than
three rows in a thousand come within it, and the fine sketch is looked at before they are scored."""


@dataclass(slots=True)
class Best:
    """The best persons of each query so far: [Q, PLACES]."""

    scores: Vectors
    people: Ids
    places: Ids

    @classmethod
    def empty(cls, queries: int) -> Best:
        """Nobody yet."""
        shape = (queries, PLACES)
        return cls(np.full(shape, LOWEST), np.full(shape, -1, np.int64), np.full(shape, -1, np.int64))


@dataclass(slots=True)
class Slice:
    """Some blocks of one segment, as one thread works on them."""

    blocks: Bits
    fine: Bits
    rows: NDArray[np.int8]
    scales: Vectors
    persons: Ids
    regions: NDArray[np.uint32]
    base: int
    """What turns a row number of the slice into a place: (segment + 1) * ROW_LIMIT + first row."""
    minima: NDArray[np.uint16] = field(default_factory=lambda: np.empty((0, 0), np.uint16))


@dataclass(slots=True)
class Prepared:
    """A batch in the gallery's own space."""

    vectors: Vectors
    bits: Bits
    floors: Vectors
    regions: NDArray[np.uint32]
    margin: float


@dataclass(slots=True)
class Near:
    """How far a row may lie from each query that still matters."""

    limits: NDArray[np.int64]
    """[Q, 3] Hamming distances, as `kernels.collect` takes them."""
    fine: Bits
    """[Q, W] fine sketches of the queries, where they are wanted."""


def prepare(batch: Batch, projection: Projection) -> Prepared:
    """Rotates and sketches the queries."""
    rotated, coarse = projection.query(batch.vectors)
    regions = np.zeros(len(rotated), np.uint32) if batch.regions is None else batch.regions
    return Prepared(rotated, coarse, batch.floors, regions, batch.margin)


def nearness(prepared: Prepared, reached: Vectors, projection: Projection) -> Near:
    """The limits that follow from the best scores reached so far, [Q]."""
    wanted = np.maximum(reached - np.float32(prepared.margin), prepared.floors)
    bits = projection.bits
    out = np.empty((len(wanted), 3), np.int64)
    out[:, 0] = limits(wanted, GROUP_WORDS * 64, SIGMAS_FIRST)
    out[:, 1] = limits(wanted, bits)
    out[:, 2] = -1
    fine = np.empty((len(wanted), projection.words), np.uint64)
    # Where few strangers come within the coarse limit, another sketch would cost more than their exact scores.
    crowded = np.flatnonzero(out[:, 1] > bits / 2 - CROWDED_SIGMAS * np.sqrt(bits) / 2)
    if len(crowded):
        out[crowded, 2] = limits(wanted[crowded], 2 * bits)
        fine[crowded] = projection.fine_query(prepared.vectors[crowded])
    return Near(out, fine)


def slices(parts: tuple[Rows, ...], shares: int) -> list[list[Slice]]:
    """Divides all visible rows into `shares` lists of about equal length."""
    blocks = [-(-part.count // BLOCK_ROWS) for part in parts]
    total = sum(blocks)
    share = max(1, -(-total // shares))
    out: list[list[Slice]] = [[]]
    room = share
    for number, (part, length) in enumerate(zip(parts, blocks, strict=True)):
        start = 0
        while start < length:
            if room == 0:
                out.append([])
                room = share
            take = min(length - start, room)
            out[-1].append(_slice(number, part, start, start + take))
            start, room = start + take, room - take
    return out


def _slice(number: int, part: Rows, start: int, stop: int) -> Slice:
    first, last = start * BLOCK_ROWS, min(stop * BLOCK_ROWS, part.count)
    return Slice(
        part.blocks[start:stop],
        part.fine[first:last],
        part.rows[first:last],
        part.scales[first:last],
        part.persons[first:last],
        part.regions[first:last],
        (number + 1) * ROW_LIMIT + first,
    )


Wide = Callable[[Prepared, NDArray[np.int64]], list[Best]]
"""Searches the queries of these numbers another way; nothing where it would not help."""


def search(
    parts: tuple[Rows, ...],
    prepared: Prepared,
    projection: Projection,
    pool: ThreadPoolExecutor | None,
    wide: Wide | None = None,
) -> list[tuple[Candidate, ...]]:
    """Both passes; half of the rows on a thread of the pool where one is given."""
    queries = len(prepared.vectors)
    shares = slices(parts, 2 if pool else 1)
    least = np.full((len(shares), queries), np.iinfo(np.uint16).max, np.uint16)
    helper = pool if queries * sum(part.count for part in parts) >= SPLIT_ROWS_MIN else None
    on_all(helper, [partial(_first_pass, share, prepared, least[n]) for n, share in enumerate(shares)])
    reached = _seeded(shares, prepared, least.min(axis=0))
    near = nearness(prepared, reached, projection)
    results = [Best.empty(queries) for _ in shares]
    if wide is not None:
        vague = np.flatnonzero(reached < prepared.floors)
        otherwise = wide(prepared, vague) if len(vague) else []
        if otherwise:
            near.limits[vague] = -1
            results += otherwise
    # One resemblance leaves a handful of rows, which are not worth waking another thread for.
    helper = pool if queries > 1 or near.limits[0, 2] >= 0 else None
    on_all(helper, [partial(_second_pass, share, prepared, near, results[n]) for n, share in enumerate(shares)])
    return _merge(parts, results)


def on_all(pool: ThreadPoolExecutor | None, work: Sequence[Callable[[], None]]) -> None:
    """Runs all, the first on this thread."""
    others = [pool.submit(item) for item in work[1:]] if pool else []
    for item in work[: 1 if pool else None]:
        item()
    for other in others:
        other.result()


def _first_pass(work: list[Slice], prepared: Prepared, least: NDArray[np.uint16]) -> None:
    for piece in work:
        piece.minima = np.empty((len(prepared.vectors), len(piece.blocks)), np.uint16)
        kernels.block_minima(piece.blocks, prepared.bits, piece.minima, least)


def _seeded(shares: list[list[Slice]], prepared: Prepared, least: NDArray[np.uint16]) -> Vectors:
    """The best score among the rows nearest by sketch, for each query."""
    reached: Vectors = np.full(len(prepared.vectors), LOWEST)
    for piece in (piece for share in shares for piece in share):
        kernels.seed(
            piece.blocks,
            piece.minima,
            least,
            prepared.bits,
            prepared.vectors,
            piece.rows,
            piece.scales,
            piece.persons,
            reached,
        )
    return reached


def _second_pass(work: list[Slice], prepared: Prepared, near: Near, best: Best) -> None:
    for piece in work:
        kernels.collect(
            piece.blocks,
            piece.minima,
            prepared.bits,
            near.limits,
            piece.fine,
            near.fine,
            prepared.regions,
            prepared.vectors,
            piece.rows,
            piece.scales,
            piece.persons,
            piece.regions,
            piece.base,
            best.scores,
            best.people,
            best.places,
        )


def _merge(parts: tuple[Rows, ...], results: list[Best]) -> list[tuple[Candidate, ...]]:
    """The best places over all shares, without rows that were deleted meanwhile."""
    out: list[tuple[Candidate, ...]] = []
    for query in range(len(results[0].scores)):
        seen: dict[int, Candidate] = {}
        for best in results:
            for place, value in enumerate(best.scores[query].tolist()):
                if value <= LOWEST:
                    break
                person = int(best.people[query, place])
                segment, row = divmod(int(best.places[query, place]), ROW_LIMIT)
                rows = parts[segment - 1]
                if int(rows.persons[row]) == person and (person not in seen or seen[person].score < value):
                    seen[person] = Candidate(person, value, int(rows.templates[row]))
        out.append(tuple(sorted(seen.values(), key=lambda found: -found.score)[:PLACES]))
    return out


def search_rows(parts: tuple[Rows, ...], prepared: Prepared, rows: list[Ids]) -> list[tuple[Candidate, ...]]:
    """Scores given rows of each part exactly, without sketches."""
    best = Best.empty(len(prepared.vectors))
    for number, (part, chosen) in enumerate(zip(parts, rows, strict=True)):
        for query in range(len(prepared.vectors)) if len(chosen) else ():
            kernels.score_rows(
                chosen.astype(np.int32),
                prepared.regions[query],
                prepared.vectors[query],
                part.rows,
                part.scales,
                part.persons,
                part.regions,
                (number + 1) * ROW_LIMIT,
                best.scores[query],
                best.people[query],
                best.places[query],
            )
    return _merge(parts, [best])
