"""Timers of payments in flight, which cost nothing for payments that end in time.

Most payments end long before anything of theirs is overdue, so a timer for each would mostly be set and discarded.
Instead the book is scanned once in a while for what falls due soon, and only that is kept in order; anything later than
that costs one comparison. Pure: the time is passed in.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Final

from gateway.engine.model import Payment

AHEAD_US: Final = 1_000_000
"""How far a scan looks ahead, and so how often the book is scanned, in microseconds: 100,000 payments take some 10 ms,
1 % of it."""
LINGERS_US: Final = 2_000_000
"""Payments in flight for longer than this count as lingering; most end sooner. It is shorter than callers' polling
interval, by the time between two scans."""


class Timers:
    """The order in which payments of a book fall due."""

    __slots__ = ("_soon", "horizon_us", "lingering")

    def __init__(self) -> None:
        self.horizon_us = 0
        """The next scan finds what falls due from here on; what falls due before must be noted."""
        self.lingering = 0
        """Payments in flight for LINGERS_US or longer at the last scan; their callers poll."""
        self._soon: list[tuple[int, bytes]] = []
        """A heap of (due_us, payment id). Entries of payments that left or were postponed are dropped when they come
        up."""

    def note(self, payment: Payment) -> None:
        """Notes a payment of the book that falls due before the horizon."""
        heapq.heappush(self._soon, (payment.due_us, payment.payment_id))

    def next_us(self) -> int:
        """When to look again at the latest; None with an empty book."""
        return self._soon[0][0] if self._soon else self.horizon_us

    def shift(self, by_us: int) -> None:
        """Adjusts to a step of the clock by so many microseconds."""
        self.horizon_us += by_us
        self._soon = [(due_us + by_us, payment_id) for due_us, payment_id in self._soon]

    def take(self, book: Mapping[bytes, Payment], now_us: int, at_most: int) -> list[Payment]:
        """Removes and returns what is due, longest overdue first; the rest follows at the next call. The caller sets
        when a returned payment is due again, and notes it."""
        if now_us >= self.horizon_us:
            # What falls due before the former horizon was noted, and may be much of the book after a restart.
            seen_us, self.horizon_us = self.horizon_us, now_us + AHEAD_US
            horizon_us = self.horizon_us
            found = [(one.due_us, key) for key, one in book.items() if seen_us <= one.due_us < horizon_us]
            if found:
                self._soon.extend(found)
                heapq.heapify(self._soon)
            long_ago_us = now_us - LINGERS_US
            self.lingering = sum(one.created_us <= long_ago_us for one in book.values())
        soon, due = self._soon, dict[bytes, Payment]()
        while soon and soon[0][0] <= now_us and len(due) < at_most:
            due_us, payment_id = heapq.heappop(soon)
            payment = book.get(payment_id)
            if payment is not None and payment.due_us == due_us:  # or else it was noted anew
                due[payment_id] = payment
        return list(due.values())
