"""Knee search: rising stages until the server keeps up no more, then what was found. Ends by itself.

Stages rise as those of step.py do; the first part of a stage is left out, since the stage before it still echoes.
"""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from typing import ClassVar, Final

from locust.stats import StatsEntry, calculate_response_time_percentile

from loadtest import knee
from loadtest.locust import pacing

log = logging.getLogger(__name__)

SETTLE: Final = 0.4
"""The part of a stage that is left out."""
STAGES_LOST: Final = 2
"""Stages in a row that the server does not keep, after which the search ends."""


@dataclass(frozen=True, slots=True)
class _Mark:
    """Locust's totals at one moment."""

    at_s: float
    requests: int
    failures: int
    times: dict[float, int]
    total_ms: float

    @classmethod
    def of(cls, entry: StatsEntry) -> _Mark:
        """Now."""
        return cls(
            time.perf_counter(),
            entry.num_requests,
            entry.num_failures,
            {float(took): count for took, count in entry.response_times.items()},
            float(entry.total_response_time),
        )


def between(begin: _Mark, end: _Mark, offered_per_s: float) -> knee.Stage:
    """What was seen between two moments."""
    seconds = max(1e-9, end.at_s - begin.at_s)
    calls = end.requests - begin.requests
    times = {value: count - begin.times.get(value, 0) for value, count in end.times.items()}
    p99 = calculate_response_time_percentile(times, calls, 0.99) if calls > 0 else 0.0  # type: ignore[arg-type]
    mean_s = (end.total_ms - begin.total_ms) / calls / 1e3 if calls > 0 else 0.0
    good = calls - (end.failures - begin.failures)
    # Little's law: calls in flight are the rate times the time that each takes.
    return knee.Stage(offered_per_s, good / seconds, float(p99), calls / seconds * mean_s)


class KneeSearch(pacing.RateShape):
    """Stages until STAGES_LOST are lost, or --rate-to is reached."""

    abstract: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self._stages: list[knee.Stage] = []
        self._mark: _Mark | None = None
        self._marked = -1

    def rate_at(self, run_s: float) -> float | None:
        """As the options say."""
        options = self.options
        stage = int(run_s / options.stage_s)
        assert self.runner is not None, "Locust sets it before the first tick"
        total = self.runner.stats.total
        if self._mark is not None and stage > self._marked:
            self._stages.append(between(self._mark, _Mark.of(total), self._rate(self._marked)))
            self._mark = None
        if self._mark is None and stage > self._marked and run_s % options.stage_s >= SETTLE * options.stage_s:
            self._mark, self._marked = _Mark.of(total), stage
        lost = [not knee.keeps_up(one) for one in self._stages[-STAGES_LOST:]]
        rate = self._rate(stage)
        if (len(lost) == STAGES_LOST and all(lost)) or rate > options.rate_to:
            self._say()
            return None
        return rate

    def _rate(self, stage: int) -> float:
        return float(self.options.rate_from * self.options.rate_step**stage)

    def _say(self) -> None:
        assert self.runner is not None, "Locust sets it before the first tick"
        self.runner.environment.process_exit_code = 0  # the last stages were to fail
        found = knee.find(self._stages, self.options.slo_p99_ms)
        for one in self._stages:
            log.info(
                "offered %.0f/s, done %.0f/s, p99 %.1f ms, %.0f in flight",
                *(one.offered_per_s, one.goodput_per_s, one.p99_ms, one.concurrency),
            )
        log.info("%s", json.dumps({"knee_per_s": found.knee_per_s, "slo_per_s": found.slo_per_s}))
        if found.usl is None:
            log.info("too few stages for a curve")
        else:
            log.info("usl %s", json.dumps({name: round(value, 6) for name, value in asdict(found.usl).items()}))
