"""Soak: --rate-to for as long as --run-time says, after --stage-s at --rate-from."""

from __future__ import annotations

from typing import ClassVar

from loadtest.locust import pacing


class Soak(pacing.RateShape):
    """One rate for hours."""

    abstract: ClassVar[bool] = False

    def rate_at(self, run_s: float) -> float | None:
        """As the options say."""
        options = self.options
        return float(options.rate_from if run_s < options.stage_s else options.rate_to)
