"""The client library: payments as Python calls, failures as exceptions.

    with HutongClient("127.0.0.1:50050") as client:
        payment = client.create_payment(
            payer=keys.payment_code(digits), payee=keys.merchant("m1001"), amount_minor=1250, currency="CNY"
        )

Every method raises `hutong_contract.errors.HutongError` for a refusal (its `reason` is stable),
`hutong_client.errors.Unreachable`
or `DeadlineExceeded` where there is no answer, and `CallError` for anything else. A client may be shared by threads.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final

import grpc
from google.protobuf import duration_pb2, timestamp_pb2

from hutong.gateway.v1 import payment_pb2 as pb
from hutong.gateway.v1 import payment_pb2_grpc as rpc
from hutong_client.errors import DeadlineExceeded, typed
from hutong_client.options import ClientOptions, metadata_of, open_channel
from hutong_client.retries import Caller, Method, Request, Response, asked_wait_s, is_passing
from hutong_contract.errors import HutongError, Reason, from_status

BATCH_MAX: Final = 500
"""Payments in one BatchCreatePayments; larger batches are refused by the gateway."""
WATCH_FAILURES_MAX: Final = 20
"""Failures in a row after which watching gives up."""
FINAL_STATES: Final = frozenset(
    {
        pb.PAYMENT_STATE_SUCCEEDED,
        pb.PAYMENT_STATE_DECLINED,
        pb.PAYMENT_STATE_FAILED,
        pb.PAYMENT_STATE_CANCELLED,
        pb.PAYMENT_STATE_EXPIRED,
    }
)
SETTLED_STATES: Final = FINAL_STATES | {pb.PAYMENT_STATE_HELD}
"""States in which a payment stays until somebody asks for something."""


class HutongClient:
    """A connection to a gateway."""

    def __init__(self, target: str, options: ClientOptions | None = None) -> None:
        """`target` is "host:port" or "unix:/path". Connects when it is first used."""
        self.options = options or ClientOptions()
        self.channel = open_channel(target, self.options)
        """For the stubs of other services of the gateway; `call` gives them deadlines, retries and typed errors."""
        self._payments = rpc.PaymentServiceStub(self.channel)
        self._metadata = metadata_of(self.options)
        self._caller = Caller(self.options.retry, metadata=self._metadata)

    def create_payment(
        self,
        *,
        payer: pb.RoutingKey,
        payee: pb.RoutingKey,
        amount_minor: int = 0,
        currency: str = "",
        idempotency_key: str = "",
        reference: str = "",
        expires_in_s: float | None = None,
        hold_s: int | None = None,
        deadline_s: float | None = None,
    ) -> pb.Payment:
        """Makes a payment and returns it as it stands when the gateway answers; see `settled` where that is not final.

        Amounts are minor units; 0 and "" mean what the payee's code says. Without an idempotency key a random one is
        used, for this call and its retries. `expires_in_s`: when the payment itself must have ended, from now.
        `hold_s`: hold the amount for so many seconds instead of taking it, 0 for the gateway's default; then
        `capture_payment` takes it, and `cancel_payment` frees it.
        """
        request = pb.CreatePaymentRequest(
            idempotency_key=idempotency_key or new_idempotency_key(),
            payer=payer,
            payee=payee,
            amount_minor=amount_minor,
            currency=currency,
            reference=reference,
            deadline=None if expires_in_s is None else _in_seconds(expires_in_s),
            hold=None if hold_s is None else _hold(hold_s),
        )
        return self.call(self._payments.CreatePayment, request, deadline_s, repeatable=True).payment

    def batch_create_payments(
        self, requests: Iterable[pb.CreatePaymentRequest], *, deadline_s: float | None = None
    ) -> list[pb.Payment | HutongError]:
        """Makes up to BATCH_MAX payments; each succeeds or is refused by itself, in its place.

        Sent again only if every request has an idempotency key.
        """
        batch = pb.BatchCreatePaymentsRequest(requests=requests)
        repeatable = all(request.idempotency_key for request in batch.requests)
        answer = self.call(self._payments.BatchCreatePayments, batch, deadline_s, repeatable=repeatable)
        return [_outcome(result) for result in answer.results]

    def get_payment(self, payment_id: str, *, deadline_s: float | None = None) -> pb.GetPaymentResponse:
        """Shows a payment with its legs, refunds and the reasons of its route."""
        request = pb.GetPaymentRequest(payment_id=payment_id)
        return self.call(self._payments.GetPayment, request, deadline_s, repeatable=True)

    def capture_payment(self, payment_id: str, *, amount_minor: int = 0, deadline_s: float | None = None) -> pb.Payment:
        """Takes what a payment holds, or a part of it; 0 takes all. May be repeated: a capture is done once."""
        request = pb.CapturePaymentRequest(payment_id=payment_id, amount_minor=amount_minor)
        return self.call(self._payments.CapturePayment, request, deadline_s, repeatable=True).payment

    def get_receipt(self, payment_id: str, *, deadline_s: float | None = None) -> pb.Receipt:
        """What is printed of a payment or refund that has ended, or whose funds are held."""
        request = pb.GetReceiptRequest(payment_id=payment_id)
        return self.call(self._payments.GetReceipt, request, deadline_s, repeatable=True).receipt

    def cancel_payment(self, payment_id: str, *, deadline_s: float | None = None) -> pb.Payment:
        """Cancels a payment that has not ended, or frees what it holds. Never sent again by itself."""
        request = pb.CancelPaymentRequest(payment_id=payment_id)
        return self.call(self._payments.CancelPayment, request, deadline_s, repeatable=False).payment

    def refund_payment(
        self,
        payment_id: str,
        *,
        amount_minor: int = 0,
        idempotency_key: str = "",
        reference: str = "",
        deadline_s: float | None = None,
    ) -> pb.Payment:
        """Refunds a part of a payment, or with 0 all that is left. Returns the refund."""
        request = pb.RefundPaymentRequest(
            idempotency_key=idempotency_key or new_idempotency_key(),
            payment_id=payment_id,
            amount_minor=amount_minor,
            reference=reference,
        )
        return self.call(self._payments.RefundPayment, request, deadline_s, repeatable=True).refund

    def watch_payments(
        self, *, after_sequence: int = 0, payment_id: str = "", deadline_s: float | None = None
    ) -> Iterator[pb.PaymentEvent]:
        """Yields every change of every payment (or of one), in order, until the iterator is closed.

        A connection that breaks is resumed after the last event seen, so none is missed or seen twice here. Gives up
        after WATCH_FAILURES_MAX failures in a row. With `deadline_s` raises DeadlineExceeded when that time is over.
        """
        end = None if deadline_s is None else time.monotonic() + deadline_s
        failures = 0
        while True:
            asked_s = 0.0
            request = pb.WatchPaymentsRequest(after_sequence=after_sequence, payment_id=payment_id)
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, f"watched for {deadline_s} s")
            stream = self._payments.WatchPayments(request, timeout=left, metadata=self._metadata)
            try:
                for answer in stream:
                    failures = 0
                    for event in answer.events:
                        if event.sequence > after_sequence:
                            after_sequence = event.sequence
                            yield event
            except grpc.RpcError as failure:
                error = typed(failure)
                failures += 1
                asked_s = asked_wait_s(error)
                if not is_passing(error) or failures > WATCH_FAILURES_MAX:
                    raise error from None
            else:
                failures += 1  # the gateway ended the stream, as it does when it drains
            finally:
                stream.cancel()  # type: ignore[no-untyped-call]
            time.sleep(asked_s + min(self.options.retry.backoff_max_s, self.options.retry.backoff_s * failures))

    def settled(self, payment: pb.Payment, *, deadline_s: float | None = None) -> pb.Payment:
        """The payment once it is final, or its funds are held: itself, or watched until it is. Raises DeadlineExceeded
        if it stays open."""
        if payment.state in SETTLED_STATES:
            return payment
        limit = self.options.deadline_s if deadline_s is None else deadline_s
        for event in self.watch_payments(payment_id=payment.payment_id, deadline_s=limit):
            if event.state in FINAL_STATES:
                break
            # It may have been captured since.
            if event.state == pb.PAYMENT_STATE_HELD:
                now = self.get_payment(payment.payment_id).payment
                if now.state in SETTLED_STATES:
                    return now
        return self.get_payment(payment.payment_id).payment

    def call(
        self,
        method: Method[Request, Response],
        request: Request,
        deadline_s: float | None = None,
        *,
        repeatable: bool = False,
    ) -> Response:
        """Calls any unary method of a stub on `channel`, with this client's deadline, retries and typed errors."""
        limit = self.options.deadline_s if deadline_s is None else deadline_s
        return self._caller.call(method, request, limit, repeatable=repeatable)

    def close(self) -> None:
        """Closes the connection; calls under way fail."""
        self.channel.close()

    def __enter__(self) -> HutongClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def new_idempotency_key() -> str:
    """A random key, for one payment or refund and its repetitions."""
    return secrets.token_hex(16)


def _outcome(result: pb.BatchCreatePaymentsResult) -> pb.Payment | HutongError:
    if result.WhichOneof("outcome") == "payment":
        return result.payment
    # A newer gateway may know reasons that this table does not have yet.
    return from_status(result.error) or HutongError(Reason.ERROR_REASON_INTERNAL, said=result.error.message)


def _hold(seconds: int) -> pb.Hold:
    return pb.Hold(lifetime=duration_pb2.Duration(seconds=seconds)) if seconds else pb.Hold()


def _in_seconds(seconds: float) -> timestamp_pb2.Timestamp:
    stamp = timestamp_pb2.Timestamp()
    stamp.FromNanoseconds(time.time_ns() + int(seconds * 1e9))
    return stamp
