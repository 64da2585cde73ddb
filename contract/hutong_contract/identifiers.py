"""Identifiers that grow with time: UUIDs of version 7 (RFC 9562, section 5.7)."""

from __future__ import annotations


def uuid7(millisecond: int, counter: int, random: int) -> bytes:
    """16 bytes: milliseconds since the Unix epoch, 12 bits of a counter or of chance, and 62 random bits."""
    return ((millisecond << 80) | (7 << 76) | (counter << 64) | (2 << 62) | random).to_bytes(16, "big")
