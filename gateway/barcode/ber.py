"""BER-TLV as EMV uses it (EMV Book 3, annex B): tags of one to three bytes, definite lengths only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

TAG_BYTES_MAX: Final = 3
"""EMV defines tags of one and two bytes; a third is read so that unknown tags can be kept."""
LENGTH_BYTES_MAX: Final = 2
"""Octets after the first of a length; two say up to 65,535, far above what a symbol holds."""
OBJECTS_MAX: Final = 128
"""Most objects on one level."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why bytes cannot be parsed further, or are not written as they should be."""

    rule: str
    """`tag`, `indefinite_length`, `length_too_long`, `length_not_minimal`, `truncated` or `too_many_objects`."""
    tag: str
    """The tag at which it happened, upper-case hex; empty where the tag itself cannot be read."""
    found: str


@dataclass(frozen=True, slots=True)
class Item:
    """One data object. Its value may be an account number, so it is never shown."""

    tag: str
    """Upper-case hex."""
    value: bytes

    def __repr__(self) -> str:
        return f"Item({self.tag}, {len(self.value)} bytes)"


def split(data: bytes) -> tuple[list[Item], Problem | None]:
    """Splits one level into its objects. The problem, if any, says why parsing stopped; objects before it are kept. A
    length that is longer than needed is accepted, and reported as the problem if nothing worse follows."""
    items: list[Item] = []
    minor: Problem | None = None
    position, size = 0, len(data)
    while position < size:
        tag_end = _tag_end(data, position)
        if tag_end is None:
            return items, Problem("tag", "", f"{size - position} bytes left")
        tag = data[position:tag_end].hex().upper()
        length = _length(data, tag_end, tag)
        if isinstance(length, Problem):
            return items, length
        start, count, minimal = length
        if not minimal:
            minor = minor or Problem("length_not_minimal", tag, f"{start - tag_end} length bytes for {count}")
        position = start + count
        if position > size:
            return items, Problem("truncated", tag, f"length {count}, {size - start} bytes left")
        if len(items) == OBJECTS_MAX:
            return items, Problem("too_many_objects", tag, f"more than {OBJECTS_MAX}")
        items.append(Item(tag, data[start:position]))
    return items, minor


def _tag_end(data: bytes, start: int) -> int | None:
    """Where the tag that begins at `start` ends; None if it does not."""
    if data[start] & 0x1F != 0x1F:
        return start + 1
    for end in range(start + 1, min(start + TAG_BYTES_MAX, len(data))):
        if not data[end] & 0x80:
            return end + 1
    return None


def _length(data: bytes, start: int, tag: str) -> tuple[int, int, bool] | Problem:
    """Where the value begins, how long it is, and whether the length was written in the fewest bytes."""
    if start >= len(data):
        return Problem("truncated", tag, "no length")
    first = data[start]
    if first < 0x80:
        return start + 1, first, True
    octets = first & 0x7F
    if octets == 0:
        return Problem("indefinite_length", tag, "80")
    if octets > LENGTH_BYTES_MAX:
        return Problem("length_too_long", tag, f"{octets} length bytes")
    end = start + 1 + octets
    if end > len(data):
        return Problem("truncated", tag, "length cut off")
    count = int.from_bytes(data[start + 1 : end])
    return end, count, count >= (0x80 if octets == 1 else 0x100)


def join(items: Iterable[Item]) -> bytes:
    """Writes objects in their order with the shortest lengths."""
    return b"".join(bytes.fromhex(item.tag) + _write_length(len(item.value)) + item.value for item in items)


def _write_length(count: int) -> bytes:
    if count < 0x80:
        return bytes([count])
    octets = 1 if count < 0x100 else 2
    return bytes([0x80 | octets]) + count.to_bytes(octets)
