"""Time and payment ids for the engine, which must not take them from the world by itself."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from hutong_contract.identifiers import uuid7

_RANDOM_POOL_BYTES: Final = 4096
_RANDOM_BYTES: Final = 8
_COUNTER_MAX: Final = 0xFFF


def _steady_ns() -> int:
    """A monotonic clock that nobody can set. On Linux it runs on while the machine is suspended."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


STEADY_NS: Final[Callable[[], int]] = _steady_ns if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic_ns


class Clock:
    """UTC in microseconds: the wall clock as it was at the start, moved on by a monotonic clock.

    Therefore a wall clock that is set wrong while the process runs ends no payment. A change of the wall clock is
    followed only after a ClockWatch has confirmed it; then this clock steps, forwards or backwards, and `stepped_us` is
    the sum of all steps.
    """

    def __init__(self, wall_ns: Callable[[], int] | None = None, steady_ns: Callable[[], int] | None = None) -> None:
        """`wall_ns`, `steady_ns`: other clocks than the machine's, in nanoseconds, for tests."""
        self._wall_ns = wall_ns or time.time_ns
        self._steady_ns = steady_ns or STEADY_NS
        self._base_ns = self._wall_ns() - self._steady_ns()
        self.stepped_us = 0
        """Sum of all steps since the start."""
        self.wrong = ""
        """Why this clock must not be used for decisions, in words; empty while it is right as far as is known."""
        self.settled = True
        """Whether what ends only by time (holds, tokens) may be ended: none of the compared clocks differs."""

    def now_us(self) -> int:
        """Microseconds since the Unix epoch."""
        return (self._base_ns + self._steady_ns()) // 1000

    def wall_us(self) -> int:
        """The machine's own clock, in microseconds since the Unix epoch."""
        return self._wall_ns() // 1000

    def steady_us(self) -> int:
        """Microseconds on the monotonic clock, from an unspecified start."""
        return self._steady_ns() // 1000

    def follow(self) -> int:
        """Steps to the wall clock's time. Returns by how many microseconds."""
        before_ns, self._base_ns = self._base_ns, self._wall_ns() - self._steady_ns()
        step_us = (self._base_ns - before_ns) // 1000
        self.stepped_us += step_us
        return step_us


class PaymentIds:
    """Generates UUIDv7 (RFC 9562 section 5.7): milliseconds, a counter within the millisecond, 62 random bits. Ids of
    one generator ascend, so new rows are added at the right edge of the journal's trees."""

    def __init__(self, random_bytes: Callable[[int], bytes] = os.urandom) -> None:
        """`random_bytes` returns so many random bytes; a simulation passes a seeded source."""
        self._random_bytes = random_bytes
        self._pool = b""
        self._at = 0
        self._millisecond = 0
        self._counter = 0

    def next(self, now_us: int) -> bytes:
        """The next id, 16 bytes."""
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
        return uuid7(self._millisecond, self._counter, random)
