"""Vector instructions that the kernels are made of, as LLVM code: numba compiles them for the machine it runs on
(AVX-512 `vpopcntq`, `vpcmpuw` where there are such) and inlines them.

A block is `words` x 64 64-bit words: 64 rows beside each other, so that one 512-bit instruction handles eight rows
and no sum runs across a register.
"""

from __future__ import annotations

from typing import Any, Final

from hutong_contract.extras import needs

with needs("faces"):
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.extending import intrinsic
    from numba.np import arrayobj


BLOCK_ROWS: Final = 64
"""Rows in a block: 4 KiB of a 512-bit sketch, which stays in the first cache while every query passes over it."""
GROUP_WORDS: Final = 4
"""Words summed in one unrolled step. The first pass reads the first group alone: half of what there is to read, and
nearest by 256 bits is whoever a query resembles."""


@intrinsic
def ones(_context: Any, _word: Any) -> Any:
    """Counts the bits set in a 64-bit word."""

    def build(_context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), build


@intrinsic
def prefetch(_context: Any, array: Any, _offset: Any) -> Any:
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
def group(_context: Any, blocks: Any, _offset: Any, query: Any, _start: Any, out: Any, _add: Any) -> Any:
    """Hamming distances over one group of words of a block: the heart of the search, as vectors by design.

    blocks: uint64 array, with the group's byte offset in it; query: uint64 array, with the byte offset of the group's
    words; out [64] uint16, replaced (`_add` 0) or added to (1). Returns the smallest value written.
    """
    signature = types.uint16(blocks, types.int64, query, types.int64, out, types.uint16)
    return signature, _build_group


def _build_group(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
    """Straight code: for each of eight vectors of eight rows, for each word load, xor, count, add."""
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


@intrinsic
def up_to(_context: Any, sums: Any, _limit: Any) -> Any:
    """Which of the 64 distances in `sums` [64] uint16 are at most `limit`: one bit of the answer for each."""

    def build(context: Any, builder: ir.IRBuilder, signature: Any, arguments: Any) -> Any:
        short, index = ir.IntType(16), ir.IntType(32)
        shorts = ir.VectorType(short, BLOCK_ROWS)
        view = arrayobj.make_array(signature.args[0])(context, builder, arguments[0])
        values = builder.load(builder.bitcast(view.data, shorts.as_pointer()), align=2)
        single = builder.insert_element(ir.Constant(shorts, ir.Undefined), arguments[1], ir.Constant(index, 0))
        mask = ir.Constant(ir.VectorType(index, BLOCK_ROWS), [0] * BLOCK_ROWS)
        limit = builder.shuffle_vector(single, ir.Constant(shorts, ir.Undefined), mask)
        return builder.bitcast(builder.icmp_unsigned("<=", values, limit), ir.IntType(BLOCK_ROWS))

    return types.uint64(sums, types.uint16), build


@intrinsic
def lowest(_context: Any, _word: Any) -> Any:
    """Number of the lowest bit set in a 64-bit word that is not zero."""

    def build(_context: Any, builder: ir.IRBuilder, _signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.uint64), build
