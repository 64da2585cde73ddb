"""Texts that many payments share and the journal keeps once, by a 64-bit name made from the text itself."""

from __future__ import annotations

from typing import Final

KNOWN_MAX: Final = 10_000
"""Names remembered to be in the journal; beyond it they are learnt anew."""


class KeptTexts:
    """Which texts of one table are known to be there: those of ticks that were committed."""

    def __init__(self) -> None:
        self.known = {0}
        """Names; 0 stands for no text."""
        self._new: list[int] = []

    def begin(self) -> None:
        """A tick begins; what the last one sent and did not commit is not known."""
        self._new = []

    def sent(self, names: list[int]) -> None:
        """The tick under way writes these."""
        self._new = self._new + names

    def committed(self) -> None:
        """The tick is durable."""
        if self._new:
            if len(self.known) > KNOWN_MAX:
                self.known = {0}
            self.known.update(self._new)
            self._new = []
