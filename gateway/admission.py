"""The gate between fronts and engine: what waits is bounded by how long it would wait, the rest is refused at once.

At saturation the engine takes all that waits into one tick, so the queue is as long as a tick serves. The gate measures
how many payments a second the engine takes while it is busy; by Little's law a queue of rate times target waits for
the target. Work in progress comes first: what ends payments (a cancellation) may wait above that bound.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from gateway.calls import NEW_WORK, Call, payments_in
from hutong_contract.errors import HutongError, Reason

TARGET_S: Final = 0.1
"""Longest wait for the engine that the gate aims at."""
WAITING_MIN: Final = 1024
"""So much may wait always: a burst is not an overload, and large ticks are cheap ones."""
WAITING_MAX: Final = 4096
"""So much may wait at most, however fast the engine is; of what ends payments too."""
TICK_MAX: Final = 400
"""So many payments go into one tick, or one batch of them: what larger ticks touch falls out of the processor's cache,
and a payment, which takes three ticks, waits for each of them."""
SMOOTHING: Final = 0.2
"""Weight of the newest measurement of the engine's rate."""
RETRY_US: Final = 250_000
"""When to try again, as the refusal says: the queue is another one by then."""


class Wakes(Protocol):
    """The engine's inbox."""

    def wake(self) -> None:
        """There is something to take."""


def overloaded() -> HutongError:
    """The refusal of what does not fit, which says when to try again."""
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
        """What is told to whoever does not fit, or comes while the gate is shut."""
        self.bound = WAITING_MIN
        """Payments that may wait now."""
        self.refused = 0
        """Calls refused so far."""

    def offer(self, calls: Sequence[Call], payments: int) -> bool:
        """Queues calls that ask for so many payments in all, or refuses what does not fit. False if any was refused."""
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
    def room(self) -> int:
        """How many payments fit now."""
        return 0 if self._shut else max(0, self.bound - self._waiting)

    def shut(self, refusal: HutongError) -> None:
        """From now on all calls are refused with this error, those that wait and those that come, until `open`: the
        engine cannot take any."""
        with self._lock:
            self._shut, self.refusal = True, refusal
            calls, self._calls, self._waiting = self._calls, [], 0
            self.refused += len(calls)
        for call in calls:
            call.fail(refusal)

    def open(self) -> None:
        """Calls are taken again."""
        with self._lock:
            self._shut, self.refusal = False, overloaded()

    @property
    def is_shut(self) -> bool:
        """Whether all calls are refused."""
        return self._shut

    def turned_away(self, calls: int) -> None:
        """So many calls were refused by a front that found no room."""
        with self._lock:
            self.refused += calls

    def _queue(self, call: Call) -> bool:
        if self._waiting >= (self.bound if call.method in NEW_WORK else WAITING_MAX):
            return False
        self._calls.append(call)
        self._waiting += payments_in(call)
        return True

    def poll(self, at_most: int) -> list[Call]:
        """See gateway.engine.loop.Source: all that waits, which is bounded here."""
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
        """Lets the engine look."""
        self._inbox.wake()

    def idle(self) -> None:
        """See gateway.engine.loop.Source: time that passes now is not the engine's."""
        self._last = 0

    def end(self, error: HutongError) -> None:
        """See gateway.engine.loop.Source: whoever waits, and whoever comes now, is refused with this error."""
        with self._lock:
            self._ended = error
            calls, self._calls, self._waiting = self._calls, [], 0
        for call in calls:
            call.fail(error)


def _first(calls: list[Call], payments: int) -> tuple[list[Call], list[Call], int]:
    """The first calls that ask for so many payments, at least one; the others; and how many the first ask for."""
    taken = at = 0
    for at, call in enumerate(calls):
        size = payments_in(call)
        if at and taken + size > payments:
            return calls[:at], calls[at:], taken
        taken += size
    return calls, [], taken
