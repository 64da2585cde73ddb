"""When calls are due: an open loop's schedule, which the answers do not change.

A user who waits for each answer before asking again slows down with the server, and the calls that were never made are
missing in the percentiles (coordinated omission). So calls are due by a schedule, and latencies count from then.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np

Pattern = Literal["poisson", "uniform"]

BLOCK: Final = 1024
"""Gaps that are drawn at once."""


class Arrivals:
    """Due times of calls, in seconds on the clock of `start_s`: independent (Poisson) or evenly spaced (uniform)."""

    def __init__(self, rate_per_s: float, start_s: float, *, pattern: Pattern = "poisson", seed: int = 0) -> None:
        """`rate_per_s` 0 means that nothing is due until `set_rate`."""
        self._rng = np.random.default_rng(seed)
        self._pattern = pattern
        self._gaps: list[float] = []
        self._rate = rate_per_s
        self._left = self._gap()
        """Work until the next call: gaps of a rate of one, so that a new rate stretches what is left."""
        self._now_s = start_s

    @property
    def rate_per_s(self) -> float:
        """Calls a second that are due now."""
        return self._rate

    @property
    def next_s(self) -> float:
        """When the next call is due; infinity while the rate is 0."""
        return self._now_s + self._left / self._rate if self._rate > 0 else float("inf")

    def set_rate(self, rate_per_s: float, now_s: float) -> None:
        """Changes the rate from `now_s` on; what was due before is still due then.

        Raises:
            ValueError: a negative rate.
        """
        if rate_per_s < 0:
            raise ValueError("a rate is not negative")
        if self._rate > 0 and now_s > self._now_s:
            self._left = max(0.0, self._left - (now_s - self._now_s) * self._rate)
        self._now_s = max(self._now_s, now_s)
        self._rate = rate_per_s

    def due(self, now_s: float, limit: int) -> list[float]:
        """Takes up to `limit` calls that are due by `now_s`: their due times, oldest first."""
        taken: list[float] = []
        while len(taken) < limit and (at := self.next_s) <= now_s:
            taken.append(at)
            self._now_s = at
            self._left = self._gap()
        return taken

    def _gap(self) -> float:
        if self._pattern == "uniform":
            return 1.0
        if not self._gaps:
            self._gaps = self._rng.exponential(1.0, BLOCK).tolist()
        return self._gaps.pop()
