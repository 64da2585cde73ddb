"""Compiled inner loops: Hamming scan over 1-bit sketches, exact re-rank of int8 rows.

Numba turns these into the machine's own vector code (AVX-512 `vpopcntq` where there is one) and releases the GIL.
Layout: 64 rows form a block of `words` x 64 64-bit words, so that one vector instruction handles eight rows and no
sum runs across a register. Shapes: B blocks, W words (a multiple of 8), Q queries, D dimensions, K places.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np import arrayobj

BLOCK_ROWS: Final = 64
"""Rows in a block: 4 KiB of a 512-bit sketch, which stays in the first cache while every query passes over it."""
GROUP_WORDS: Final = 8
"""Words summed in one unrolled step; sketches are padded to a multiple of it."""
DEAD: Final = -1
"""Person of a row that was deleted."""
_PREFETCH_ROWS: Final = 16
"""How many rows ahead memory is asked for: a row takes 100 ns from memory and 20 ns to score."""
_LINE_BYTES: Final = 64


@intrinsic
def _ones(_context: Any, _word: Any) -> Any:
    """Counts the bits set in a 64-bit word."""

    def build(_context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), build


@intrinsic
def _prefetch(_context: Any, array: Any, _offset: Any) -> Any:
    """Asks for the cache line at a byte offset of an int8 array."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        view = arrayobj.make_array(signature.args[0])(context, builder, arguments[0])
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        address = builder.gep(builder.bitcast(view.data, byte), [arguments[1]])
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
        builder.call(function, [address, *(ir.Constant(number, value) for value in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, types.int64), build


@intrinsic
def _group(_context: Any, blocks: Any, _offset: Any, query: Any, _start: Any, out: Any, _add: Any) -> Any:
    """Hamming distances over one group of eight words of a block: the heart of the search, as vectors by design.

    blocks: uint64 array, with the group's byte offset in it; query: uint64 array, with the byte offset of its eight
    words; out [64] uint16, replaced (`_add` 0) or added to (1). Returns the smallest value written.
    """
    signature = types.uint16(blocks, types.int64, query, types.int64, out, types.uint16)
    return signature, _build_group


def _build_group(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
    """Straight code: for each of eight vectors of eight rows, eight times load, xor, count, add."""
    word, short, byte = ir.IntType(64), ir.IntType(16), ir.IntType(8).as_pointer()
    words, shorts = ir.VectorType(word, 8), ir.VectorType(short, 8)
    ones = cgutils.get_or_insert_function(builder.module, ir.FunctionType(words, [words]), "llvm.ctpop.v8i64")

    def address(kind: Any, array: Any, offset: Any, target: Any) -> Any:
        view = arrayobj.make_array(kind)(context, builder, array)
        return builder.bitcast(builder.gep(builder.bitcast(view.data, byte), [offset]), target.as_pointer())

    def splat(value: Any, kind: Any) -> Any:
        single = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
        mask = ir.Constant(ir.VectorType(ir.IntType(32), 8), [0] * 8)
        return builder.shuffle_vector(single, ir.Constant(kind, ir.Undefined), mask)

    def at(pointer: Any, index: int) -> Any:
        return builder.gep(pointer, [ir.Constant(ir.IntType(32), index)])

    kinds = signature.args
    block = address(kinds[0], arguments[0], arguments[1], words)
    query = address(kinds[2], arguments[2], arguments[3], word)
    out = address(kinds[4], arguments[4], ir.Constant(word, 0), shorts)
    bits = [splat(builder.load(at(query, index)), words) for index in range(GROUP_WORDS)]
    keep = splat(arguments[5], shorts)
    least: Any = None
    for part in range(BLOCK_ROWS // 8):
        total: Any = ir.Constant(words, [0] * 8)
        for index in range(GROUP_WORDS):
            loaded = builder.load(at(block, index * (BLOCK_ROWS // 8) + part), align=8)
            total = builder.add(total, builder.call(ones, [builder.xor(loaded, bits[index])]))
        place = at(out, part)
        before = builder.mul(builder.load(place, align=2), keep)
        value = builder.add(builder.trunc(total, shorts), before)
        builder.store(value, place, align=2)
        least = value if least is None else builder.select(builder.icmp_unsigned("<", value, least), value, least)
    smallest = ir.FunctionType(short, [shorts])
    function = cgutils.get_or_insert_function(builder.module, smallest, "llvm.vector.reduce.umin.v8i16")
    return builder.call(function, [least])


@njit(nogil=True, cache=True)
def distances(blocks: Any, block: int, queries: Any, query: int, out: Any) -> int:
    """Hamming distances of one block's rows to one query of [Q, W], into `out` [64] uint16; returns the smallest."""
    words = blocks.shape[1]
    least = np.uint16(0)
    for group in range(0, words, GROUP_WORDS):
        offset = (block * words + group) * (BLOCK_ROWS * 8)
        start = (query * words + group) * 8
        least = _group(blocks, offset, queries, start, out, np.uint16(1 if group else 0))
    return least


@njit(nogil=True, cache=True)
def block_minima(blocks: Any, queries: Any, out: Any) -> None:
    """First pass: blocks [B, W, 64] uint64, queries [Q, W] uint64 -> out [Q, B] uint16, each block's least distance."""
    sums = np.zeros(BLOCK_ROWS, np.uint16)
    for block in range(blocks.shape[0]):
        for query in range(queries.shape[0]):
            out[query, block] = distances(blocks, block, queries, query, sums)


@njit(nogil=True, cache=True, fastmath=True)
def dot(row: Any, query: Any) -> float:
    """Inner product of an int8 row and a float32 query."""
    total = np.float32(0)
    for index in range(query.shape[0]):
        total += np.float32(row[index]) * query[index]
    return total


@njit(nogil=True, cache=True)
def seed(blocks: Any, minima: Any, bits: Any, queries: Any, rows: Any, scales: Any, persons: Any, best: Any) -> None:
    """The exact score of the rows nearest by sketch, raised into `best` [Q] float32: a lower bound of the best."""
    sums = np.zeros(BLOCK_ROWS, np.uint16)
    for query in range(queries.shape[0]):
        block = np.argmin(minima[query])
        distances(blocks, block, bits, query, sums)
        for place in range(BLOCK_ROWS):
            row = block * BLOCK_ROWS + place
            if sums[place] <= minima[query, block] and row < persons.shape[0] and persons[row] >= 0:
                best[query] = max(best[query], dot(rows[row], queries[query]) * scales[row])


@njit(nogil=True, cache=True)
def within(
    blocks: Any, minima: Any, bits: Any, query: int, limit: int, count: int, out: Any, near: Any
) -> int:  # fmt: skip
    """Numbers of the rows (of `count`) within a Hamming limit of one query: minima [B], bits [Q, W].

    out [B * 64 + 1] int32 gets the numbers, near [B * 64 + 1] uint16 their distances.
    """
    sums = np.zeros(BLOCK_ROWS, np.uint16)
    found = 0
    for block in range(blocks.shape[0]):
        if minima[block] > limit:
            continue
        distances(blocks, block, bits, query, sums)
        first = block * BLOCK_ROWS
        for place in range(min(BLOCK_ROWS, count - first)):
            # Written always and kept by the count alone: a branch here would be guessed wrong for every tenth row.
            out[found] = first + place
            near[found] = sums[place]
            found += sums[place] <= limit
    return found


@njit(nogil=True, cache=True)
def refine(chosen: Any, near: Any, found: int, fine: Any, bits: Any, limit: int) -> int:
    """Keeps those of the chosen rows that are within a limit by both sketches together: fine [n, W], bits [W].

    A fine sketch is one cache line, an eighth of what an exact score reads.
    """
    kept = 0
    for index in range(found):
        if index + _PREFETCH_ROWS < found:
            _prefetch(fine, np.int64(chosen[index + _PREFETCH_ROWS]) * fine.shape[1] * 8)
        row = chosen[index]
        distance = np.uint64(near[index])
        for word in range(fine.shape[1]):
            distance += _ones(fine[row, word] ^ bits[word])
        if distance <= np.uint64(limit):
            chosen[kept] = row
            kept += 1
    return kept


@njit(nogil=True, cache=True)
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
                _prefetch(rows, start + offset)
        row = chosen[index]
        person = persons[row]
        if person >= 0 and (region == 0 or regions[row] == region):
            score = dot(rows[row], query) * scales[row]
            if score > scores[-1]:
                offer(score, person, base + row, scores, people, places)


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
def collect(
    blocks: Any, minima: Any, bits: Any, limits: Any, fine: Any, fine_bits: Any, fine_limits: Any, wanted: Any,
    queries: Any, rows: Any, scales: Any, persons: Any, regions: Any, base: int, scores: Any, people: Any, places: Any,
) -> None:  # fmt: skip
    """Second pass: for each query scores every row within its limits; shapes as above, with [Q] in front.

    `limits` are of the coarse sketch alone, `fine_limits` of both together.
    """
    chosen = np.empty(blocks.shape[0] * BLOCK_ROWS + 1, np.int32)
    near = np.empty(blocks.shape[0] * BLOCK_ROWS + 1, np.uint16)
    for query in range(queries.shape[0]):
        found = within(blocks, minima[query], bits, query, limits[query], persons.shape[0], chosen, near)
        if found:
            found = refine(chosen, near, found, fine, fine_bits[query], fine_limits[query])
        if found:
            score_rows(
                chosen[:found], wanted[query], queries[query], rows, scales, persons, regions,
                base, scores[query], people[query], places[query],
            )  # fmt: skip


@njit(nogil=True, cache=True)
def above(products: Any, scales: Any, persons: Any, floor: float, out: Any) -> int:
    """Numbers of the living rows whose product [n] int32 times scale [n] reaches the floor, for int8 products."""
    found = 0
    for row in range(persons.shape[0]):
        if np.float32(products[row]) * scales[row] >= floor and persons[row] >= 0:
            out[found] = row
            found += 1
    return found


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
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
