"""ListPayments: pages of committed payments, newest first, from an index and in bounded work, on a thread of its own.

A call reads at most SCAN_MAX rows of the one index that its filter is best served by; what the index does not decide is
decided row by row. So a page may be short, and name a next one. Between calls the thread brings the index by merchant
and token up to date, where the journal keeps one beside itself; a call that needs it waits until it is.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from google.protobuf.message import DecodeError

from gateway import filters
from gateway.admission import overloaded
from gateway.engine.answer import to_message
from gateway.engine.ports import Call, JournalUnavailableError
from gateway.engine.states import State
from gateway.filters import PaymentFilter
from gateway.journal.interface import Reader
from gateway.journal.listing import ListedRow, Scan
from gateway.queries import FAILED_REST_S, SHARE, rest
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError, Reason
from hutong_contract.incidents import incident
from hutong_contract.limits import PAYMENTS_PAGE_DEFAULT, PAYMENTS_PAGE_MAX
from hutong_contract.paging import page_size

log = logging.getLogger(__name__)

WAITING_MAX: Final = 256
"""Most calls that wait; further ones are refused."""
SCAN_MAX: Final = 1000
"""Most rows of an index that one call reads: a few milliseconds."""
FOLLOW_S: Final = 1.0
"""How often the thread looks for new events to index, in seconds."""
FOLLOW_SHARE: Final = 0.02
"""Share of the gateway's CPU time for indexing while payments need all of it. The rest is indexed when a call needs it,
or when there is time."""
STEPS_PER_CALL_MAX: Final = 8
"""Indexing steps that one call does before it is refused and told to try again: about half a second."""
BEHIND_RETRY_US: Final = 500_000
_CREDITING: Final = int(State.CREDITING)
_SAID_BY_LEGS: Final = frozenset({int(State.DEBITING), int(State.DEBIT_UNKNOWN)})
"""States of a row whose payment may be CREDITING in truth, see gateway.journal.rows."""
_SUCCEEDED: Final = int(State.SUCCEEDED)
_REFUND: Final = int(pb.PAYMENT_KIND_REFUND)


class Lists:
    """Answers ListPayments calls."""

    def __init__(
        self, open_reader: Callable[[], Reader], *, busy: Callable[[], bool] = lambda: False, threaded: bool = True
    ) -> None:
        """`busy`: whether payments are in flight, which come first. Without a thread (`threaded`) its maker takes the
        turns."""
        self._open_reader = open_reader
        self._busy = busy
        self._reader: Reader | None = None
        self._calls: deque[Call] = deque()
        self._wake = threading.Event()
        self._stopped = False
        self._troubled = False
        self._thread = threading.Thread(target=self._run, name="lists", daemon=True)
        if threaded:
            self._thread.start()

    def submit(self, call: Call) -> None:
        """Has the call answered by the thread, or refuses it now."""
        if self._stopped:
            call.fail(HutongError(Reason.ERROR_REASON_DRAINING))
        elif len(self._calls) >= WAITING_MAX:
            call.fail(overloaded())
        else:
            self._calls.append(call)
            self._wake.set()

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._wake.wait(FOLLOW_S)
                self._wake.clear()
                more = True
                while more and not self._stopped:
                    own_s, asked = time.thread_time(), bool(self._calls)
                    more = self.turn()
                    share = SHARE if asked else FOLLOW_SHARE
                    rest(time.thread_time() - own_s, share, lambda: self._busy() and not self._stopped)
            except Exception as error:  # the thread goes on: without it every call would wait for its deadline
                log.error("the thread of lists failed and goes on", exc_info=error)
                time.sleep(FAILED_REST_S)
                self._wake.set()
        while self._calls:
            self._calls.popleft().fail(HutongError(Reason.ERROR_REASON_DRAINING))
        self._give_up_reader()

    def turn(self) -> bool:
        """Answers one call or, if none waits, does one indexing step. Returns whether there is more to do."""
        if not self._calls:
            return self._follow()
        call = self._calls.popleft()
        try:
            answer = self._answer(call.payload)
        except DecodeError:
            call.fail(HutongError(Reason.ERROR_REASON_MESSAGE_MALFORMED))
        except HutongError as error:
            call.fail(error)
        except JournalUnavailableError as error:
            log.error("a list could not read the journal", exc_info=error)
            self._give_up_reader()
            call.fail(HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE))
        except Exception as error:  # noqa: BLE001 - whatever the defect, the caller gets an answer and the log the cause
            self._give_up_reader()
            call.fail(incident(log, "the listing of payments", error))
        else:
            call.answer(answer)
        return True

    def _follow(self) -> bool:
        try:
            more = not self._open().follow()
        except Exception as error:
            self._give_up_reader()
            if not self._troubled:
                log.error("the index of payments cannot follow the journal now, and tries again", exc_info=error)
            self._troubled = True
            return False
        self._troubled = False
        return more

    def _open(self) -> Reader:
        if self._reader is None:
            self._reader = self._open_reader()
        return self._reader

    def _give_up_reader(self) -> None:
        """Closes the reader, which may be broken; the next call opens another one."""
        reader, self._reader = self._reader, None
        if reader is not None:
            with contextlib.suppress(Exception):  # it may be broken
                reader.close()

    def _answer(self, payload: bytes) -> bytes:
        request = pb.ListPaymentsRequest.FromString(payload)
        wanted = filters.checked(request.filter)
        size = page_size(request.page_size, PAYMENTS_PAGE_DEFAULT, PAYMENTS_PAGE_MAX)
        before_id = filters.page_begins_before(wanted, request.page_token)
        return page(self._open(), wanted, size, before_id).SerializeToString()

    def close(self) -> None:
        """Ends the thread and its connection."""
        self._stopped = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        else:
            self._give_up_reader()


def page(reader: Reader, wanted: PaymentFilter, size: int, before_id: bytes) -> pb.ListPaymentsResponse:
    """The page of payments that match the filter and are older than `before_id`. Raises HutongError LIST_BEHIND,
    JournalUnavailableError."""
    scan = _scan(wanted, size, before_id)
    if scan.merchant_id or scan.token_ref:
        for _ in range(STEPS_PER_CALL_MAX):
            if reader.follow():
                break
        else:
            raise HutongError(Reason.ERROR_REASON_LIST_BEHIND).after(BEHIND_RETRY_US)
    rows = reader.scan(scan)
    taken: list[bytes] = []
    looked_at = 0
    for row in rows:
        if len(taken) == size:
            break
        looked_at += 1
        if _may_fit(wanted, row):
            taken.append(row.payment_id)
    answer = pb.ListPaymentsResponse()
    # Loaded after they were found, so their states are looked at again.
    found = {one.payment_id: one for one in reader.payments(sorted(taken))} if taken else {}
    for payment_id in taken:
        payment = found.get(payment_id)
        if payment is None or (wanted.states and int(payment.state) not in wanted.states):
            continue
        message = to_message(payment)
        message.refunded_minor = payment.refunded_minor
        message.token_ref = payment.account_ref
        answer.payments.append(message)
    if looked_at < len(rows) or (looked_at == scan.limit and rows[-1].payment_id > scan.first_id):
        answer.next_page_token = filters.page_token(wanted, rows[looked_at - 1].payment_id)
    return answer


def _scan(wanted: PaymentFilter, size: int, before_id: bytes) -> Scan:
    """The index, and how to read it, that serves a filter best."""
    if wanted.token_ref:
        decided = not (wanted.merchant_id or wanted.states or wanted.kind)
        return _limited(Scan(wanted.first_id, before_id, size, token_ref=wanted.token_ref), decided=decided)
    if wanted.merchant_id:
        decided = not (wanted.terminal_id or wanted.states or wanted.kind)
        return _limited(Scan(wanted.first_id, before_id, size, wanted.merchant_id), decided=decided)
    if wanted.kind == _REFUND:
        return _limited(Scan(wanted.first_id, before_id, size, refunds=True), decided=not wanted.states)
    if wanted.states and _SUCCEEDED not in wanted.states:
        return _limited(Scan(wanted.first_id, before_id, size, states=tuple(sorted(wanted.states))), decided=False)
    return _limited(Scan(wanted.first_id, before_id, size), decided=not (wanted.states or wanted.kind))


def _limited(scan: Scan, *, decided: bool) -> Scan:
    """`decided`: whether every row of the index fits. One row more than the page says whether there is a next one."""
    return Scan(
        scan.first_id,
        scan.before_id,
        scan.limit + 1 if decided else SCAN_MAX,
        scan.merchant_id,
        scan.token_ref,
        scan.states,
        scan.refunds,
    )


def _may_fit(wanted: PaymentFilter, row: ListedRow) -> bool:
    state = row.state
    if state in _SAID_BY_LEGS and _CREDITING in wanted.states:
        state = _CREDITING
    return wanted.fits(row.payment_id, row.merchant_id, row.terminal_id, row.token_ref, row.kind, state)
