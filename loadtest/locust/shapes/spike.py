"""Spikes: --rate-from, and for --spike-s in the middle of each --stage-s --rate-to; ends by --run-time."""

from __future__ import annotations

from typing import ClassVar

from loadtest.locust import pacing


class Spike(pacing.RateShape):
    """A quiet rate with sudden crowds."""

    abstract: ClassVar[bool] = False

    def rate_at(self, run_s: float) -> float | None:
        """As the options say."""
        options = self.options
        into = run_s % options.stage_s
        begin = (options.stage_s - options.spike_s) / 2
        return float(options.rate_to if begin <= into < begin + options.spike_s else options.rate_from)
