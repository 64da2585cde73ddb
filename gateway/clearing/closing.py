"""Closes settlement windows: on request, and at the end of every period."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Final

from gateway.clearing.model import Window
from gateway.clearing.reader import ClearingReader
from gateway.engine.clock import Clock
from gateway.engine.model import Close
from gateway.engine.ports import JournalUnavailableError
from hutong_contract.errors import HutongError, Reason

log = logging.getLogger(__name__)

CLOSE_S: Final = 10.0
"""How long the engine may take, in seconds: some ticks, or as long as the journal cannot be written."""
LOOK_S: Final = 1.0
"""Seconds between two looks at the clock."""
RETRY_S: Final = 5.0
"""Delay after a failed closing, in seconds."""

Put = Callable[[Iterable[Close]], None]
"""Gives the engine an event: its inbox."""


class _Waiter:
    """Receives the answer to a request to close a window."""

    def __init__(self) -> None:
        self.done: Future[None] = Future()

    def answer(self, payload: bytes) -> None:
        self.done.set_result(None)

    def fail(self, error: HutongError) -> None:
        self.done.set_exception(error)


def close_window(number: int, reader: ClearingReader, put: Put, *, wait_s: float = CLOSE_S) -> Window:
    """Closes the window with this number and returns it; returns it too if it was closed before. Raises HutongError:
    WINDOW_NOT_NEXT, JOURNAL_UNAVAILABLE, DRAINING."""
    if number < 1:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="number", least="1")
    last = reader.last()
    following = last.number + 1 if last else 1
    if number > following:
        raise HutongError(Reason.ERROR_REASON_WINDOW_NOT_NEXT, next=str(following))
    if number == following:
        waiter = _Waiter()
        put((Close(number, waiter),))
        try:
            waiter.done.result(wait_s)
        except FutureTimeoutError:
            raise HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE) from None
    return reader.window(number)


def turn_us(now_us: int, every_us: int) -> int:
    """The last end of a period before this moment. Periods end at multiples of their length since the epoch: a day ends
    at midnight UTC."""
    return now_us - now_us % every_us


class Closer:
    """Closes a window at the end of every period in which a payment succeeded that no window holds yet. So no window is
    empty, and one makes up for all ends that were missed. Several gateways on one journal may each have a closer: the
    first one closes the window, and the others find nothing to do."""

    def __init__(
        self, every_us: int, open_reader: Callable[[], ClearingReader], put: Put, clock: Clock | None = None
    ) -> None:
        self._every_us = every_us
        self._open_reader = open_reader
        self._put = put
        self._clock = clock or Clock()
        self._seen_us = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="clearing", daemon=True)

    def start(self) -> None:
        """Starts the thread. An end that was missed while nothing ran is made up for at once."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread."""
        self._stopped.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stopped.wait(pause_s):
            pause_s = LOOK_S
            try:
                self.look()
            except (HutongError, JournalUnavailableError) as error:
                log.warning("the settlement window could not be closed, it is tried again: %s", error)
                pause_s = RETRY_S

    def look(self) -> None:
        """Closes a window if it is time. Each end of a period is handled once."""
        turn = turn_us(self._clock.now_us(), self._every_us)
        if turn == self._seen_us or not self._clock.settled:  # earlier, where the clock was set back
            return
        reader = self._open_reader()
        try:
            last = reader.last()
            since_us = reader.waiting_since_us(last)
            if since_us is not None and since_us < turn:
                window = close_window(last.number + 1 if last else 1, reader, self._put)
                log.info("settlement window %d is closed", window.number)
        finally:
            reader.close()
        self._seen_us = turn
