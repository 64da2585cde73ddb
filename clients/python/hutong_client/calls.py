"""The methods of a gateway's client, written once for both clients: requests, retries and answers.

Everything here is a coroutine over `hutong_client.wire.Wire` and touches nothing else. `hutong_client.aio` offers these
methods as they are; `hutong_client.client` offers the same ones blocking.
"""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import grpc
from google.protobuf import duration_pb2, timestamp_pb2
from google.protobuf.message import Message

from hutong.gateway.v1 import payment_pb2 as pb
from hutong.tokenization.v1 import token_pb2
from hutong_client.errors import DeadlineExceeded, Unreachable, typed
from hutong_client.options import ClientOptions, metadata_of, requestor_metadata
from hutong_client.retries import Retrier, asked_wait_s, is_passing
from hutong_client.wire import Metadata, Wire
from hutong_contract import limits
from hutong_contract.errors import HutongError, Reason, from_status
from hutong_contract.secret import Secret

BATCH_MAX: Final = limits.PAYMENTS_MAX
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
"""States in which a payment stays until a request changes it."""

Answer = TypeVar("Answer", bound=Message)
Result = TypeVar("Result")

Token = Secret[str] | bytes
"""The name of a token in a call: its 19 digits, or its reference of 16 bytes (`TokenView.token_ref`)."""


@dataclass(frozen=True, slots=True)
class Method(Generic[Answer]):
    """A method of the contract: its path and the message type of its answer."""

    path: str
    answer: type[Answer]


CREATE_PAYMENT: Final = Method("/hutong.gateway.v1.PaymentService/CreatePayment", pb.CreatePaymentResponse)
BATCH_CREATE_PAYMENTS: Final = Method(
    "/hutong.gateway.v1.PaymentService/BatchCreatePayments", pb.BatchCreatePaymentsResponse
)
GET_PAYMENT: Final = Method("/hutong.gateway.v1.PaymentService/GetPayment", pb.GetPaymentResponse)
CAPTURE_PAYMENT: Final = Method("/hutong.gateway.v1.PaymentService/CapturePayment", pb.CapturePaymentResponse)
GET_RECEIPT: Final = Method("/hutong.gateway.v1.PaymentService/GetReceipt", pb.GetReceiptResponse)
CANCEL_PAYMENT: Final = Method("/hutong.gateway.v1.PaymentService/CancelPayment", pb.CancelPaymentResponse)
REFUND_PAYMENT: Final = Method("/hutong.gateway.v1.PaymentService/RefundPayment", pb.RefundPaymentResponse)
LIST_PAYMENTS: Final = Method("/hutong.gateway.v1.PaymentService/ListPayments", pb.ListPaymentsResponse)
WATCH_PAYMENTS: Final = Method("/hutong.gateway.v1.PaymentService/WatchPayments", pb.WatchPaymentsResponse)
REQUEST_TOKEN: Final = Method("/hutong.tokenization.v1.TokenService/RequestToken", token_pb2.RequestTokenResponse)
GET_TOKEN: Final = Method("/hutong.tokenization.v1.TokenService/GetToken", token_pb2.GetTokenResponse)
CHANGE_STATE: Final = Method("/hutong.tokenization.v1.TokenService/ChangeState", token_pb2.ChangeStateResponse)
CREATE_KEY: Final = Method("/hutong.tokenization.v1.TokenService/CreateKey", token_pb2.CreateKeyResponse)
RESERVE_CODE: Final = Method("/hutong.tokenization.v1.TokenService/ReserveCode", token_pb2.ReserveCodeResponse)
PROVISION_CODES: Final = Method("/hutong.tokenization.v1.TokenService/ProvisionCodes", token_pb2.ProvisionCodesResponse)


class Calls:
    """Payments and tokens of one gateway.

    Every method raises `hutong_contract.errors.HutongError` for a refusal, `hutong_client.errors.Unreachable` or
    `DeadlineExceeded` where there is no answer, and `CallError` for anything else. `deadline_s` is the longest that a
    method takes, retries included; None: as the client's options say.
    """

    def __init__(self, wire: Wire, options: ClientOptions) -> None:
        self.options: Final = options
        self._wire = wire
        self._metadata = metadata_of(options)
        self._as_requestor = self._metadata + requestor_metadata(options)
        self._retrier = Retrier(options.retry, sleep=wire.sleep)

    # -- payments --------------------------------------------------------------------------------------------

    async def create_payment(
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
        return (await self._ask(CREATE_PAYMENT, request, deadline_s, repeatable=True)).payment

    async def batch_create_payments(
        self, requests: Iterable[pb.CreatePaymentRequest], *, deadline_s: float | None = None
    ) -> list[pb.Payment | HutongError]:
        """Makes up to BATCH_MAX payments; each succeeds or is refused by itself, in its place.

        Sent again only if every request has an idempotency key.
        """
        batch = pb.BatchCreatePaymentsRequest(requests=requests)
        repeatable = all(request.idempotency_key for request in batch.requests)
        answer = await self._ask(BATCH_CREATE_PAYMENTS, batch, deadline_s, repeatable=repeatable)
        return [_outcome(result) for result in answer.results]

    async def get_payment(self, payment_id: str, *, deadline_s: float | None = None) -> pb.GetPaymentResponse:
        """Shows a payment with its legs, refunds and the reasons of its route."""
        request = pb.GetPaymentRequest(payment_id=payment_id)
        return await self._ask(GET_PAYMENT, request, deadline_s, repeatable=True)

    async def capture_payment(
        self, payment_id: str, *, amount_minor: int = 0, deadline_s: float | None = None
    ) -> pb.Payment:
        """Takes what a payment holds, or a part of it; 0 takes all. May be repeated: a capture is done once."""
        request = pb.CapturePaymentRequest(payment_id=payment_id, amount_minor=amount_minor)
        return (await self._ask(CAPTURE_PAYMENT, request, deadline_s, repeatable=True)).payment

    async def get_receipt(self, payment_id: str, *, deadline_s: float | None = None) -> pb.Receipt:
        """Returns what is printed of a payment or refund that has ended, or whose funds are held."""
        request = pb.GetReceiptRequest(payment_id=payment_id)
        return (await self._ask(GET_RECEIPT, request, deadline_s, repeatable=True)).receipt

    async def cancel_payment(self, payment_id: str, *, deadline_s: float | None = None) -> pb.Payment:
        """Cancels a payment that has not ended, or frees what it holds. Never sent again by itself."""
        request = pb.CancelPaymentRequest(payment_id=payment_id)
        return (await self._ask(CANCEL_PAYMENT, request, deadline_s, repeatable=False)).payment

    async def refund_payment(
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
        return (await self._ask(REFUND_PAYMENT, request, deadline_s, repeatable=True)).refund

    async def list_payments_page(
        self,
        *,
        only: pb.PaymentFilter | None = None,
        page_size: int = 0,
        page_token: str = "",
        deadline_s: float | None = None,
    ) -> pb.ListPaymentsResponse:
        """One page of the payments and refunds that fit, newest first.

        `only`: what fits; None: all. `page_size`: most payments of the page, 0 for the gateway's default. `page_token`:
        the former page's `next_page_token`. A page may be short, or empty, and yet have a next one.
        """
        request = pb.ListPaymentsRequest(filter=only, page_size=page_size, page_token=page_token)
        return await self._ask(LIST_PAYMENTS, request, deadline_s, repeatable=True)

    async def list_payments(
        self, *, only: pb.PaymentFilter | None = None, page_size: int = 0, deadline_s: float | None = None
    ) -> AsyncGenerator[pb.Payment, None]:
        """Yields the payments and refunds that fit, newest first, asking for the next page when it is needed.

        `only`: what fits, by merchant, terminal, token reference, states, kind and time; None: all. `deadline_s`: for
        each page.
        """
        page_token = ""
        while True:
            page = await self.list_payments_page(
                only=only, page_size=page_size, page_token=page_token, deadline_s=deadline_s
            )
            for payment in page.payments:
                yield payment
            page_token = page.next_page_token
            if not page_token:
                return

    async def newest_sequence(self, *, deadline_s: float | None = None) -> int:
        """The number of the newest event: where to watch from, so that what happens from here on is not missed.

        A wallet asks for it before it shows a code, and then watches with `after_sequence` and its token's reference.
        """
        request = pb.WatchPaymentsRequest(from_now=True)

        async def attempt(timeout_s: float) -> int:
            answers = self._wire.stream(WATCH_PAYMENTS.path, request, WATCH_PAYMENTS.answer, timeout_s, self._metadata)
            async with contextlib.aclosing(answers):
                async for answer in answers:
                    return answer.sequence
            raise Unreachable(grpc.StatusCode.UNAVAILABLE, "the gateway ended the stream before it said anything")

        return await self.repeated(attempt, deadline_s, repeatable=True)

    async def watch_payments(
        self,
        *,
        after_sequence: int = 0,
        payment_id: str = "",
        only: pb.PaymentFilter | None = None,
        from_now: bool = False,
        deadline_s: float | None = None,
    ) -> AsyncGenerator[pb.PaymentEvent, None]:
        """Yields every change of every payment (or of one, or of those that fit `only`), in order, until it is closed.

        `from_now`: only what happens after the gateway has begun the stream, in place of `after_sequence`; see
        `newest_sequence` where something is to be done in between. A connection that breaks is resumed after the last
        event seen, so none is missed or seen twice here. Gives up after WATCH_FAILURES_MAX failures in a row. With
        `deadline_s` raises DeadlineExceeded when that time is over.
        """
        end = None if deadline_s is None else time.monotonic() + deadline_s
        failures = 0
        while True:
            asked_s = 0.0
            request = pb.WatchPaymentsRequest(
                after_sequence=after_sequence, payment_id=payment_id, filter=only, from_now=from_now
            )
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise DeadlineExceeded(grpc.StatusCode.DEADLINE_EXCEEDED, f"watched for {deadline_s} s")
            answers = self._wire.stream(WATCH_PAYMENTS.path, request, WATCH_PAYMENTS.answer, left, self._metadata)
            try:
                async with contextlib.aclosing(answers):
                    async for answer in answers:
                        failures = 0
                        for event in answer.events:
                            if event.sequence > after_sequence:
                                after_sequence, from_now = event.sequence, False
                                yield event
                        if answer.sequence > after_sequence or from_now:  # what does not fit was passed over
                            after_sequence, from_now = answer.sequence, False
            except grpc.RpcError as failure:
                error = typed(failure)
                failures += 1
                asked_s = asked_wait_s(error)
                if not is_passing(error) or failures > WATCH_FAILURES_MAX:
                    raise error from None
            else:
                failures += 1  # the gateway ended the stream, as it does when it drains
            retry = self.options.retry
            await self._wire.sleep(asked_s + min(retry.backoff_max_s, retry.backoff_s * failures))

    async def settled(self, payment: pb.Payment, *, deadline_s: float | None = None) -> pb.Payment:
        """Returns the payment once it is final, or its funds are held: itself, or watched until it is.

        Raises DeadlineExceeded if it stays open.
        """
        if payment.state in SETTLED_STATES:
            return payment
        limit = self.options.deadline_s if deadline_s is None else deadline_s
        events = self.watch_payments(payment_id=payment.payment_id, deadline_s=limit)
        async with contextlib.aclosing(events):
            async for event in events:
                if event.state in FINAL_STATES:
                    break
                if event.state == pb.PAYMENT_STATE_HELD:  # it may have been captured since
                    now = (await self.get_payment(payment.payment_id)).payment
                    if now.state in SETTLED_STATES:
                        return now
        return (await self.get_payment(payment.payment_id)).payment

    # -- tokens and codes, in the name of the requestor of the client's options --------------------------------

    async def request_token(
        self, issuer_id: str, account_number: str, *, assurance_method: str = "", deadline_s: float | None = None
    ) -> Secret[str]:
        """Returns the account's token, 19 digits: always the same one for the same account.

        `assurance_method`: how the holder was identified (EMV), "00" or "10" to "14"; empty: "00", not at all.
        """
        request = token_pb2.RequestTokenRequest(
            requestor_id=self.options.requestor,
            issuer_id=issuer_id,
            account_number=account_number,
            assurance_method=assurance_method,
        )
        return Secret((await self._ask_as_requestor(REQUEST_TOKEN, request, deadline_s, repeatable=True)).token)

    async def get_token(self, token: Token, *, deadline_s: float | None = None) -> token_pb2.GetTokenResponse:
        """Shows a token (state, domain, budget) and its routing keys, without their numbers."""
        request = token_pb2.GetTokenRequest(requestor_id=self.options.requestor, name=_name(token))
        return await self._ask_as_requestor(GET_TOKEN, request, deadline_s, repeatable=True)

    async def suspend_token(
        self, token: Token, *, reason: str = "", deadline_s: float | None = None
    ) -> token_pb2.TokenView:
        """Stops a token with all its keys until it is resumed. `reason`: up to 64 characters, kept in its history."""
        return await self._change(token, token_pb2.STATE_CHANGE_SUSPEND, reason, deadline_s)

    async def resume_token(
        self, token: Token, *, reason: str = "", deadline_s: float | None = None
    ) -> token_pb2.TokenView:
        """Lets a suspended token pay again. `reason`: as in `suspend_token`."""
        return await self._change(token, token_pb2.STATE_CHANGE_RESUME, reason, deadline_s)

    async def delete_token(
        self, token: Token, *, reason: str = "", deadline_s: float | None = None
    ) -> token_pb2.TokenView:
        """Ends a token with all its keys for ever. `reason`: as in `suspend_token`."""
        return await self._change(token, token_pb2.STATE_CHANGE_DELETE, reason, deadline_s)

    async def reserve_code(self, token: Token, *, deadline_s: float | None = None) -> Secret[str]:
        """Returns a one-time code, 19 digits: good for one payment, for a minute. Never sent again by itself."""
        request = token_pb2.ReserveCodeRequest(requestor_id=self.options.requestor, name=_name(token))
        return Secret((await self._ask_as_requestor(RESERVE_CODE, request, deadline_s, repeatable=False)).code)

    async def provision_codes(
        self, token: Token, device_id: str, *, day: int = 0, deadline_s: float | None = None
    ) -> token_pb2.ProvisionCodesResponse:
        """Returns what a device needs to compute a day's offline codes with
        `hutong_contract.payment_code.offline_code`. `day`: days since 1970-01-01 UTC, today or tomorrow; 0 is today.
        The answer's `day_key` is a secret."""
        request = token_pb2.ProvisionCodesRequest(
            requestor_id=self.options.requestor, name=_name(token), device_id=device_id, day=day
        )
        return await self._ask_as_requestor(PROVISION_CODES, request, deadline_s, repeatable=False)

    async def add_face(
        self, token: Token, reference: Secret[str], *, deadline_s: float | None = None
    ) -> token_pb2.KeyView:
        """Lets a face pay: binds the reference that the face service gave at enrolment to the token."""
        request = token_pb2.CreateKeyRequest(
            requestor_id=self.options.requestor,
            name=_name(token),
            kind=token_pb2.TOKEN_KEY_KIND_FACE,
            face_reference=reference.reveal(),
        )
        return (await self._ask_as_requestor(CREATE_KEY, request, deadline_s, repeatable=False)).view

    async def _change(
        self, token: Token, change: token_pb2.StateChange.ValueType, reason: str, deadline_s: float | None
    ) -> token_pb2.TokenView:
        request = token_pb2.ChangeStateRequest(
            requestor_id=self.options.requestor, name=_name(token), change=change, reason=reason
        )
        return (await self._ask_as_requestor(CHANGE_STATE, request, deadline_s, repeatable=False)).view

    # -- sending ---------------------------------------------------------------------------------------------

    async def _ask(
        self, method: Method[Answer], request: Message, deadline_s: float | None, *, repeatable: bool
    ) -> Answer:
        return await self._send(method, request, deadline_s, self._metadata, repeatable)

    async def _ask_as_requestor(
        self, method: Method[Answer], request: Message, deadline_s: float | None, *, repeatable: bool
    ) -> Answer:
        return await self._send(method, request, deadline_s, self._as_requestor, repeatable)

    async def _send(
        self, method: Method[Answer], request: Message, deadline_s: float | None, metadata: Metadata, repeatable: bool
    ) -> Answer:
        def attempt(timeout_s: float) -> Awaitable[Answer]:
            return self._wire.unary(method.path, request, method.answer, timeout_s, metadata)

        return await self.repeated(attempt, deadline_s, repeatable=repeatable)

    async def repeated(
        self, attempt: Callable[[float], Awaitable[Result]], deadline_s: float | None, *, repeatable: bool
    ) -> Result:
        """Runs `attempt`, which gets the seconds that it may take, with this client's deadline, retries and errors."""
        limit = self.options.deadline_s if deadline_s is None else deadline_s
        return await self._retrier.call(attempt, limit, repeatable=repeatable)


def new_idempotency_key() -> str:
    """A random key, for one payment or refund and its repetitions."""
    return secrets.token_hex(16)


def _name(token: Token) -> token_pb2.TokenName:
    if isinstance(token, bytes):
        return token_pb2.TokenName(token_ref=token)
    return token_pb2.TokenName(token=token.reveal())


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
