"""Finer buckets for Locust's response times: 0.1 ms below 100 ms, where Locust rounds to whole milliseconds."""

from __future__ import annotations

import locust.stats


def bucket(response_time: float) -> float:
    """A response time in milliseconds, rounded: to 0.1 ms below 100, to 1 % above."""
    if response_time < 100:
        return round(response_time, 1)
    if response_time < 1000:
        return round(response_time)
    if response_time < 10_000:
        return round(response_time, -1)
    return round(response_time, -2)


def install() -> None:
    """Lets Locust use these buckets, in this process."""
    locust.stats.bucket_response_time = bucket  # type: ignore[assignment]  # its keys may be any numbers
