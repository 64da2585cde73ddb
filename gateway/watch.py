"""WatchPayments: events from the journal to subscribers, in order, at least once, never ahead of what is durable.

One thread serves all subscribers from committed rows, in turns of bounded work. A turn first serves those who watch one
payment (one read of those payments' own events for up to WATCHED_PER_READ_MAX of them), then those who watch all and
have caught up (they share a read), then, in rotation, those who are behind, as far as the turn's work goes. So nobody
waits longer for a new event because somebody else reads years of old ones. A subscriber whose connection is full is
tried again later.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from gateway.admission import overloaded
from gateway.engine.answer import id_text, timestamp
from gateway.journal.interface import EventRow, Reader
from gateway.requests import payment_id_bytes
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError, Reason

log = logging.getLogger(__name__)

EVENTS_PER_MESSAGE_MAX: Final = 500
WATCHED_PER_READ_MAX: Final = 200
"""Watched payments whose events are read by one statement."""
EVENTS_PER_READ_MAX: Final = 4000
"""Most events that such a statement returns; a payment has about ten in its life."""
WORK_PER_TURN_MAX: Final = 32
"""What a turn spends on subscribers who are behind: READ_WORK for each read of EVENTS_PER_MESSAGE_MAX events (a
millisecond or two), 1 for each message that was read before."""
READ_WORK: Final = 4
FULL_PER_TURN_MAX: Final = 64
"""Full connections that a turn tries again; each holds the message that it did not take."""
SUBSCRIBERS_MAX: Final = 1000
SUBSCRIBERS_OF_ONE_MAX: Final = 100
"""Streams that one caller may have open."""
BEHIND_REST: Final = 4.0
"""While payments are made, those behind are left alone for so many times the CPU time that a turn took: a fifth of one
processor goes to their catching up."""
POLL_S: Final = 0.2
"""How often subscribers that are full, and journals that others write, are looked at again."""


class Subscriber(Protocol):
    """A caller's stream."""

    asker: str
    """Whose query budget it is."""

    def try_send(self, message: bytes) -> bool:
        """Sends a message; False if the stream is full now."""
        ...

    def fail(self, error: HutongError) -> None:
        """Ends the stream with an error."""
        ...

    @property
    def closed(self) -> bool:
        """Whether the caller has left."""
        ...


class _Position:
    __slots__ = ("after", "broken", "caught_up", "held", "payment_id", "served", "subscriber")

    def __init__(self, subscriber: Subscriber, after: int, payment_id: bytes | None) -> None:
        self.subscriber = subscriber
        self.after = after
        self.payment_id = payment_id
        self.broken = False
        self.caught_up = False
        """Whether the last read for it reached the newest event."""
        self.served = 0
        """When it was served last, as a count of what the hub has served; the lowest is next."""
        self.held: _Batch | None = None
        """What its full connection did not take."""

    @property
    def gone(self) -> bool:
        """Whether its caller left, or its stream is broken."""
        try:
            return self.broken or self.subscriber.closed
        except Exception as error:  # one broken stream must not end those of the others
            log.error("a watcher's stream is broken and given up", exc_info=error)
            self.broken = True
            return True

    def offer(self, batch: _Batch) -> bool:
        """Sends a batch and moves behind it; False if the connection is full or gone: then the batch is held."""
        try:
            sent = self.subscriber.try_send(batch.message)
        except Exception as error:  # as above
            log.error("a watcher's stream is broken and given up", exc_info=error)
            self.broken = True
            sent = False
        if not sent:
            self.held = batch
            return False
        self.after = batch.last
        self.held = None
        return True


class _Batch:
    """Events in a row, as one message."""

    __slots__ = ("complete", "last", "message")

    def __init__(self, rows: Sequence[EventRow]) -> None:
        self.last = rows[-1].sequence
        self.message = message(rows)
        self.complete = len(rows) < EVENTS_PER_MESSAGE_MAX
        """Whether there was nothing more to read behind them."""


class WatchHub:
    """Serves all subscribers of one gateway."""

    def __init__(self, open_reader: Callable[[], Reader], *, threaded: bool = True) -> None:
        """Without a thread (`threaded`) its maker takes the turns."""
        self._open_reader = open_reader
        self._reader: Reader | None = None
        self._positions: list[_Position] = []
        """Everybody who is served, replaced by the thread at the start of each turn."""
        self._served = 0
        self.failure: Exception | None = None
        """Why events cannot be read now; None while they can."""
        self._new: deque[_Position] = deque()
        self._wake = threading.Event()
        self._stopped = False
        self._paid = False
        """Whether something was committed since the last turn."""
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        if threaded:
            self._thread.start()

    def notify(self) -> None:
        """There may be new events. Called by the engine after each commit."""
        if self._positions or self._new:
            self._paid = True
            self._wake.set()

    def subscribe(self, payload: bytes, subscriber: Subscriber) -> None:
        """Begins a stream for a serialized WatchPaymentsRequest, or ends it with an error."""
        try:
            request = pb.WatchPaymentsRequest.FromString(payload)
            payment_id = payment_id_bytes(request.payment_id) if request.payment_id else None
            if request.after_sequence < 0:
                raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="after_sequence", least="0")
            there = [position.subscriber.asker for position in (*self._positions, *tuple(self._new))]
            if len(there) >= SUBSCRIBERS_MAX or there.count(subscriber.asker) >= SUBSCRIBERS_OF_ONE_MAX:
                raise overloaded()
        except DecodeError:
            subscriber.fail(HutongError(Reason.ERROR_REASON_MESSAGE_MALFORMED))
        except HutongError as error:
            subscriber.fail(error)
        else:
            self._new.append(_Position(subscriber, request.after_sequence, payment_id))
            self._wake.set()

    def _run(self) -> None:
        more, paid, behind_s = False, False, 0.0
        while not self._stopped:
            if more:
                self._wake.wait(max(0.0, behind_s - time.monotonic()))
            else:
                self._wake.wait(POLL_S if self._positions else None)
            self._wake.clear()
            paid, self._paid = paid or self._paid, False
            own_s, behind = time.thread_time(), time.monotonic() >= behind_s
            more = self.turn(behind=behind)
            if behind:
                rest_s = BEHIND_REST * (time.thread_time() - own_s) if more and paid else 0.0
                behind_s, paid = time.monotonic() + rest_s, False
        if self._reader is not None:
            self._reader.close()

    def turn(self, *, behind: bool = True) -> bool:
        """Sends what there is to those who are there, as far as one turn's work goes; without `behind` to none of those
        who are behind. Returns whether there is more to send at once."""
        try:
            self._reader = self._reader or self._open_reader()
            more = self._serve(self._reader, behind=behind)
        except Exception as error:  # a journal that cannot be read now is read again later, on a new connection
            self._give_up_reader()
            if self.failure is None:
                log.error("events cannot be read now, watchers wait until they can", exc_info=error)
            self.failure = error
            return False
        if self.failure is not None:
            log.warning("events can be read again")
            self.failure = None
        return more

    def _give_up_reader(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            with contextlib.suppress(Exception):  # it is broken already
                reader.close()

    def _serve(self, reader: Reader, *, behind: bool) -> bool:
        came = [self._new.popleft() for _ in range(len(self._new))]
        self._positions = [one for one in (*self._positions, *came) if not one.gone]
        ones = [one for one in self._positions if one.payment_id is not None]
        for start in range(0, len(ones), WATCHED_PER_READ_MAX):
            self._serve_watched(reader, ones[start : start + WATCHED_PER_READ_MAX])
        every = [one for one in self._positions if one.payment_id is None]
        self._serve_caught_up(reader, [one for one in every if one.caught_up])
        others = sorted((one for one in every if not one.caught_up), key=lambda one: one.served)
        if not behind:
            return any(one.held is None for one in others)
        for one in [one for one in others if one.held is not None][:FULL_PER_TURN_MAX]:
            self._count(one)
            assert one.held is not None, "picked above"
            one.offer(one.held)
        return self._serve_behind(reader, [one for one in others if one.held is None])

    def _count(self, one: _Position) -> None:
        self._served += 1
        one.served = self._served

    def _serve_watched(self, reader: Reader, ones: Sequence[_Position]) -> None:
        """Those who watch one payment each."""
        after: dict[bytes, int] = {}
        for one in ones:
            assert one.payment_id is not None, "these watch one payment"
            after[one.payment_id] = min(one.after, after.get(one.payment_id, one.after))
        rows: dict[bytes | None, list[EventRow]] = {}
        for row in reader.events_of(after, EVENTS_PER_READ_MAX):
            rows.setdefault(row.payment_id, []).append(row)
        for one in ones:
            news = [row for row in rows.get(one.payment_id, ()) if row.sequence > one.after]
            if news:
                one.offer(_Batch(news[:EVENTS_PER_MESSAGE_MAX]))

    def _serve_caught_up(self, reader: Reader, ones: Sequence[_Position]) -> None:
        """Those who watch all payments and are near the newest event: one read for all of them. Whoever does not get
        to its end counts as behind."""
        if not ones:
            return
        rows = reader.events(min(one.after for one in ones), EVENTS_PER_MESSAGE_MAX)
        batches: dict[int, _Batch] = {}
        for one in ones:
            if rows and one.after < rows[-1].sequence:
                if one.after not in batches:
                    batches[one.after] = _Batch(rows[bisect_right(rows, one.after, key=_sequence) :])
                one.caught_up = one.offer(batches[one.after]) and len(rows) < EVENTS_PER_MESSAGE_MAX
            elif len(rows) == EVENTS_PER_MESSAGE_MAX:
                one.caught_up = False

    def _serve_behind(self, reader: Reader, ones: Sequence[_Position]) -> bool:
        """Those who watch all payments and are behind, in this order and again, until the turn's work is done. Returns
        whether somebody is left who can be served at once."""
        waiting = deque(ones)
        batches: dict[int, _Batch] = {}
        work = 0
        while waiting and work < WORK_PER_TURN_MAX:
            one = waiting.popleft()
            self._count(one)
            batch = batches.get(one.after)
            work += READ_WORK if batch is None else 1
            if batch is None:
                rows = reader.events(one.after, EVENTS_PER_MESSAGE_MAX)
                if not rows:
                    one.caught_up = True
                    continue
                batch = batches[one.after] = _Batch(rows)
            if one.offer(batch):
                one.caught_up = batch.complete
                if not one.caught_up:
                    waiting.append(one)
        return bool(waiting)

    def close(self) -> None:
        """Ends the thread; streams end with their connections."""
        self._stopped = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        for position in (*self._positions, *self._new):
            position.subscriber.fail(HutongError(Reason.ERROR_REASON_DRAINING))


def message(rows: Sequence[EventRow]) -> bytes:
    """A serialized WatchPaymentsResponse."""
    return pb.WatchPaymentsResponse(
        events=[
            pb.PaymentEvent(
                sequence=row.sequence,
                payment_id=id_text(row.payment_id),
                state=row.state,  # type: ignore[arg-type]
                time=timestamp(row.time_us),
            )
            for row in rows
        ]
    ).SerializeToString()


def _sequence(row: EventRow) -> int:
    return row.sequence
