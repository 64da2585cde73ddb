"""Texts that many payments share. The journal stores each once, under a 64-bit id made from the text."""

from __future__ import annotations

from typing import Final

KNOWN_MAX: Final = 10_000
"""Most ids remembered as stored; beyond it they are looked up again."""


class KeptTexts:
    """The texts of one table that are known to be stored: those of committed ticks."""

    def __init__(self) -> None:
        self.known = {0}
        """Ids; 0 stands for no text."""
        self._new: list[int] = []

    def begin(self) -> None:
        """A tick begins; what the previous one sent and did not commit is unknown."""
        self._new = []

    def sent(self, names: list[int]) -> None:
        """Records what the current tick writes."""
        self._new = self._new + names

    def committed(self) -> None:
        """The tick is durable."""
        if self._new:
            if len(self.known) > KNOWN_MAX:
                self.known = {0}
            self.known.update(self._new)
            self._new = []
