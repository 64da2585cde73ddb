"""WatchPayments: sends events from the journal to subscribers, in order, at least once, never before they are durable.

One thread serves all subscribers from committed rows, in turns of bounded work. A turn first serves subscribers of one
payment (one read of those payments' events for up to WATCHED_PER_READ_MAX of them), then subscribers of all payments
that have caught up (they share a read), then, in rotation, those that are behind, until the turn's work is used up. So
nobody waits longer for a new event because another subscriber reads years of old ones. A subscriber whose connection is
full is tried again later.

Filters cost nothing for subscribers without one: reads are shared, and a subscriber gets the matching events of each
read, found by token or merchant. If none match, its position moves on, and it is told now and then how far it has come.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from gateway import filters
from gateway.admission import overloaded
from gateway.engine.answer import id_text, timestamp
from gateway.filters import ALL, PaymentFilter
from gateway.journal.interface import EventRow, Reader
from gateway.requests import payment_id_bytes
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError, Reason

log = logging.getLogger(__name__)

EVENTS_PER_MESSAGE_MAX: Final = 500
WATCHED_PER_READ_MAX: Final = 200
"""Most payments whose events are read by one statement."""
EVENTS_PER_READ_MAX: Final = 4000
"""Most events that such a statement returns; a payment has about ten in its life."""
WORK_PER_TURN_MAX: Final = 32
"""Work that a turn spends on subscribers that are behind: READ_WORK for each read of EVENTS_PER_MESSAGE_MAX events (a
millisecond or two), 1 for each message that was read before."""
READ_WORK: Final = 4
FULL_PER_TURN_MAX: Final = 64
"""Full connections that a turn tries again; each holds the message that it did not accept."""
SUBSCRIBERS_MAX: Final = 1000
SUBSCRIBERS_OF_ONE_MAX: Final = 100
"""Most open streams of one caller."""
BEHIND_REST: Final = 4.0
"""While payments are made, the thread rests after serving those that are behind, for this many times the CPU time of
the turn: catching up takes at most a fifth of one processor."""
PROGRESS_EVENTS: Final = 5_000
"""After this many events in a row that do not match, a subscriber is told its position, so that it need not start
before them if its stream breaks."""
POLL_S: Final = 0.2
"""How often full subscribers, and journals that other engines write, are looked at again, in seconds."""


class Subscriber(Protocol):
    """A caller's stream."""

    asker: str
    """The caller whose query budget counts."""
    origin: str
    """Where the stream comes from: who its caller is, where that is proven, or else its connection."""

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
    __slots__ = (
        "after",
        "broken",
        "caught_up",
        "from_now",
        "held",
        "payment_id",
        "served",
        "subscriber",
        "told",
        "wanted",
    )

    def __init__(
        self, subscriber: Subscriber, after: int, payment_id: bytes | None, wanted: PaymentFilter, *, from_now: bool
    ) -> None:
        self.subscriber = subscriber
        self.after = after
        self.told = after
        """The number that its caller knows it to have come to."""
        self.payment_id = payment_id
        self.wanted = wanted
        self.from_now = from_now
        """Whether it begins at whatever is the newest event when it is first served."""
        self.broken = False
        self.caught_up = False
        """Whether the last read for it reached the newest event."""
        self.served = 0
        """When it was served last, as a count of what the hub has served; the lowest is next."""
        self.held: _Batch | None = None
        """The message that its full connection did not accept."""

    @property
    def gone(self) -> bool:
        """Whether the caller has left or the stream is broken."""
        try:
            return self.broken or self.subscriber.closed
        except Exception as error:  # one broken stream must not end those of the others
            log.error("a watcher's stream is broken and given up", exc_info=error)
            self.broken = True
            return True

    def offer(self, batch: _Batch) -> bool:
        """Sends a batch and moves the position behind it; False if the connection is full or closed, and then the batch
        is held. If no event matches, the position is sent only now and then."""
        if not batch.fitting and batch.last - self.told < PROGRESS_EVENTS and not self.from_now:
            self.after = batch.last
            return True
        try:
            sent = self.subscriber.try_send(batch.message)
        except Exception as error:  # as above
            log.error("a watcher's stream is broken and given up", exc_info=error)
            self.broken = True
            sent = False
        if not sent:
            self.held = batch
            return False
        self.after = self.told = batch.last
        self.held = None
        self.from_now = False
        return True


class _Batch:
    """The events of one message to a subscriber."""

    __slots__ = ("fitting", "last", "message")

    def __init__(self, rows: Sequence[EventRow], last: int) -> None:
        """`last`: the number that has been come to, of the last event whether it fits or not."""
        self.last = last
        self.fitting = bool(rows)
        self.message = message(rows, last)


class _Read:
    """Consecutive events of one read, and what each subscriber gets of them. Subscribers at equal positions share a
    batch."""

    def __init__(self, rows: Sequence[EventRow]) -> None:
        self.rows = rows
        self.last = rows[-1].sequence if rows else 0
        self.complete = len(rows) < EVENTS_PER_MESSAGE_MAX
        """Whether there was nothing more to read behind them."""
        self._batches: dict[tuple[int, PaymentFilter], _Batch] = {}
        self._by_token: dict[bytes, list[EventRow]] | None = None
        self._by_merchant: dict[str, list[EventRow]] | None = None

    def batch(self, one: _Position) -> _Batch:
        """The matching events after the subscriber's position."""
        key = (one.after, one.wanted)
        found = self._batches.get(key)
        if found is None:
            rows = self._near(one.wanted)
            rows = rows[bisect_right(rows, one.after, key=_sequence) :]
            if one.wanted is not ALL:
                rows = [row for row in rows if _fits(one.wanted, row)]
            found = self._batches[key] = _Batch(rows, self.last)
        return found

    def _near(self, wanted: PaymentFilter) -> Sequence[EventRow]:
        """The events of a filter's token or merchant, found without a look at each event for each subscriber."""
        if wanted.token_ref:
            if self._by_token is None:
                self._by_token = {}
                for row in self.rows:
                    self._by_token.setdefault(row.token_ref, []).append(row)
            return self._by_token.get(wanted.token_ref, ())
        if wanted.merchant_id:
            if self._by_merchant is None:
                self._by_merchant = {}
                for row in self.rows:
                    self._by_merchant.setdefault(row.merchant_id, []).append(row)
            return self._by_merchant.get(wanted.merchant_id, ())
        return self.rows


class WatchHub:
    """Serves all subscribers of one gateway."""

    def __init__(self, open_reader: Callable[[], Reader], *, threaded: bool = True) -> None:
        """Without a thread (`threaded`) the owner calls `turn`."""
        self._open_reader = open_reader
        self._reader: Reader | None = None
        self._positions: list[_Position] = []
        """Everybody who is served, replaced by the thread at the start of each turn."""
        self._served = 0
        self.failure: Exception | None = None
        """Why events cannot be read now; None while they can."""
        self._new: deque[_Position] = deque()
        self._places = threading.Lock()
        self._wake = threading.Event()
        self._stopped = False
        self._paid = False
        """Whether something was committed since the last turn."""
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        if threaded:
            self._thread.start()

    def notify(self) -> None:
        """Tells the thread that there may be new events. Called by the engine after each commit."""
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
            if request.from_now and request.after_sequence:
                raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="after_sequence", allowed="0 with from_now")
            wanted = filters.checked(request.filter) if request.HasField("filter") else ALL
            self._make_room(subscriber)
        except DecodeError:
            subscriber.fail(HutongError(Reason.ERROR_REASON_MESSAGE_MALFORMED))
        except HutongError as error:
            subscriber.fail(error)
        else:
            one = _Position(subscriber, request.after_sequence, payment_id, wanted, from_now=request.from_now)
            self._new.append(one)
            self._wake.set()

    def _make_room(self, subscriber: Subscriber) -> None:
        """Raises HutongError where there is no place for one more. When all are taken, who has fewer gets one of those
        who have most: names can be made up, so streams are counted by where they come from."""
        with self._places:
            there = [one for one in (*self._positions, *tuple(self._new)) if not one.broken]
            if sum(one.subscriber.asker == subscriber.asker for one in there) >= SUBSCRIBERS_OF_ONE_MAX:
                raise overloaded()
            if len(there) < SUBSCRIBERS_MAX:
                return
            counts = Counter(one.subscriber.origin for one in there)
            origin, most = counts.most_common(1)[0]
            if most <= counts[subscriber.origin] + 1:
                raise overloaded()
            last = next(one for one in reversed(there) if one.subscriber.origin == origin)
            last.broken = True
        log.warning("all %d places of watchers are taken: one of the %d of %s gives way", SUBSCRIBERS_MAX, most, origin)
        last.subscriber.fail(overloaded())

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
        """Sends pending events to subscribers, up to one turn's work; without `behind` none to those that are behind.
        Returns whether there is more to send at once."""
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
        beginning = [one for one in self._positions if one.from_now and one.held is None]
        if beginning:
            last = reader.last_event()
            for one in beginning:  # each is told from where on
                one.after = last
                one.caught_up = one.offer(_Batch((), last))
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
        """Serves subscribers of one payment each."""
        after: dict[bytes, int] = {}
        for one in ones:
            assert one.payment_id is not None, "these watch one payment"
            after[one.payment_id] = min(one.after, after.get(one.payment_id, one.after))
        rows: dict[bytes | None, list[EventRow]] = {}
        for row in reader.events_of(after, EVENTS_PER_READ_MAX):
            rows.setdefault(row.payment_id, []).append(row)
        for one in ones:
            news = [row for row in rows.get(one.payment_id, ()) if row.sequence > one.after][:EVENTS_PER_MESSAGE_MAX]
            if news:
                one.offer(_Batch([row for row in news if _fits(one.wanted, row)], news[-1].sequence))

    def _serve_caught_up(self, reader: Reader, ones: Sequence[_Position]) -> None:
        """Serves subscribers of all payments that are near the newest event, with one read for all. Those that do not
        reach its end count as behind."""
        if not ones:
            return
        read = _Read(reader.events(min(one.after for one in ones), EVENTS_PER_MESSAGE_MAX))
        for one in ones:
            if one.after < read.last:
                one.caught_up = one.offer(read.batch(one)) and read.complete
            elif not read.complete:
                one.caught_up = False

    def _serve_behind(self, reader: Reader, ones: Sequence[_Position]) -> bool:
        """Serves subscribers of all payments that are behind, in this order and again, until the turn's work is used
        up. Returns whether another one could be served at once."""
        waiting = deque(ones)
        reads: dict[int, _Read] = {}
        work = 0
        while waiting and work < WORK_PER_TURN_MAX:
            one = waiting.popleft()
            self._count(one)
            read = reads.get(one.after)
            work += READ_WORK if read is None else 1
            if read is None:
                read = _Read(reader.events(one.after, EVENTS_PER_MESSAGE_MAX))
                if not read.rows:
                    one.caught_up = True
                    continue
                reads[one.after] = read
            if one.offer(read.batch(one)):
                one.caught_up = read.complete
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


def message(rows: Sequence[EventRow], sequence: int) -> bytes:
    """A serialized WatchPaymentsResponse that says that its stream has come to `sequence`."""
    return pb.WatchPaymentsResponse(
        events=[
            pb.PaymentEvent(
                sequence=row.sequence,
                payment_id=id_text(row.payment_id),
                state=row.state,  # type: ignore[arg-type]
                time=timestamp(row.time_us),
                kind=row.kind,  # type: ignore[arg-type]
                amount_minor=row.amount_minor,
                currency=row.currency,
                merchant_id=row.merchant_id,
                terminal_id=row.terminal_id,
                payer_key=row.payer_key,  # type: ignore[arg-type]
                token_ref=row.token_ref,
                original_payment_id=id_text(row.original_id) if row.original_id else "",
            )
            for row in rows
        ],
        sequence=sequence,
    ).SerializeToString()


def _fits(wanted: PaymentFilter, row: EventRow) -> bool:
    return wanted.fits(row.payment_id, row.merchant_id, row.terminal_id, row.token_ref, row.kind, row.state)


def _sequence(row: EventRow) -> int:
    return row.sequence
