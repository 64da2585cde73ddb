"""Rows of the gallery: in memory for the tail, in a memory-mapped file for a sealed segment.

File: a 4 KiB header (magic, shape, its CRC), then seven arrays, each at a multiple of 64 KiB, then one CRC-32 for each
64 KiB page of the arrays. Numbers are little-endian. Rows are in the order of their template ids. A file is written
under another name, flushed, and renamed, so that it is whole or absent; only deletion changes it afterwards: it
overwrites the row with zeros and renews the checksums of the pages it touched. A crash between the two shows as
damage, and damage is repaired from the store.
"""

from __future__ import annotations

import os
import struct
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facepay.gallery.instructions import BLOCK_ROWS
from facepay.gallery.kernels import DEAD

MAGIC: Final = b"HTGALv1\0"
PAGE_BYTES: Final = 64 * 1024
"""What one checksum covers: renewing one after a deletion reads 64 KiB, not the file."""
_HEADER: Final = struct.Struct("<8sIIIQ")
_HEADER_BYTES: Final = PAGE_BYTES


class SegmentDamaged(Exception):  # noqa: N818 - it is what happened
    """A segment file is not what was written; the text says where."""


@dataclass(slots=True, eq=False)
class Rows:
    """Rows of one segment or of the tail. `count` rows are visible; arrays may be longer (the tail)."""

    blocks: NDArray[np.uint64]
    """[B, W, 64] coarse sketches."""
    fine: NDArray[np.uint64]
    """[n, W] fine sketches."""
    rows: NDArray[np.int8]
    """[n, D] rotated templates."""
    scales: NDArray[np.float32]
    persons: NDArray[np.int64]
    """Person of each row; DEAD where deleted."""
    templates: NDArray[np.int64]
    """Template id of each row, ascending."""
    regions: NDArray[np.uint32]
    count: int
    path: Path | None = None
    dead: int = 0
    _pages: NDArray[np.uint32] | None = field(default=None, repr=False)
    _bytes: NDArray[np.uint8] | None = field(default=None, repr=False)
    offsets: dict[str, int] = field(default_factory=dict, repr=False)

    def find(self, template: int) -> int:
        """Row of a template, or -1."""
        row = int(np.searchsorted(self.templates[: self.count], template))
        return row if row < self.count and self.templates[row] == template else -1

    def erase(self, row: int) -> None:
        """Overwrites one row with zeros: first its person, so that no search started later can see it."""
        if self.persons[row] == DEAD:
            return
        self.persons[row] = DEAD
        self.rows[row] = 0
        self.scales[row] = 0
        self.fine[row] = 0
        self.blocks[row // BLOCK_ROWS, :, row % BLOCK_ROWS] = 0
        self.dead += 1
        if self._bytes is not None:
            self._renew_pages(row)

    def living(self) -> NDArray[np.int64]:
        """Numbers of the rows that were not deleted."""
        return np.flatnonzero(self.persons[: self.count] != DEAD)

    def words(self, chosen: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Coarse sketches of chosen rows, [M, W]."""
        return np.ascontiguousarray(self.blocks[chosen // BLOCK_ROWS, :, chosen % BLOCK_ROWS])

    def _renew_pages(self, row: int) -> None:
        assert self._bytes is not None
        assert self._pages is not None
        pages: set[int] = set()
        for name, array in (
            ("persons", self.persons),
            ("rows", self.rows),
            ("scales", self.scales),
            ("fine", self.fine),
        ):
            start = self.offsets[name] + row * array.strides[0]
            pages.update(range(start // PAGE_BYTES, (start + array.strides[0] - 1) // PAGE_BYTES + 1))
        start = self.offsets["blocks"] + row // BLOCK_ROWS * self.blocks.strides[0]
        pages.update(range(start // PAGE_BYTES, (start + self.blocks.strides[0] - 1) // PAGE_BYTES + 1))
        for page in pages:
            self._pages[page] = _check(self._bytes, page)


def _check(whole: NDArray[np.uint8], page: int) -> int:
    return zlib.crc32(whole[page * PAGE_BYTES : (page + 1) * PAGE_BYTES].data)


def in_memory(capacity: int, dimension: int, words: int) -> Rows:
    """Empty rows for `capacity` templates."""
    blocks = -(-capacity // BLOCK_ROWS)
    return Rows(
        blocks=np.zeros((blocks, words, BLOCK_ROWS), np.uint64),
        fine=np.zeros((capacity, words), np.uint64),
        rows=np.zeros((capacity, dimension), np.int8),
        scales=np.zeros(capacity, np.float32),
        persons=np.full(capacity, DEAD, np.int64),
        templates=np.zeros(capacity, np.int64),
        regions=np.zeros(capacity, np.uint32),
        count=0,
    )


def _layout(count: int, dimension: int, words: int) -> tuple[dict[str, tuple[int, Any, tuple[int, ...]]], int]:
    """Where each array lies in a file: name -> (offset, type, shape), and the offset of the checksums."""
    blocks = -(-count // BLOCK_ROWS)
    shapes: dict[str, tuple[Any, tuple[int, ...]]] = {
        "blocks": (np.uint64, (blocks, words, BLOCK_ROWS)),
        "fine": (np.uint64, (count, words)),
        "rows": (np.int8, (count, dimension)),
        "scales": (np.float32, (count,)),
        "persons": (np.int64, (count,)),
        "templates": (np.int64, (count,)),
        "regions": (np.uint32, (count,)),
    }
    offset, out = _HEADER_BYTES, {}
    for name, (kind, shape) in shapes.items():
        out[name] = (offset, kind, shape)
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        offset += -(-size // PAGE_BYTES) * PAGE_BYTES
    return out, offset


def create(path: Path, count: int, dimension: int, words: int) -> Rows:
    """A new file, open for filling under a temporary name; `publish` makes it a segment."""
    layout, checks = _layout(count, dimension, words)
    pages = checks // PAGE_BYTES
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.truncate(checks + pages * 4)
    rows = _map(temporary, layout, checks, count)
    rows.path = path
    rows.persons[:] = DEAD
    return rows


def publish(rows: Rows, path: Path, dimension: int, words: int) -> None:
    """Writes header and checksums, flushes, and gives the file its name. Durable when it returns."""
    assert rows._bytes is not None  # noqa: SLF001 - this module's own class
    assert rows._pages is not None  # noqa: SLF001
    header = _HEADER.pack(MAGIC, dimension, words, len(rows.persons), rows.offsets["checks"])
    header += struct.pack("<I", zlib.crc32(header))
    rows._bytes[: len(header)] = np.frombuffer(header, np.uint8)  # noqa: SLF001
    for page in range(len(rows._pages)):  # noqa: SLF001
        rows._pages[page] = _check(rows._bytes, page)  # noqa: SLF001
    temporary = path.with_suffix(".new")
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def open_file(path: Path, dimension: int, words: int, *, check: bool = True) -> Rows:
    """Maps a sealed segment after checking it whole. Raises SegmentDamaged."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(_HEADER.size + 4)
    if len(start) < _HEADER.size + 4:
        raise SegmentDamaged("too short for a header")
    magic, its_dimension, its_words, count, checks = _HEADER.unpack(start[:-4])
    if magic != MAGIC or struct.unpack("<I", start[-4:])[0] != zlib.crc32(start[:-4]):
        raise SegmentDamaged("the header does not check")
    layout, expected = _layout(count, dimension, words)
    if (its_dimension, its_words, checks, size) != (dimension, words, expected, expected + expected // PAGE_BYTES * 4):
        raise SegmentDamaged("the header does not fit the gallery or the file's size")
    rows = _map(path, layout, checks, count)
    rows.path, rows.count = path, count
    if check:
        assert rows._bytes is not None  # noqa: SLF001 - this module's own class
        assert rows._pages is not None  # noqa: SLF001
        for page in range(len(rows._pages)):  # noqa: SLF001
            if rows._pages[page] != _check(rows._bytes, page):  # noqa: SLF001
                raise SegmentDamaged(f"page {page} does not check")
    rows.dead = int(np.count_nonzero(rows.persons == DEAD))
    return rows


def _map(path: Path, layout: dict[str, tuple[int, Any, tuple[int, ...]]], checks: int, count: int) -> Rows:
    whole = np.asarray(np.memmap(path, np.uint8, "r+"))
    arrays: dict[str, Any] = {}
    for name, (offset, kind, shape) in layout.items():
        size = int(np.prod(shape)) * np.dtype(kind).itemsize
        arrays[name] = whole[offset : offset + size].view(kind).reshape(shape)
    offsets = {name: offset for name, (offset, _, _) in layout.items()} | {"checks": checks}
    return Rows(
        **arrays, count=count, path=path, offsets=offsets, _pages=whole[checks:].view(np.uint32), _bytes=whole[:checks]
    )
