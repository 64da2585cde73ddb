"""The gate: a queue between fronts and engine, bounded by how long a call would wait in it. Excess calls are refused.

The gate measures how many payments a second the engine takes while it is busy. By Little's law, a call at the end of a
queue of (rate x TARGET_S) payments waits TARGET_S; that length is the bound. Calls that end payments, such as a
cancellation, may exceed it, because they finish work that was accepted already.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from gateway.calls import NEW_WORK, payments_in
from gateway.engine.ports import Call
from hutong_contract.errors import HutongError, Reason

TARGET_S: Final = 0.1
"""The longest wait for the engine that the gate aims at."""
WAITING_MIN: Final = 1024
"""Lower bound of the queue, in payments, so that bursts are absorbed."""
WAITING_MAX: Final = 4096
"""Upper bound of the queue, in payments, however fast the engine is. Calls that end payments have the same bound."""
TICK_MAX: Final = 400
"""Most payments in one tick (a batch may exceed it). Larger ticks exceed the processor's cache, and a payment, which
needs three ticks, would wait longer for each."""
SMOOTHING: Final = 0.2
"""Weight of the newest measurement of the engine's rate."""
RETRY_US: Final = 250_000
"""The delay before a retry that a refusal asks for, in microseconds; the queue has changed by then."""


class Wakes(Protocol):
    """The engine's inbox."""

    def wake(self) -> None:
        """Tells the engine that calls are queued. For any thread."""


def overloaded() -> HutongError:
    """The error for a call that does not fit; it says when to try again."""
    return HutongError(Reason.ERROR_REASON_OVERLOADED).after(RETRY_US)


class Gate:
    """A bounded queue of calls, filled by fronts and emptied by the engine. For any thread."""

    def __init__(self, inbox: Wakes, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._inbox = inbox
        self._clock = clock
        self._lock = threading.Lock()
        self._calls: list[Call] = []
        self._waiting = 0
        self._last = 0
        self._taken_s = 0.0
        self._rate = 0.0
        self._ended: HutongError | None = None
        self._shut = False
        self.refusal = overloaded()
        """The error for calls that do not fit, or arrive while the gate is shut."""
        self.bound = WAITING_MIN
        """Current bound of the queue, in payments."""
        self.refused = 0
        """Calls refused so far."""

    def offer(self, calls: Sequence[Call], payments: int) -> bool:
        """Queues calls, `payments` in all, and refuses those that do not fit. False if any was refused."""
        refused: list[Call]
        with self._lock:
            refusal = self._ended or self.refusal
            if self._ended is not None:
                refused = list(calls)
            elif self._shut:
                refused = list(calls)
                self.refused += len(refused)
            elif self._waiting + payments <= self.bound:
                self._calls.extend(calls)
                self._waiting += payments
                refused = []
            else:
                refused = [call for call in calls if not self._queue(call)]
                self.refused += len(refused)
        for call in refused:
            call.fail(refusal)
        if len(refused) < len(calls):
            self._inbox.wake()
        return not refused

    @property
    def waiting(self) -> int:
        """Payments in the queue now."""
        return self._waiting

    @property
    def room(self) -> int:
        """How many more payments fit into the queue now."""
        return 0 if self._shut else max(0, self.bound - self._waiting)

    def shut(self, refusal: HutongError) -> None:
        """Refuses all calls with this error, queued and new ones, until `open`: the engine cannot take any."""
        with self._lock:
            self._shut, self.refusal = True, refusal
            calls, self._calls, self._waiting = self._calls, [], 0
            self.refused += len(calls)
        for call in calls:
            call.fail(refusal)

    def open(self) -> None:
        """Accepts calls again after `shut`."""
        with self._lock:
            self._shut, self.refusal = False, overloaded()

    @property
    def is_shut(self) -> bool:
        """Whether all calls are refused."""
        return self._shut

    def turned_away(self, calls: int) -> None:
        """Counts calls that a front refused because there was no room."""
        with self._lock:
            self.refused += calls

    def _queue(self, call: Call) -> bool:
        if self._waiting >= (self.bound if call.method in NEW_WORK else WAITING_MAX):
            return False
        self._calls.append(call)
        self._waiting += payments_in(call)
        return True

    def poll(self, at_most: int) -> list[Call]:
        """All calls that are queued; `at_most` is not needed, because the queue is bounded."""
        now_s = self._clock()
        with self._lock:
            taken = waiting = self._waiting
            calls, self._calls = self._calls, []
            if waiting > TICK_MAX:
                calls, self._calls, taken = _first(calls, TICK_MAX)
            self._waiting -= taken
        if waiting and self._last:
            # From tick to tick without a pause: so long did the last one take.
            rate = self._last / max(now_s - self._taken_s, 1e-6)
            self._rate += SMOOTHING * (rate - self._rate)
            self.bound = min(max(int(self._rate * TARGET_S), WAITING_MIN), WAITING_MAX)
        self._last, self._taken_s = taken, now_s
        return calls

    def wake(self) -> None:
        """Wakes the engine, so that it looks at the queue."""
        self._inbox.wake()

    def idle(self) -> None:
        """Stops measuring the engine's rate until the next `poll`: the engine is idle."""
        self._last = 0

    def end(self, error: HutongError) -> None:
        """Refuses all calls with this error for good, queued and new ones: the engine has ended."""
        with self._lock:
            self._ended = error
            calls, self._calls, self._waiting = self._calls, [], 0
        for call in calls:
            call.fail(error)


def _first(calls: list[Call], payments: int) -> tuple[list[Call], list[Call], int]:
    """Splits the queue: the first calls, with up to so many payments (at least one call); the other calls; and the
    number of payments of the first."""
    taken = at = 0
    for at, call in enumerate(calls):
        size = payments_in(call)
        if at and taken + size > payments:
            return calls[:at], calls[at:], taken
        taken += size
    return calls, [], taken
