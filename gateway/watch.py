"""WatchPayments: events from the journal to subscribers, in order, at least once, never ahead of what is durable.

One thread serves all subscribers from committed rows. Those at the head share one read and one message; those behind
read for themselves until they have caught up. A subscriber whose connection is full is tried again later.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from google.protobuf.message import DecodeError

from contract.errors import HutongError, Reason
from gateway.admission import overloaded
from gateway.engine.answer import id_text, timestamp
from gateway.journal.interface import EventRow, Reader
from gateway.requests import payment_id_bytes
from hutong.gateway.v1 import payment_pb2 as pb

log = logging.getLogger(__name__)

EVENTS_PER_MESSAGE_MAX: Final = 500
SUBSCRIBERS_MAX: Final = 1000
SUBSCRIBERS_OF_ONE_MAX: Final = 100
"""Streams that one caller may have open."""
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
    __slots__ = ("after", "payment_id", "subscriber")

    def __init__(self, subscriber: Subscriber, after: int, payment_id: bytes | None) -> None:
        self.subscriber = subscriber
        self.after = after
        self.payment_id = payment_id


class WatchHub:
    """Serves all subscribers of one gateway."""

    def __init__(self, open_reader: Callable[[], Reader], *, threaded: bool = True) -> None:
        """Without a thread (`threaded`) its maker takes the turns."""
        self._open_reader = open_reader
        self._reader: Reader | None = None
        self._positions: list[_Position] = []
        """The thread's own."""
        self._new: deque[_Position] = deque()
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        if threaded:
            self._thread.start()

    def notify(self) -> None:
        """There may be new events. Called by the engine after each commit."""
        if self._positions or self._new:
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
        while not self._stopped:
            self._wake.wait(POLL_S if self._positions else None)
            self._wake.clear()
            self.turn()
        if self._reader is not None:
            self._reader.close()

    def turn(self) -> None:
        """Sends what there is to those who are there."""
        try:
            self._reader = self._reader or self._open_reader()
            self._serve(self._reader)
        except Exception as error:  # a journal that cannot be read now is read again later
            log.error("events cannot be read now", exc_info=error)

    def _serve(self, reader: Reader) -> None:
        came = [self._new.popleft() for _ in range(len(self._new))]
        self._positions = [one for one in (*self._positions, *came) if not one.subscriber.closed]
        shared: dict[tuple[int, bytes | None], tuple[int, bytes] | None] = {}
        for position in self._positions:
            for _ in range(64):  # a share of the time for each; the rest at the next wake
                key = (position.after, position.payment_id)
                if key not in shared:
                    rows = reader.events(position.after, EVENTS_PER_MESSAGE_MAX, position.payment_id)
                    shared[key] = (rows[-1].sequence, message(rows)) if rows else None
                batch = shared[key]
                if batch is None:
                    break
                if not position.subscriber.try_send(batch[1]):
                    break
                position.after = batch[0]
            else:
                self._wake.set()

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
