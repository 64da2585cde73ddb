"""Drives one connection with calls of a flow: closed loop (so many in flight) or open loop (when they are due).

Latencies count twice: from when a call was due, which is what a caller on a schedule waits for, and from when it was
written. The first call of an operation is due by the schedule, each further one when the answer before it came.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from loadtest.arrivals import Arrivals
from loadtest.h2 import Reply, UnaryLoad
from loadtest.operations import Call, Outcome

IN_FLIGHT_MAX: Final = 8192
"""Calls of an open loop that one connection has without an answer; what is due beyond is counted as missed."""
WAIT_S: Final = 0.02
"""Longest wait for an answer before the schedule is looked at again."""


class Calls(Protocol):
    """Gives the first call of one operation after another."""

    def begin(self) -> Call:
        """The next one."""
        ...


@dataclass(frozen=True, slots=True)
class Seen:
    """A call that ended."""

    name: str
    outcome: Outcome
    from_due_s: float
    from_send_s: float
    size: int
    """Bytes of the answer."""


class Driver:
    """One connection's calls. Not for several threads.

    Its clock is `time.perf_counter`; arrivals must be made on it.
    """

    def __init__(self, load: UnaryLoad, calls: Calls, seen: Callable[[Seen], None]) -> None:
        self._load = load
        self._calls = calls
        self._seen = seen
        self._open: dict[int, tuple[Call, float]] = {}
        self._tag = 0
        self.missed = 0
        """Calls that were due while too many had no answer, and were never made."""

    @property
    def in_flight(self) -> int:
        """Calls without an answer."""
        return len(self._open)

    def closed(self, concurrency: int, *, wait: bool = True) -> None:
        """One round of a closed loop: begins operations until so many calls are in flight, and takes what answers;
        without `wait` what has answered already."""
        now = time.perf_counter()
        for _ in range(concurrency - len(self._open)):
            self._send(self._calls.begin(), now)
        self._exchange(WAIT_S if wait else 0.0)

    def open(self, arrivals: Arrivals, *, wait: bool = True) -> None:
        """One round of an open loop: begins what is due, and takes what answers; without `wait` what has already."""
        now = time.perf_counter()
        for due in arrivals.due(now, IN_FLIGHT_MAX):
            if len(self._open) >= IN_FLIGHT_MAX:
                self.missed += 1
            else:
                self._send(self._calls.begin(), due)
        self._exchange(min(WAIT_S, max(0.0, arrivals.next_s - time.perf_counter())) if wait else 0.0)

    def fileno(self) -> int:
        """The connection's socket, so that several can be waited for at once."""
        return self._load.fileno()

    def finish(self, timeout_s: float) -> int:
        """Begins nothing more and takes the answers that still come, follow-up calls included. Returns how many calls
        were left without one."""
        until = time.perf_counter() + timeout_s
        while self._open and time.perf_counter() < until:
            self._exchange(WAIT_S)
        return len(self._open)

    def _send(self, call: Call, due: float) -> None:
        self._tag += 1
        self._open[self._tag] = (call, due)
        self._load.send(self._tag, call.message, call.path)

    def _exchange(self, timeout_s: float) -> None:
        replies = self._load.exchange(timeout_s)
        if not replies:
            return
        now = time.perf_counter()
        for reply in replies:
            self._end(reply, now)

    def _end(self, reply: Reply, now: float) -> None:
        call, due = self._open.pop(reply.tag)
        outcome = call.end(reply)
        self._seen(Seen(call.name, outcome, now - due, reply.latency_s, len(reply.body)))
        if outcome.follow is not None:
            self._send(outcome.follow, now)
