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
from tokenization.records import REF_BYTES

ALIAS_FAILURES_MAX: Final = 5
"""Most wrong MACs for one alias in a day. After that every use of the alias is refused."""
TERMINAL_FAILURES_MAX: Final = 20
"""Most wrong codes from one terminal within TERMINAL_WINDOW_US."""
TERMINAL_WINDOW_US: Final = 600_000_000
ALIAS_WINDOW_US: Final = 2 * 86_400_000_000
"""How long failures of an alias count: its day and the permitted clock skew, so two days."""
AHEAD_US: Final = 60_000_000
"""Failures up to this far in the future are counted, because clocks of gateways on one vault differ a little."""
TERMINALS_MAX: Final = 100_000
"""Most terminals remembered; the one whose last failure is oldest is dropped first. Callers can make up terminals."""
TERMINAL_MARK: Final = b"t"
"""Begins the subject of a terminal, which so has 17 bytes; an alias has 16."""
ALIASES_AT_FIRST: Final = 10_000
"""With so many aliases remembered, those whose failures count no longer are dropped for the first time."""


class Failures:
    """Times of failures for each subject: of an alias 16 bytes of a keyed MAC, of a terminal TERMINAL_MARK and 16 such
    bytes. Failures of aliases are never dropped while they count: only aliases that were given out have any, so there
    are no more of them than aliases. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._terminals: Bounded[bytes, deque[int]] = Bounded(TERMINALS_MAX)
        self._aliases: dict[bytes, deque[int]] = {}
        self._tidy_at = ALIASES_AT_FIRST
        self._own: Counter[tuple[bytes, int]] = Counter()

    @property
    def aliases(self) -> int:
        """Aliases remembered."""
        return len(self._aliases)

    def locked(self, subject: bytes, limit: int, window_us: int, now_us: int) -> bool:
        """Whether a subject has failed `limit` times within the window."""
        times = self._terminals.peek(subject) if len(subject) > REF_BYTES else self._aliases.get(subject)
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
        if len(subject) > REF_BYTES:
            times = self._terminals.get(subject)
            if times is None:
                times = deque(maxlen=TERMINAL_FAILURES_MAX)
                self._terminals.put(subject, times)
        else:
            times = self._aliases.get(subject)
            if times is None:
                if len(self._aliases) >= self._tidy_at:
                    self._tidy(time_us)
                times = self._aliases[subject] = deque(maxlen=ALIAS_FAILURES_MAX)
        times.append(time_us)

    def _tidy(self, now_us: int) -> None:
        """Drops aliases whose failures count no longer."""
        since_us = now_us - ALIAS_WINDOW_US
        self._aliases = {subject: times for subject, times in self._aliases.items() if times and times[-1] > since_us}
        self._tidy_at = max(ALIASES_AT_FIRST, 2 * len(self._aliases))
