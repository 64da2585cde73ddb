"""A payment as its callers see it."""

from __future__ import annotations

from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from gateway.engine.model import Kind, Payment
from hutong.gateway.v1 import payment_pb2 as pb

_MICROSECONDS: Final = 1_000_000
_PAYMENT_FIELD: Final = b"\x0a"
"""Field 1, length-delimited."""


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
    """Sets a timestamp in place, which spares a copy."""
    field.seconds, rest = divmod(time_us, _MICROSECONDS)
    field.nanos = rest * 1000


def to_message(payment: Payment) -> pb.Payment:
    """The resource without what changes after the end (refunds)."""
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
    """The responses of CreatePayment, RefundPayment, CancelPayment and CapturePayment, and one result of a batch, are
    the same bytes: each has the payment as field 1."""
    return framed(_PAYMENT_FIELD, to_message(payment).SerializeToString())


def framed(tag: bytes, message: bytes) -> bytes:
    """A serialized message as a field of another: copying it into a wrapper object would cost more than the bytes."""
    length = len(message)
    if length < 0x80:
        return tag + bytes((length,)) + message
    parts = bytearray(tag)
    while length > 0x7F:
        parts.append(length & 0x7F | 0x80)
        length >>= 7
    parts.append(length)
    return bytes(parts) + message
