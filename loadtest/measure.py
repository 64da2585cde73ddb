"""What a generator measures against one unary method: calls a second at saturation, latency at a given rate."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from loadtest.h2 import Reply, UnaryLoad, closed_loop, open_loop

PERCENTILES: Final = {"p50": 50.0, "p99": 99.0, "p99.9": 99.9, "p99.99": 99.99}

Message = Callable[[int], bytes]
Good = Callable[[Reply], bool]


@dataclass(slots=True)
class Saturation:
    """Calls made with a fixed number in flight."""

    good: int = 0
    """Calls that did what was asked."""
    seconds: float = 0.0
    failures: Counter[int] = field(default_factory=Counter)
    """gRPC status (0 where the answer itself was not good) to count."""

    @property
    def per_second(self) -> float:
        """Good calls a second."""
        return self.good / self.seconds if self.seconds else 0.0


def saturate(
    target: str, path: str, message: Message, good: Good, *, concurrency: int, seconds: float, into: Saturation
) -> None:
    """Runs a closed loop for some seconds and adds what it saw."""
    load = UnaryLoad(target, path)

    def seen(reply: Reply) -> None:
        if reply.status == 0 and good(reply):
            into.good += 1
        else:
            into.failures[reply.status] += 1

    start = time.perf_counter()
    closed_loop(load, concurrency, start + seconds, message, seen)
    into.seconds += time.perf_counter() - start
    load.close()


def latencies_ms(
    target: str, path: str, message: Message, good: Good, *, rate: float, seconds: float
) -> dict[str, float]:
    """Percentiles at a fixed rate, in milliseconds from when each call was due: a stall counts for every call that it
    delayed. `failed` is how many calls were not good."""
    load = UnaryLoad(target, path)
    seen_ms: list[float] = []
    failed = 0

    def seen(reply: Reply, latency_s: float) -> None:
        nonlocal failed
        seen_ms.append(latency_s * 1e3)
        failed += not (reply.status == 0 and good(reply))

    open_loop(load, rate, seconds, message, seen)
    load.close()
    values = np.percentile(seen_ms, list(PERCENTILES.values())) if seen_ms else [float("nan")] * len(PERCENTILES)
    result = {name: round(float(value), 3) for name, value in zip(PERCENTILES, values, strict=True)}
    return {**result, "calls": float(len(seen_ms)), "failed": float(failed)}
