"""The answer to a caller: a payment as a message."""

from __future__ import annotations

import functools
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.engine.model import Kind, Payment
from gateway.engine.states import State
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.wire import framed

_MICROSECONDS: Final = 1_000_000
_PAYMENT_FIELD: Final = b"\x0a"
"""Field 1, length-delimited."""
_ID_FIELD: Final = b"\x0a\x24"
"""Field 1 of a payment, the 36 characters of its id."""
_PAYMENT: Final = Kind.PAYMENT
PARTS_MAX: Final = 16_384
"""Most cached parts of serialized answers, of each kind: some 3 MB at most."""
TIMES_MAX: Final = 256
"""Most cached times. Payments that are admitted in one tick, or end in one, have the same time."""


def id_text(payment_id: bytes) -> str:
    """The canonical text of a UUID (RFC 9562 section 4)."""
    digits = payment_id.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def timestamp(time_us: int) -> Timestamp:
    """Microseconds since the epoch as a protobuf timestamp."""
    made = Timestamp()
    set_time(made, time_us)
    return made


def set_time(field: Timestamp, time_us: int) -> None:
    """Sets a timestamp in place, which saves a copy."""
    field.seconds, rest = divmod(time_us, _MICROSECONDS)
    field.nanos = rest * 1000


def to_message(payment: Payment) -> pb.Payment:
    """The payment as a message, without what may change after its end (refunds)."""
    refund = payment.kind == Kind.REFUND
    message = pb.Payment(
        payment_id=id_text(payment.payment_id),
        kind=int(payment.kind),  # type: ignore[arg-type]
        state=int(payment.state),  # type: ignore[arg-type]
        reason=payment.reason,
        amount_minor=payment.amount_minor,
        currency=payment.currency,
        issuer_id=payment.creditor if refund else payment.debtor,
        acquirer_id=payment.debtor if refund else payment.creditor,
        merchant_id=payment.merchant_id,
        terminal_id=payment.terminal_id,
        reference=payment.reference,
        payer_key=payment.payer_key,  # type: ignore[arg-type]
        payee_key=payment.payee_key,  # type: ignore[arg-type]
        payer_last_four=payment.last_four,
    )
    set_time(message.create_time, payment.created_us)
    if payment.ended_us:
        set_time(message.end_time, payment.ended_us)
    if payment.authorised_minor:
        message.authorised_minor = payment.authorised_minor
        set_time(message.hold_expire_time, payment.hold_until_us)
    if payment.original_id is not None:
        message.original_payment_id = id_text(payment.original_id)
    return message


def response(payment: Payment) -> bytes:
    """The response of CreatePayment, RefundPayment, CancelPayment and CapturePayment, and one result of a batch, in
    one: each has the payment as field 1, so the bytes are the same."""
    if payment.kind is not _PAYMENT or payment.authorised_minor:
        return framed(_PAYMENT_FIELD, to_message(payment).SerializeToString())
    # The bytes of a message are those of its fields, one after the other, and payments have most of them in common.
    return framed(
        _PAYMENT_FIELD,
        b"".join(
            (
                _ID_FIELD,
                id_text(payment.payment_id).encode(),
                _standing(payment.state, payment.reason),
                _amount(payment.amount_minor),
                _ends(
                    payment.currency,
                    payment.debtor,
                    payment.creditor,
                    payment.merchant_id,
                    payment.terminal_id,
                ),
                pb.Payment(reference=payment.reference).SerializeToString() if payment.reference else b"",
                _keys(payment.payer_key, payment.payee_key),
                _times(payment.created_us, payment.ended_us),
                _last_four(payment.last_four),
            )
        ),
    )


@functools.lru_cache(PARTS_MAX)
def _standing(state: State, reason: str) -> bytes:
    kind, now = int(_PAYMENT), int(state)
    return pb.Payment(kind=kind, state=now, reason=reason).SerializeToString()  # type: ignore[arg-type]


@functools.lru_cache(PARTS_MAX)
def _amount(amount_minor: int) -> bytes:
    return pb.Payment(amount_minor=amount_minor).SerializeToString()


@functools.lru_cache(PARTS_MAX)
def _ends(currency: str, issuer_id: str, acquirer_id: str, merchant_id: str, terminal_id: str) -> bytes:
    return pb.Payment(
        currency=currency,
        issuer_id=issuer_id,
        acquirer_id=acquirer_id,
        merchant_id=merchant_id,
        terminal_id=terminal_id,
    ).SerializeToString()


@functools.lru_cache(PARTS_MAX)
def _keys(payer_key: int, payee_key: int) -> bytes:
    return pb.Payment(payer_key=payer_key, payee_key=payee_key).SerializeToString()  # type: ignore[arg-type]


@functools.lru_cache(TIMES_MAX)
def _times(created_us: int, ended_us: int) -> bytes:
    message = pb.Payment(create_time=timestamp(created_us))
    if ended_us:
        set_time(message.end_time, ended_us)
    return message.SerializeToString()


@functools.lru_cache(PARTS_MAX)
def _last_four(digits: str) -> bytes:
    return pb.Payment(payer_last_four=digits).SerializeToString()
