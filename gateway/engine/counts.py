"""Counters of the engine, and observations of how participants answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


@dataclass(slots=True)
class Counts:
    """What the engine did since it started, for metrics and the bench."""

    ticks: int = 0
    commits: int = 0
    admitted: int = 0
    refused: int = 0
    commit_failures: int = 0
    dropped_answers: int = 0
    anomalies: dict[str, int] = field(default_factory=dict)


def together(observations: Iterable[tuple[str, bool, int]]) -> Iterator[tuple[str, bool, int, int]]:
    """Merges consecutive in-time observations of a participant.

    Takes (participant, in time, latency in microseconds), yields (participant, in time, mean latency, count). Late
    answers are yielded one by one, in their order among the participant's others.
    """
    in_time: dict[str, list[int]] = {}
    for participant, well, latency_us in observations:
        seen = in_time.get(participant)
        if not well:
            if seen is not None:
                yield participant, True, seen[1] // seen[0], seen[0]
                del in_time[participant]
            yield participant, False, latency_us, 1
        elif seen is None:
            in_time[participant] = [1, latency_us]
        else:
            seen[0] += 1
            seen[1] += latency_us
    for participant, (count, total_us) in in_time.items():
        yield participant, True, total_us // count, count
