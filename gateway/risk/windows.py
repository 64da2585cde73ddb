"""How many payments, and how much, in the last seconds: windows that slide, in bounded memory.

A window is 64 slices that fall out of it one by one, so it is exact to a 64th of its length. Subjects that were longest
without a payment are forgotten first. Used by the engine's thread alone, except for `look`.
"""

from __future__ import annotations

from typing import Final

SLICES: Final = 64
SUBJECTS_MAX: Final = 65_536
"""Payers, keys, merchants and so on that are remembered, of all rules together: about 60 MB at the very most, where
each has a payment in every slice."""

Subject = tuple[str, int, str | bytes]
"""Name of the rule, length of its window in microseconds, and who: a rule whose window changes begins anew."""
Slice = list[int]
"""Number of the slice, payments in it, their sum in minor units."""


class Windows:
    """All windows of all rules."""

    def __init__(self, subjects_max: int = SUBJECTS_MAX) -> None:
        self.subjects_max = subjects_max
        self._slices: dict[Subject, list[Slice]] = {}

    def __len__(self) -> int:
        return len(self._slices)

    def look(self, subject: Subject, now_us: int) -> tuple[int, int]:
        """Payments in the window that ends now, and their sum. Changes nothing."""
        oldest = _number(subject, now_us) - SLICES
        inside = [one for one in self._slices.get(subject, ()) if one[0] > oldest]
        return sum(one[1] for one in inside), sum(one[2] for one in inside)

    def add(self, subject: Subject, now_us: int, amount_minor: int) -> None:
        """Counts a payment."""
        slices = self._slices.pop(subject, None)
        number = _number(subject, now_us)
        if slices is None:
            slices = []
            if len(self._slices) >= self.subjects_max:
                del self._slices[next(iter(self._slices))]
        self._slices[subject] = slices  # at the end: the last to be forgotten
        while slices and slices[0][0] <= number - SLICES:
            del slices[0]
        if slices and slices[-1][0] >= number:
            slices[-1][1] += 1
            slices[-1][2] += amount_minor
        else:
            slices.append([number, 1, amount_minor])

    def take_back(self, subject: Subject, amount_minor: int) -> None:
        """Uncounts the payment that was counted last for this subject."""
        slices = self._slices.get(subject)
        if slices:
            slices[-1][1] -= 1
            slices[-1][2] -= amount_minor


def _number(subject: Subject, now_us: int) -> int:
    return now_us * SLICES // subject[1]
