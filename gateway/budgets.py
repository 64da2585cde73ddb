"""Query budgets: how often each caller may ask, so that a storm of status queries does not slow payments.

Each caller has a token bucket, refilled by time. Its rate grows with the number of payments that have been in flight
for long, so that polling each of those every POLL_S seconds never exceeds it. A caller without a proven identity (mTLS)
could use a new name or connection for each query; therefore such callers also draw on one shared bucket.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hutong_contract.bounded import Bounded
from hutong_contract.errors import HutongError, Reason

POLL_S: Final = 3.0
"""Seconds between status queries about a payment in flight, as is usual in the field."""
CALLERS_MAX: Final = 10_000
"""Most buckets, about 2 MB. The least recently used one is dropped; a dropped caller starts again with a full
bucket."""
SHARED: Final = 10
"""The shared bucket of callers without proof is as large as this many buckets."""
RETRY_STEP_US: Final = 50_000
"""The advised delay of a retry is rounded up to a multiple of this, so that few different refusals have to be
serialized."""
RETRY_MAX_US: Final = 10_000_000


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """How often one caller may ask."""

    rate_per_s: float = 100.0
    """Queries per second on average, in addition to one each POLL_S for each payment that is in flight for long."""
    burst: int = 100
    """Queries at once after a pause."""


class _Bucket:
    __slots__ = ("at_s", "tokens")

    def __init__(self, tokens: float, at_s: float) -> None:
        self.tokens = tokens
        self.at_s = at_s

    def refill(self, rate_per_s: float, burst: float, now_s: float) -> float:
        self.tokens = min(burst, self.tokens + (now_s - self.at_s) * rate_per_s)
        self.at_s = now_s
        return self.tokens


class QueryBudgets:
    """The query budgets of all callers. For any thread."""

    def __init__(
        self,
        limits: QueryLimits,
        lingering: Callable[[], int] = lambda: 0,
        *,
        clock: Callable[[], float] = time.monotonic,
        callers_max: int = CALLERS_MAX,
    ) -> None:
        """`lingering` returns the number of payments that have been in flight for long; `clock` returns seconds and
        never runs backwards."""
        self._limits = limits
        self._lingering = lingering
        self._clock = clock
        self._buckets: Bounded[str, _Bucket] = Bounded(callers_max)
        self._shared = _Bucket(limits.burst * SHARED, clock())
        self._refusals: dict[int, HutongError] = {}
        self._lock = threading.Lock()
        self.refused = 0
        """Queries refused so far."""

    def __len__(self) -> int:
        return len(self._buckets)

    def refusal(self, caller: str, *, proven: bool) -> HutongError | None:
        """Takes one query from the caller's budget. Returns None, or the error to answer with if the budget is
        spent."""
        limits, now_s = self._limits, self._clock()
        more = self._lingering() / POLL_S
        rate = limits.rate_per_s + more
        with self._lock:
            bucket = self._bucket(caller, now_s)
            short = 1.0 - bucket.refill(rate, limits.burst, now_s)
            if not proven:
                shared_rate = limits.rate_per_s * SHARED + more
                short = max(short, 1.0 - self._shared.refill(shared_rate, limits.burst * SHARED, now_s))
            if short <= 0.0:
                bucket.tokens -= 1.0
                if not proven:
                    self._shared.tokens -= 1.0
                return None
            self.refused += 1
            return self._refusal(int(short / rate * 1e6))

    def _bucket(self, caller: str, now_s: float) -> _Bucket:
        bucket = self._buckets.get(caller)
        if bucket is None:
            bucket = _Bucket(self._limits.burst, now_s)
            self._buckets.put(caller, bucket)
        return bucket

    def _refusal(self, wait_us: int) -> HutongError:
        steps = min(-(-wait_us // RETRY_STEP_US), RETRY_MAX_US // RETRY_STEP_US)
        error = self._refusals.get(steps)
        if error is None:
            error = HutongError(Reason.ERROR_REASON_QUERY_BUDGET_SPENT).after(steps * RETRY_STEP_US)
            self._refusals[steps] = error
        return error
