"""What a user saw, merged into Locust's statistics a few times a second: 0.04 µs a call instead of 7 for each event."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Final

from locust.env import Environment
from locust.stats import StatsEntry, StatsError

from loadtest.drive import Seen
from loadtest.locust.buckets import bucket

MERGE_S: Final = 0.25
"""Between two merges."""


@dataclass(slots=True)
class _Line:
    """Calls of one name since the last merge."""

    times: Counter[float] = field(default_factory=Counter)
    total_ms: float = 0.0
    least_ms: float = float("inf")
    most_ms: float = 0.0
    count: int = 0
    bytes: int = 0
    failures: Counter[str] = field(default_factory=Counter)


class Account:
    """Counts calls, and hands them to Locust together. Not for several threads."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self._lines: defaultdict[str, _Line] = defaultdict(_Line)
        self._due_s = time.monotonic() + MERGE_S

    def see(self, seen: Seen) -> None:
        """Adds a call; its time counts from when it was due."""
        line = self._lines[seen.name]
        took_ms = seen.from_due_s * 1e3
        line.times[bucket(took_ms)] += 1
        line.total_ms += took_ms
        line.least_ms = min(line.least_ms, took_ms)
        line.most_ms = max(line.most_ms, took_ms)
        line.count += 1
        line.bytes += seen.size
        if not seen.outcome.good:
            line.failures[seen.outcome.what] += 1

    def merge_when_due(self) -> None:
        """Merges where it is time to."""
        if time.monotonic() >= self._due_s:
            self.merge()

    def merge(self) -> None:
        """Gives Locust what was counted since the last time."""
        self._due_s = time.monotonic() + MERGE_S
        lines, self._lines = self._lines, defaultdict(_Line)
        stats = self._environment.stats
        for name, line in lines.items():
            entry = stats.get(name, "gRPC")
            for one in (entry, stats.total):
                _extend(one, line)
            for reason, count in line.failures.items():
                stats.log_error("gRPC", name, reason)
                rest = count - 1
                stats.errors[StatsError.create_key("gRPC", name, reason)].occurrences += rest
                for one in (entry, stats.total):
                    one.num_failures += rest
                    one.num_fail_per_sec[int(time.time())] += rest


def _extend(entry: StatsEntry, line: _Line) -> None:
    """Adds a line to one of Locust's entries, as its `log` does for each call."""
    now = time.time()
    entry.num_requests += line.count
    entry.num_reqs_per_sec[int(now)] += line.count
    if entry.use_response_times_cache and entry.last_request_timestamp and int(now) > int(entry.last_request_timestamp):
        entry._cache_response_times(int(now) - 1)  # noqa: SLF001 - as its own `log` does
    entry.last_request_timestamp = now
    entry.total_response_time += line.total_ms  # type: ignore[assignment]
    entry.min_response_time = min(line.least_ms, entry.min_response_time or float("inf"))  # type: ignore[assignment]
    entry.max_response_time = max(line.most_ms, entry.max_response_time)  # type: ignore[assignment]
    for taken, count in line.times.items():
        entry.response_times[taken] += count  # type: ignore[index]
    entry.total_content_length += line.bytes
