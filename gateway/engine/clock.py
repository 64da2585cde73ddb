"""Time and identifiers for the engine: the two things that it must not take from the world by itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

_RANDOM_POOL_BYTES: Final = 4096
_RANDOM_BYTES: Final = 8
_COUNTER_MAX: Final = 0xFFF


class Clock:
    """UTC in microseconds that never runs backwards in one process: the wall clock at start, then the monotonic one."""

    def __init__(self) -> None:
        self._base_ns = time.time_ns() - time.monotonic_ns()

    def now_us(self) -> int:
        """Microseconds since the Unix epoch."""
        return (self._base_ns + time.monotonic_ns()) // 1000


class PaymentIds:
    """UUIDv7 (RFC 9562 section 5.7): milliseconds, a counter within the millisecond, 62 random bits.

    Ids of one generator grow, so new rows land at the right edge of the journal's trees."""

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        """`random_bytes` gives so many random bytes; a simulation passes a seeded source."""
        self._random_bytes = random_bytes
        self._pool = b""
        self._at = 0
        self._millisecond = 0
        self._counter = 0

    def next(self, now_us: int) -> bytes:
        """16 bytes."""
        millisecond = now_us // 1000
        if millisecond > self._millisecond:
            self._millisecond, self._counter = millisecond, 0
        elif self._counter < _COUNTER_MAX:
            self._counter += 1
        else:
            # More than 4,096 in a millisecond borrow from the next one (section 6.2, method 1).
            self._millisecond, self._counter = self._millisecond + 1, 0
        if self._at >= len(self._pool):
            self._pool, self._at = self._random_bytes(_RANDOM_POOL_BYTES), 0
        random = int.from_bytes(self._pool[self._at : self._at + _RANDOM_BYTES], "big") >> 2
        self._at += _RANDOM_BYTES
        value = (self._millisecond << 80) | (7 << 76) | (self._counter << 64) | (2 << 62) | random
        return value.to_bytes(16, "big")
