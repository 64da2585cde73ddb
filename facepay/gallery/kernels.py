"""Compiled inner loops: Hamming scan over 1-bit sketches, exact re-rank of int8 rows.

Numba turns these into the machine's own vector code (AVX-512 `vpopcntq` where there is one) and releases the GIL.
Layout: 64 rows form a block of `words` x 64 64-bit words, so that one vector instruction handles eight rows and no
sum runs across a register. Shapes: B blocks, W words (a multiple of 8), Q queries, D dimensions, K places.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from facepay.gallery.compiled import kernel
from facepay.gallery.instructions import BLOCK_ROWS, GROUP_WORDS, group, lowest, ones, prefetch, up_to

SEED_SLACK: Final = 8
"""Rows this much farther than the nearest are scored as well for a first lower bound: one standard deviation of a
stranger's distance by 256 bits. Where nobody is near these are some dozen rows, else one."""
DEAD: Final = -1
"""Person of a row that was deleted."""
_PREFETCH_ROWS: Final = 16
"""How many rows ahead memory is asked for: a row takes 100 ns from memory and 20 ns to score."""
_LINE_BYTES: Final = 64


@kernel()
def distances(blocks: Any, block: int, queries: Any, query: int, out: Any) -> int:
    """Hamming distances of one block's rows to one query of [Q, W], into `out` [64] uint16; returns the smallest."""
    words = blocks.shape[1]
    least = np.uint16(0)
    for word in range(0, words, GROUP_WORDS):
        offset = (block * words + word) * (BLOCK_ROWS * 8)
        start = (query * words + word) * 8
        least = group(blocks, offset, queries, start, out, np.uint16(1 if word else 0))
    return least


@kernel()
def block_minima(blocks: Any, queries: Any, out: Any, least: Any) -> None:
    """First pass: blocks [B, W, 64] uint64, queries [Q, W] uint64 -> out [Q, B] uint16, each block's least distance
    by the first GROUP_WORDS words; `least` [Q] uint16 is lowered to the least of all."""
    sums = np.zeros(BLOCK_ROWS, np.uint16)
    words = blocks.shape[1]
    for block in range(blocks.shape[0]):
        offset = block * words * (BLOCK_ROWS * 8)
        for query in range(queries.shape[0]):
            out[query, block] = group(blocks, offset, queries, query * words * 8, sums, np.uint16(0))
    for query in range(queries.shape[0]):
        for block in range(blocks.shape[0]):
            least[query] = min(least[query], out[query, block])


@kernel(fastmath=True)
def dot(row: Any, query: Any) -> float:
    """Inner product of an int8 row and a float32 query."""
    total = np.float32(0)
    for index in range(query.shape[0]):
        total += np.float32(row[index]) * query[index]
    return total


@kernel()
def seed(
    blocks: Any, minima: Any, least: Any, bits: Any, queries: Any, rows: Any, scales: Any, persons: Any, best: Any
) -> None:  # fmt: skip
    """The exact score of the rows nearest by sketch, raised into `best` [Q] float32: a lower bound of the best.

    `least` [Q]: the least of all minima, of these and other blocks.
    """
    sums = np.zeros(BLOCK_ROWS, np.uint16)
    words = blocks.shape[1]
    for query in range(queries.shape[0]):
        limit = least[query] + SEED_SLACK
        for block in range(blocks.shape[0]):
            if minima[query, block] > limit:
                continue
            offset = block * words * (BLOCK_ROWS * 8)
            group(blocks, offset, bits, query * words * 8, sums, np.uint16(0))
            near = up_to(sums, np.uint16(limit))
            while near:
                row = block * BLOCK_ROWS + lowest(near)
                near &= near - np.uint64(1)
                if row < persons.shape[0] and persons[row] >= 0:
                    best[query] = max(best[query], dot(rows[row], queries[query]) * scales[row])


@kernel()
def within(
    blocks: Any, minima: Any, bits: Any, query: int, first: int, limit: int, count: int, out: Any, near: Any
) -> int:  # fmt: skip
    """Numbers of the rows (of `count`) within a Hamming limit of one query: minima [B], bits [Q, W].

    Blocks whose minimum (by the first words) is above `first` are passed over. out [B * 64 + 1] int32 gets the numbers,
    near [B * 64 + 1] uint16 their distances.
    """
    sums = np.zeros(BLOCK_ROWS, np.uint16)
    found = 0
    for block in range(blocks.shape[0]):
        if minima[block] > first or distances(blocks, block, bits, query, sums) > limit:
            continue
        chosen = up_to(sums, np.uint16(limit))
        while chosen:
            place = lowest(chosen)
            chosen &= chosen - np.uint64(1)
            row = block * BLOCK_ROWS + place
            if row < count:
                out[found] = row
                near[found] = sums[place]
                found += 1
    return found


@kernel()
def refine(chosen: Any, near: Any, found: int, fine: Any, bits: Any, limit: int) -> int:
    """Keeps those of the chosen rows that are within a limit by both sketches together: fine [n, W], bits [W].

    A fine sketch is one cache line, an eighth of what an exact score reads.
    """
    kept = 0
    for index in range(found):
        if index + _PREFETCH_ROWS < found:
            prefetch(fine, np.int64(chosen[index + _PREFETCH_ROWS]) * fine.shape[1] * 8)
        row = chosen[index]
        distance = np.uint64(near[index])
        for word in range(fine.shape[1]):
            distance += ones(fine[row, word] ^ bits[word])
        if distance <= np.uint64(limit):
            chosen[kept] = row
            kept += 1
    return kept


@kernel()
def score_rows(
    chosen: Any, region: int, query: Any, rows: Any, scales: Any, persons: Any, regions: Any,
    base: int, scores: Any, people: Any, places: Any,
) -> None:  # fmt: skip
    """Scores chosen rows [M] exactly and keeps the best row of each of the best K persons, best first.

    `region` 0 admits every row; scores [K] float32, people and places [K] int64 are raised in place; a place is
    `base` plus the row's number.
    """
    count, width = chosen.shape[0], rows.shape[1]
    for index in range(count):
        if index + _PREFETCH_ROWS < count:
            start = np.int64(chosen[index + _PREFETCH_ROWS]) * width
            for offset in range(0, width, _LINE_BYTES):
                prefetch(rows, start + offset)
        row = chosen[index]
        person = persons[row]
        if person >= 0 and (region == 0 or regions[row] == region):
            score = dot(rows[row], query) * scales[row]
            if score > scores[-1]:
                offer(score, person, base + row, scores, people, places)


@kernel()
def offer(score: float, person: int, row: int, scores: Any, people: Any, places: Any) -> None:
    """Puts a row among the K best persons, which stay sorted and different."""
    at = scores.shape[0] - 1
    for place in range(scores.shape[0]):
        if people[place] == person:
            if score <= scores[place]:
                return
            at = place
            break
    while at > 0 and scores[at - 1] < score:
        scores[at], people[at], places[at] = scores[at - 1], people[at - 1], places[at - 1]
        at -= 1
    scores[at], people[at], places[at] = score, person, row


@kernel()
def collect(
    blocks: Any, minima: Any, bits: Any, limits: Any, fine: Any, fine_bits: Any, wanted: Any, queries: Any,
    rows: Any, scales: Any, persons: Any, regions: Any, base: int, scores: Any, people: Any, places: Any,
) -> None:  # fmt: skip
    """Second pass: for each query scores every row within its limits; shapes as above, with [Q] in front.

    `limits` [Q, 3]: by the first words, by the coarse sketch, by both sketches together (negative: the fine sketch is
    not looked at).
    """
    chosen = np.empty(blocks.shape[0] * BLOCK_ROWS + 1, np.int32)
    near = np.empty(blocks.shape[0] * BLOCK_ROWS + 1, np.uint16)
    for query in range(queries.shape[0]):
        first, coarse, both = limits[query]
        found = within(blocks, minima[query], bits, query, first, coarse, persons.shape[0], chosen, near)
        if found and both >= 0:
            found = refine(chosen, near, found, fine, fine_bits[query], both)
        if found:
            score_rows(
                chosen[:found], wanted[query], queries[query], rows, scales, persons, regions,
                base, scores[query], people[query], places[query],
            )  # fmt: skip


@kernel(fastmath=True)
def project(vectors: Any, matrix: Any, out: Any) -> None:
    """out [Q, N] = vectors [Q, M] times matrix [M, N], all float32, for a batch of queries. A BLAS would wake its own
    threads, which then spin for milliseconds on the processors that the search needs."""
    out[:] = 0
    rows, columns = matrix.shape
    whole = rows - rows % 4
    for row in range(0, whole, 4):
        for query in range(vectors.shape[0]):
            a, b, c, d = vectors[query, row : row + 4]
            for column in range(columns):
                out[query, column] += (
                    a * matrix[row, column]
                    + b * matrix[row + 1, column]
                    + c * matrix[row + 2, column]
                    + d * matrix[row + 3, column]
                )
    for row in range(whole, rows):
        for query in range(vectors.shape[0]):
            for column in range(columns):
                out[query, column] += vectors[query, row] * matrix[row, column]


@kernel()
def above(products: Any, scales: Any, persons: Any, floor: float, out: Any) -> int:
    """Numbers of the living rows whose product [n] int32 times scale [n] reaches the floor, for int8 products."""
    found = 0
    for row in range(persons.shape[0]):
        if np.float32(products[row]) * scales[row] >= floor and persons[row] >= 0:
            out[found] = row
            found += 1
    return found


@kernel()
def pack(values: Any, blocks: Any, first: int) -> None:
    """Writes the signs of `values` [M, W * 64] float32 as coarse sketches first .. first + M - 1 of `blocks`."""
    for index in range(values.shape[0]):
        row = first + index
        for word in range(blocks.shape[1]):
            bits = np.uint64(0)
            for bit in range(64):
                if values[index, word * 64 + bit] > 0:
                    bits |= np.uint64(1) << np.uint64(bit)
            blocks[row // BLOCK_ROWS, word, row % BLOCK_ROWS] = bits


@kernel()
def quantise(values: Any, rows: Any, scales: Any) -> None:
    """Rounds unit rows [M, D] float32 to int8, with a scale for each that gives a row the score 1 with itself."""
    for index in range(values.shape[0]):
        largest = np.float32(1e-12)
        for column in range(values.shape[1]):
            largest = max(largest, abs(values[index, column]))
        step = largest / np.float32(127)
        norm = np.float32(0)
        for column in range(values.shape[1]):
            rounded = np.int8(np.rint(values[index, column] / step))
            rows[index, column] = rounded
            norm += np.float32(rounded) * values[index, column]
        scales[index] = np.float32(1) / norm if norm > 0 else np.float32(0)
