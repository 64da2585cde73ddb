"""Callers who read: storms of status queries, and watchers who reconnect after every crash; and what they may be told.

Their answers are compared with the events that are committed at that moment. A query shows a state that was published,
and never one older than what any caller was told when it was sent. A watcher gets the events after the number that it
names, in order, each at least once, and none that is not committed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from gateway.calls import GET
from gateway.engine.answer import id_text
from gateway.engine.states import State
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError
from verification.simulation.plan import Watch
from verification.simulation.storage import Rows

FULL_EACH: Final = 7
"""Of so many messages to a watcher, one finds its connection full."""
_LATEST: Final = "SELECT COALESCE(max(sequence), 0) FROM events WHERE payment_id = ? AND state = ?"
_ALL: Final = (
    "SELECT e.sequence, e.payment_id, e.state, p.merchant_id FROM events e "
    "JOIN payments p ON p.payment_id = e.payment_id WHERE e.sequence > ? ORDER BY e.sequence"
)


class Reading:
    """The rules for what readers are told."""

    def __init__(self, complain: Callable[[str, str], None], rows: Callable[[], Rows]) -> None:
        """`rows` shows committed rows."""
        self._complain = complain
        self._rows = rows
        self._shown: dict[bytes, int] = {}
        """Payment to the latest of its events that a query showed."""

    def floor(self, payment_id: bytes) -> int:
        """The event that a query sent now must not fall behind."""
        return self._shown.get(payment_id, 0)

    def shown(self, payment_id: bytes, state: int, floor: int) -> None:
        """Checks the state that a query showed."""
        (sequence,) = self._rows().execute(_LATEST, (payment_id, state)).fetchone()
        if not sequence:
            self._complain(
                "nothing is told before it is durable",
                f"{payment_id.hex()} is read as {State(state).name}, unpublished",
            )
        elif sequence < floor:
            self._complain("what is read never goes back", f"{payment_id.hex()} is read as {State(state).name} again")
        self._shown[payment_id] = max(sequence, self._shown.get(payment_id, 0))

    def watched(self, watcher: Watcher) -> None:
        """At the end: checks that everything came, in order, and nothing else."""
        wanted = [
            (sequence, bytes(payment_id), state)
            for sequence, payment_id, state, merchant_id in self._rows().execute(_ALL, (0,))
            if watcher.payment_id in (None, payment_id) and watcher.item.merchant in ("", merchant_id)
        ]
        if list(watcher.seen.items()) != [(sequence, (key, state)) for sequence, key, state in wanted]:
            self._complain(
                "watchers see every event in order",
                f"a watcher saw {len(watcher.seen)} events of {len(wanted)}, or others, or in another order",
            )


class Query:
    """A GetPayment call."""

    method = GET
    caller = "caller"

    def __init__(
        self, payment_id: bytes, floor: int, told: Callable[[Query, pb.GetPaymentResponse | HutongError], None]
    ) -> None:
        self.payment_id = payment_id
        self.floor = floor
        self.payload = pb.GetPaymentRequest(payment_id=id_text(payment_id)).SerializeToString()
        self.time_left_us: int | None = None
        self.answers = 0
        self.lost = False
        """Whether the process that was to answer ended."""
        self._told = told

    def answer(self, payload: bytes) -> None:
        self._told(self, pb.GetPaymentResponse.FromString(payload))

    def fail(self, error: HutongError) -> None:
        self._told(self, error)


class Watcher:
    """A watcher of all payments or of one, on one stream after another."""

    def __init__(self, item: Watch, payment_id: bytes | None, complain: Callable[[str, str], None]) -> None:
        self.item = item
        self.payment_id = payment_id
        self.asker = "watcher"
        self.seen: dict[int, tuple[bytes, int]] = {}
        """Sequence -> payment and state, in the order in which they first came."""
        self._complain = complain
        self._stream = 0
        self._last = 0
        self._messages = 0
        self._come_to = 0
        """The highest number that a message said its stream had come to."""

    def request(self) -> tuple[bytes, Stream]:
        """The request of a new stream: from the last event seen, or, as a test, from some before it."""
        self._stream += 1
        self._last = max(self._come_to, max(self.seen, default=0)) - (self._stream % 3 and self._stream)
        self._last = max(self._last, 0)
        request = pb.WatchPaymentsRequest(after_sequence=self._last)
        if self.payment_id is not None:
            request.payment_id = id_text(self.payment_id)
        if self.item.merchant:
            request.filter.merchant_id = self.item.merchant
        return request.SerializeToString(), Stream(self, self._stream)

    def take(self, stream: int, message: bytes) -> bool:
        """Takes a message; False if the connection is full."""
        self._messages += 1
        if self._messages % FULL_EACH == 0 or stream != self._stream:
            return False
        response = pb.WatchPaymentsResponse.FromString(message)
        self._come_to = max(self._come_to, response.sequence)
        for event in response.events:
            if event.sequence <= self._last:
                self._complain("watchers see every event in order", f"{event.sequence} came after {self._last}")
            self._last = event.sequence
            self.seen.setdefault(event.sequence, (bytes.fromhex(event.payment_id.replace("-", "")), event.state))
        return True


class Stream:
    """One connection of a watcher."""

    def __init__(self, watcher: Watcher, number: int) -> None:
        self.watcher = watcher
        self.asker = watcher.asker
        self.origin = self.asker
        self.full = self.closed = False
        self._number = number

    def try_send(self, message: bytes) -> bool:
        taken = not self.closed and self.watcher.take(self._number, message)
        self.full |= not taken
        return taken

    def fail(self, error: HutongError) -> None:
        self.closed = True
