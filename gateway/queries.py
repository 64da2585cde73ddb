"""GetPayment and GetReceipt: reads committed state on a thread of its own, in batches, without slowing payments."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from google.protobuf.message import DecodeError

from gateway.admission import overloaded
from gateway.calls import RECEIPT
from gateway.directory import Merchant
from gateway.engine.answer import id_text, to_message
from gateway.engine.model import LegState, Payment
from gateway.engine.ports import Call, JournalUnavailableError
from gateway.journal.interface import Reader
from gateway.receipts import receipt_of
from gateway.requests import payment_id_bytes
from gateway.risk.records import judgement_message
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError, Reason
from hutong_contract.incidents import incident

log = logging.getLogger(__name__)

WAITING_MAX: Final = 2048
"""Most queries that wait; further ones are refused."""
BATCH_MAX: Final = 64
"""Most queries answered from one read of the journal; they share its statements and its turns at the GIL."""
SHARE: Final = 0.1
"""Share of the gateway's CPU time for queries while payments are in flight and need all of it. After each batch the
thread rests until the other threads have had the rest."""
IDLE_WEIGHT: Final = 9.0
"""Weight of time that other threads could have used and left idle. When no other thread works, queries take half of the
time."""
REST_MAX_S: Final = 0.25
"""Longest rest in seconds, if the other threads do not need their share."""
LOOK_MIN_S: Final = 0.0005
LOOK_MAX_S: Final = 0.005
"""Longest time between two looks at the other threads' CPU time, in seconds."""
FAILED_REST_S: Final = 0.1
"""Rest after a defect of the thread itself, in seconds."""
IDLE_WAIT_S: Final = 60.0


class Queries:
    """Answers GetPayment and GetReceipt calls."""

    def __init__(
        self,
        open_reader: Callable[[], Reader],
        merchants: Mapping[str, Merchant],
        *,
        busy: Callable[[], bool] = lambda: False,
        threaded: bool = True,
    ) -> None:
        """`merchants`: their names, for receipts; `busy`: whether payments are in flight, which have priority. Without
        a thread (`threaded`) the owner calls `turn`."""
        self._merchants = merchants
        self._open_reader = open_reader
        self._busy = busy
        self._reader: Reader | None = None
        self._calls: deque[Call] = deque()
        self._wake = threading.Event()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="query", daemon=True)
        if threaded:
            self._thread.start()

    def submit(self, call: Call) -> None:
        """Queues the call for the thread, or refuses it."""
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
                self._wake.wait(IDLE_WAIT_S)
                self._wake.clear()
                while self._calls and not self._stopped:
                    own_s = time.thread_time()
                    self.turn()
                    rest(time.thread_time() - own_s, SHARE, lambda: self._busy() and not self._stopped)
            except Exception as error:  # the thread goes on: without it every query would wait for its deadline
                log.error("the thread of queries failed and goes on", exc_info=error)
                time.sleep(FAILED_REST_S)
                self._wake.set()
        self._refuse(self._calls, HutongError(Reason.ERROR_REASON_DRAINING))
        self._give_up_reader()

    def turn(self) -> bool:
        """Answers a batch of waiting queries. Returns whether more wait."""
        calls = [self._calls.popleft() for _ in range(min(len(self._calls), BATCH_MAX))]
        try:
            self._answer(calls)
        except JournalUnavailableError as error:
            log.error("queries could not read the journal", exc_info=error)
            self._give_up_reader()
            self._refuse(calls, HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE))
        except Exception as error:  # noqa: BLE001 - whatever the defect, the callers get an answer and the log the cause
            self._give_up_reader()
            self._refuse(calls, incident(log, "the answering of queries", error))
        return bool(self._calls)

    def _give_up_reader(self) -> None:
        """Closes the reader, which may be broken; the next query opens another one."""
        reader, self._reader = self._reader, None
        if reader is not None:
            with contextlib.suppress(Exception):  # it may be broken
                reader.close()

    def _answer(self, calls: Sequence[Call]) -> None:
        asked: list[tuple[Call, bytes]] = []
        for call in calls:
            try:
                # A GetReceiptRequest is the same bytes.
                asked.append((call, payment_id_bytes(pb.GetPaymentRequest.FromString(call.payload).payment_id)))
            except DecodeError:
                call.fail(HutongError(Reason.ERROR_REASON_MESSAGE_MALFORMED))
            except HutongError as error:
                call.fail(error)
        if self._reader is None:
            self._reader = self._open_reader()
        found = shown(self._reader, {payment_id for _, payment_id in asked})
        for call, payment_id in asked:
            if payment_id not in found:
                call.fail(HutongError(Reason.ERROR_REASON_PAYMENT_NOT_FOUND, payment_id=id_text(payment_id)))
            elif call.method == RECEIPT:
                self._print(call, found[payment_id])
            else:
                call.answer(found[payment_id].SerializeToString())

    def _print(self, call: Call, shown: pb.GetPaymentResponse) -> None:
        try:
            receipt = receipt_of(shown, self._merchants.get(shown.payment.merchant_id))
        except HutongError as error:
            call.fail(error)
        else:
            call.answer(pb.GetReceiptResponse(receipt=receipt).SerializeToString())

    def _refuse(self, calls: Iterable[Call], error: HutongError) -> None:
        for call in calls:
            call.fail(error)

    def close(self) -> None:
        """Ends the thread and its connection."""
        self._stopped = True
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        else:
            self._give_up_reader()


def rest(own_s: float, share: float, busy: Callable[[], bool]) -> None:
    """Rests while payments are in flight (`busy`), until other threads have had their share for the CPU time `own_s`
    that this thread has just used, of which it may have `share`. Idle time counts too, so that the thread does not wait
    for others that need no CPU."""
    owed_s = own_s * (1.0 / share - 1.0)
    begun_s, used_s = time.monotonic(), time.process_time()
    while busy():
        passed_s = time.monotonic() - begun_s
        others_s = time.process_time() - used_s
        left_s = owed_s - others_s - IDLE_WEIGHT * max(0.0, passed_s - others_s)
        if left_s <= 0.0 or passed_s >= REST_MAX_S:
            return
        time.sleep(min(max(left_s / IDLE_WEIGHT, LOOK_MIN_S), LOOK_MAX_S))


def shown(reader: Reader, payment_ids: Collection[bytes]) -> dict[bytes, pb.GetPaymentResponse]:
    """Those of these payments that exist, each with its legs, route and refunds."""
    if not payment_ids:
        return {}
    ids = sorted(payment_ids)
    refunds: dict[bytes | None, list[Payment]] = {}
    for refund in reader.refunds(ids):
        refunds.setdefault(refund.original_id, []).append(refund)
    return {one.payment_id: _response(one, refunds.get(one.payment_id, ())) for one in reader.payments(ids)}


def _response(payment: Payment, refunds: Iterable[Payment]) -> pb.GetPaymentResponse:
    message = to_message(payment)
    message.refunded_minor = payment.refunded_minor
    return pb.GetPaymentResponse(
        payment=message,
        legs=_legs(payment),
        candidates=_candidates(payment),
        refunds=[to_message(refund) for refund in refunds],
        risk=judgement_message(payment.risk) if payment.risk else None,
    )


def _legs(payment: Payment) -> list[pb.PaymentLeg]:
    return [
        pb.PaymentLeg(
            number=leg.number,
            kind=leg.kind.name.lower(),
            participant_id=leg.participant,
            state=leg.state.name.lower(),
            response_code=leg.code,
            original_number=leg.original,
        )
        for leg in payment.legs
    ]


def _candidates(payment: Payment) -> list[pb.RouteCandidate]:
    if not payment.route:
        return []
    tried = {leg.participant for leg in payment.legs if leg.state != LegState.NOT_SENT}
    return [
        pb.RouteCandidate(acquirer_id=acquirer, score=score, reasons=reasons, tried=acquirer in tried)
        for acquirer, score, reasons in json.loads(payment.route)
    ]
