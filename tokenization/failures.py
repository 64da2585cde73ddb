"""Wrong codes, counted: for each alias and day, and for each terminal in a sliding window.

A guess at a known alias is right with a chance of 3 in 10^8; five guesses a day leave 1.5 in 10^7. A terminal that
tries many aliases is stopped by its own limit. Counts are kept in memory at once and in the vault soon after, so that
they survive a restart and other processes learn of them.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Final

from hutong_contract.bounded import Bounded

ALIAS_FAILURES_MAX: Final = 5
"""Most wrong MACs for one alias in a day. After that every use of the alias is refused."""
TERMINAL_FAILURES_MAX: Final = 20
"""Most wrong codes from one terminal within TERMINAL_WINDOW_US."""
TERMINAL_WINDOW_US: Final = 600_000_000
ALIAS_WINDOW_US: Final = 2 * 86_400_000_000
"""How long failures of an alias count: its day and the permitted clock skew, so two days."""
AHEAD_US: Final = 60_000_000
"""Failures up to this far in the future are counted, because clocks of gateways on one vault differ a little."""
SUBJECTS_MAX: Final = 100_000
"""Most subjects remembered; the one whose last failure is oldest is dropped first."""


class Failures:
    """Times of failures for each subject. A subject is 16 bytes of a keyed MAC. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._times: Bounded[bytes, deque[int]] = Bounded(SUBJECTS_MAX)
        self._own: Counter[tuple[bytes, int]] = Counter()

    def locked(self, subject: bytes, limit: int, window_us: int, now_us: int) -> bool:
        """Whether a subject has failed `limit` times within the window."""
        times = self._times.peek(subject)
        if times is None:
            return False
        with self._lock:
            while times and times[0] <= now_us - window_us:
                times.popleft()
            # What a clock that was ahead has left does not lock anybody until that time comes.
            return sum(time_us <= now_us + AHEAD_US for time_us in times) >= limit

    def add(self, subject: bytes, time_us: int) -> None:
        """Counts a failure that this process saw, before it is written."""
        with self._lock:
            self._own[subject, time_us] += 1
            self._count(subject, time_us)

    def apply(self, rows: Sequence[Sequence[Any]]) -> None:
        """Counts failures read from the vault, except those that `add` counted already."""
        with self._lock:
            for _, subject, time_us in rows:
                own = (subject, time_us)
                if self._own.get(own, 0) > 1:
                    self._own[own] -= 1
                elif own in self._own:
                    del self._own[own]
                else:
                    self._count(subject, time_us)

    def _count(self, subject: bytes, time_us: int) -> None:
        times = self._times.get(subject)
        if times is None:
            times = deque(maxlen=max(ALIAS_FAILURES_MAX, TERMINAL_FAILURES_MAX))
            self._times.put(subject, times)
        times.append(time_us)
