"""Retries: which failures are passing, how long to wait, and when to stop for the gateway's sake."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

import grpc

from hutong_client.errors import DeadlineExceeded, Unreachable, typed
from hutong_client.options import RetryOptions
from hutong_contract.errors import HutongError, Reason
from hutong_contract.passing import passes

Result = TypeVar("Result")


class Throttle:
    """Stops retries while most calls fail, so that clients do not keep a struggling gateway down."""

    def __init__(self, options: RetryOptions) -> None:
        self._max = options.throttle_tokens
        self._ratio = options.throttle_ratio
        self._tokens = options.throttle_tokens
        self._lock = threading.Lock()

    def succeeded(self) -> None:
        """A call succeeded, or failed for a reason that is not the gateway's condition."""
        with self._lock:
            self._tokens = min(self._max, self._tokens + self._ratio)

    def failed(self) -> bool:
        """A call failed for a passing reason. Returns whether it may be sent again."""
        with self._lock:
            self._tokens = max(0.0, self._tokens - 1)
            return self._tokens > self._max / 2


class Retrier:
    """Makes calls with a deadline, typed errors and, where allowed, retries. Threads and tasks may share it."""

    def __init__(
        self,
        options: RetryOptions,
        *,
        sleep: Callable[[float], Awaitable[None]],
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._options = options
        self._throttle = Throttle(options)
        self._sleep = sleep
        self._clock = clock
        self._rng = rng or random.Random()

    async def call(
        self, attempt: Callable[[float], Awaitable[Result]], deadline_s: float, *, repeatable: bool
    ) -> Result:
        """Runs `attempt` until it succeeds, is refused, or attempts or time are over; it gets the seconds left.

        `repeatable`: sending it twice has the effect of sending it once. Raises hutong_contract.errors.HutongError or
        hutong_client.errors.CallError, the last attempt's.
        """
        end = self._clock() + deadline_s
        attempts = self._options.attempts_max if repeatable else 1
        for wait_s in self.waits(attempts):
            left = end - self._clock()
            if left <= 0:
                raise DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, f"no answer within {deadline_s} s")
            try:
                answer = await attempt(left)
            except grpc.RpcError as failure:
                error = typed(failure)
                passing = is_passing(error)
                # The caller's own budget says nothing of how the gateway is.
                failing = passing and not is_budget(error)
                if not failing:
                    self._throttle.succeeded()
                if not passing or (failing and not self._throttle.failed()) or wait_s is None:
                    raise error from None
                wait_s += asked_wait_s(error)
                if self._clock() + wait_s >= end:
                    raise error from None
                await self._sleep(wait_s)
            else:
                self._throttle.succeeded()
                return answer
        raise AssertionError("the last attempt returns or raises")

    def waits(self, attempts: int) -> Iterator[float | None]:
        """For each attempt the wait after it, in seconds, besides what the gateway asks for: random up to a bound that
        doubles; None after the last."""
        bound = self._options.backoff_s
        for _ in range(attempts - 1):
            yield self._rng.uniform(0, bound)
            bound = min(bound * 2, self._options.backoff_max_s)
        yield None


def is_passing(error: Exception) -> bool:
    """Whether the failure is passing, so that the same request may succeed a little later."""
    if isinstance(error, HutongError):
        return passes(error)
    return isinstance(error, Unreachable)


def is_budget(error: Exception) -> bool:
    """Whether the caller's query budget is spent."""
    return isinstance(error, HutongError) and error.reason == Reason.ERROR_REASON_QUERY_BUDGET_SPENT


def asked_wait_s(error: Exception) -> float:
    """How long the gateway asks to wait before the next attempt, in seconds; 0 if it does not say."""
    return error.retry_us / 1e6 if isinstance(error, HutongError) else 0.0
