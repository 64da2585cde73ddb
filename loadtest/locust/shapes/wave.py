"""A double wave, as a shop's day has it: a lower crest at noon and a higher one in the evening, in each --stage-s."""

from __future__ import annotations

import math
from typing import ClassVar, Final

from loadtest.locust import pacing

NOON: Final = 0.35
EVENING: Final = 0.75
"""Where the crests are, as shares of a day."""
WIDTH: Final = 0.1
NOON_HEIGHT: Final = 0.7
"""The lower crest, as a share of the higher one."""


class Wave(pacing.RateShape):
    """From --rate-from in the valleys to --rate-to on the higher crest; ends by --run-time."""

    abstract: ClassVar[bool] = False

    def rate_at(self, run_s: float) -> float | None:
        """As the options say."""
        options = self.options
        day = run_s % options.stage_s / options.stage_s
        noon = NOON_HEIGHT * math.exp(-(((day - NOON) / WIDTH) ** 2))
        evening = math.exp(-(((day - EVENING) / WIDTH) ** 2))
        return float(options.rate_from + (options.rate_to - options.rate_from) * max(noon, evening))
