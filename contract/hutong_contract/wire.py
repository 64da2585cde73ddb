"""Protobuf's wire format for hot paths that need no message objects: varints and framed fields."""

from __future__ import annotations

from typing import Final

VARINT_BITS_MAX: Final = 35
"""Most bits of a length; a longer varint is no length of a message."""


def varint(value: int) -> bytes:
    """A number of 0 or more as a varint: seven bits a byte, the lowest first."""
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """The varint at `at`, and the position after it. Of one that is cut off, or has more than VARINT_BITS_MAX bits, the
    readable part counts."""
    value = shift = 0
    end = len(data)
    while at < end and shift < VARINT_BITS_MAX:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    return value, at


def framed(tag: bytes, message: bytes) -> bytes:
    """A serialized message as a field of another; `tag` is the field's tag byte."""
    length = len(message)
    if length < 0x80:
        return tag + bytes((length,)) + message
    if length < 0x4000:  # as `varint`, without another call: every answered payment comes here
        return tag + bytes((length & 0x7F | 0x80, length >> 7)) + message
    return tag + varint(length) + message
