"""Velocity counters: payments and sums of the last seconds, in sliding windows and bounded memory.

A window has 64 slices that fall out of it one by one, so it is exact to a 64th of its length. The subjects whose last
payment is oldest (to the precision of a slice) are dropped first. Used by the engine's thread alone, except for `look`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

SLICES: Final = 64
SUBJECTS_MAX: Final = 65_536
"""Most payers, keys, merchants and so on that are remembered, over all rules: about 60 MB at most, if each has a
payment in every slice."""

Subject = tuple[str, int, str | bytes]
"""Name of the rule, length of its window in microseconds, and the subject. A rule whose window changes starts again."""


class _Window:
    """The counts of one subject."""

    __slots__ = ("amount_minor", "newest", "payments", "slices", "until_us")

    def __init__(self) -> None:
        self.slices: deque[list[int]] = deque()
        """Number of the slice, payments in it, their sum in minor units; oldest first."""
        self.payments = 0
        """In all slices."""
        self.amount_minor = 0
        self.newest = [0, 0, 0]
        """The last of them."""
        self.until_us = 0
        """When the newest slice ends: until then none falls out."""


class Windows:
    """All windows of all rules."""

    def __init__(self, subjects_max: int = SUBJECTS_MAX) -> None:
        self.subjects_max = subjects_max
        self._windows: dict[Subject, _Window] = {}

    def __len__(self) -> int:
        return len(self._windows)

    def look(self, subject: Subject, now_us: int) -> tuple[int, int]:
        """Payments in the window that ends now, and their sum. Changes nothing, so any thread may ask."""
        window = self._windows.get(subject)
        if window is None:
            return 0, 0
        if now_us < window.until_us:
            return window.payments, window.amount_minor
        payments, amount_minor = window.payments, window.amount_minor
        oldest = now_us * SLICES // subject[1] - SLICES
        if window.slices and window.slices[0][0] <= oldest:
            for number, count, amount in tuple(window.slices):
                if number > oldest:
                    break
                payments -= count
                amount_minor -= amount
        return payments, amount_minor

    def count(self, subjects: Sequence[Subject], now_us: int, amount_minor: int) -> None:
        """Counts a payment for each of these subjects."""
        windows = self._windows
        for subject in subjects:
            window = windows.get(subject)
            if window is None or now_us >= window.until_us:
                self.add(subject, now_us, amount_minor)
            else:
                window.payments += 1
                window.amount_minor += amount_minor
                newest = window.newest
                newest[1] += 1
                newest[2] += amount_minor

    def add(self, subject: Subject, now_us: int, amount_minor: int) -> None:
        """Counts a payment."""
        window = self._windows.pop(subject, None)
        number = now_us * SLICES // subject[1]
        if window is None:
            window = _Window()
            if len(self._windows) >= self.subjects_max:
                del self._windows[next(iter(self._windows))]
        self._windows[subject] = window  # at the end: the last to be forgotten
        slices = window.slices
        while slices and slices[0][0] <= number - SLICES:
            _, count, amount = slices.popleft()
            window.payments -= count
            window.amount_minor -= amount
        if slices and slices[-1][0] >= number:
            slices[-1][1] += 1
            slices[-1][2] += amount_minor
        else:
            window.newest = [number, 1, amount_minor]
            slices.append(window.newest)
            window.until_us = -((number + 1) * subject[1] // -SLICES)
        window.payments += 1
        window.amount_minor += amount_minor

    def take_back(self, subject: Subject, amount_minor: int) -> None:
        """Uncounts the last payment of this subject."""
        window = self._windows.get(subject)
        if window is not None and window.slices:
            window.slices[-1][1] -= 1
            window.slices[-1][2] -= amount_minor
            window.payments -= 1
            window.amount_minor -= amount_minor
