"""GetPayment: reads committed state on threads of its own, so that a storm of queries leaves payments alone."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from google.protobuf.message import DecodeError

from contract.errors import HutongError, Reason
from gateway.admission import overloaded
from gateway.calls import Call
from gateway.engine.answer import id_text, to_message
from gateway.engine.model import LegState, Payment
from gateway.journal.interface import Reader
from gateway.requests import payment_id_bytes
from hutong.gateway.v1 import payment_pb2 as pb

log = logging.getLogger(__name__)

THREADS: Final = 2
WAITING_MAX: Final = 2048
"""Queries that may wait; further ones are refused at once."""


class Queries:
    """Answers GetPayment calls."""

    def __init__(self, open_reader: Callable[[], Reader]) -> None:
        self._open_reader = open_reader
        self._local = threading.local()
        self._readers: list[Reader] = []
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="query")
        self._waiting = threading.Semaphore(WAITING_MAX)

    def submit(self, call: Call) -> None:
        """Answers the call from a worker thread, or refuses it now."""
        if not self._waiting.acquire(blocking=False):
            call.fail(overloaded())
            return
        try:
            self._pool.submit(self._answer, call)
        except RuntimeError:  # closed
            self._waiting.release()
            call.fail(HutongError(Reason.ERROR_REASON_DRAINING))

    def _answer(self, call: Call) -> None:
        try:
            request = pb.GetPaymentRequest.FromString(call.payload)
            call.answer(self.get(payment_id_bytes(request.payment_id)).SerializeToString())
        except DecodeError:
            call.fail(HutongError(Reason.ERROR_REASON_MESSAGE_MALFORMED))
        except HutongError as error:
            call.fail(error)
        except Exception as error:  # the caller gets an answer, the log the cause
            log.error("a query failed", exc_info=error)
            call.fail(HutongError(Reason.ERROR_REASON_JOURNAL_UNAVAILABLE))
        finally:
            self._waiting.release()

    def get(self, payment_id: bytes) -> pb.GetPaymentResponse:
        """A payment with legs, route and refunds. Raises HutongError if there is none."""
        reader = self._reader()
        payment = reader.payment(payment_id)
        if payment is None:
            raise HutongError(Reason.ERROR_REASON_PAYMENT_NOT_FOUND, payment_id=id_text(payment_id))
        message = to_message(payment)
        message.refunded_minor = payment.refunded_minor
        return pb.GetPaymentResponse(
            payment=message,
            legs=_legs(payment),
            candidates=_candidates(payment),
            refunds=[to_message(refund) for refund in reader.refunds(payment_id)],
        )

    def _reader(self) -> Reader:
        reader: Reader | None = getattr(self._local, "reader", None)
        if reader is None:
            reader = self._local.reader = self._open_reader()
            self._readers.append(reader)
        return reader

    def close(self) -> None:
        """Ends the threads and their connections."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        for reader in self._readers:
            reader.close()


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
