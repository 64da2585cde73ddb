"""Rising steps: --rate-from, times --rate-step each --stage-s, to --rate-to; then the test ends."""

from __future__ import annotations

from typing import ClassVar

from loadtest.locust import pacing


class Step(pacing.RateShape):
    """One rate after another."""

    abstract: ClassVar[bool] = False

    def rate_at(self, run_s: float) -> float | None:
        """As the options say."""
        options = self.options
        rate = options.rate_from * options.rate_step ** int(run_s / options.stage_s)
        return float(rate) if rate <= options.rate_to else None
