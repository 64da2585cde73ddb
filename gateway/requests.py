"""Checks of requests: idempotency key, amount, currency, deadline; and the fingerprint of a request. Pure."""

from __future__ import annotations

import hashlib
import uuid
from typing import Final

from gateway.engine.ports import Call
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.currencies import EXPONENT_OF, nearest
from hutong_contract.errors import HutongError, Reason
from hutong_contract.limits import (
    AMOUNT_MINOR_MAX,
    DEADLINE_DEFAULT_US,
    DEADLINE_MAX_US,
    HOLD_DEFAULT_S,
    HOLD_MAX_S,
    IDEMPOTENCY_KEY_CHARACTERS_MAX,
    REFERENCE_CHARACTERS_MAX,
    REPLY_MARGIN_US,
    REPLY_MAX_US,
)

CURRENCY_LOOKED_AT: Final = 8
"""Characters of an unknown currency that are compared with known ones, for a suggestion."""


def check_key(key: str) -> None:
    """Raises unless an idempotency key is 1 to 64 printable ASCII characters."""
    if not key:
        raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="idempotency_key")
    if len(key) > IDEMPOTENCY_KEY_CHARACTERS_MAX or not (key.isascii() and key.isprintable()):
        raise HutongError(
            Reason.ERROR_REASON_FIELD_INVALID,
            field="idempotency_key",
            allowed=f"1 to {IDEMPOTENCY_KEY_CHARACTERS_MAX} printable ASCII",
        )


def payment_id_bytes(text: str) -> bytes:
    """The 16 bytes of a payment's id. Raises if it is none."""
    if not text:
        raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="payment_id")
    try:
        if len(text) != 36:
            raise ValueError(text)
        return uuid.UUID(text).bytes
    except ValueError:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="payment_id", allowed="a UUID") from None


def reply_by(call: Call, now_us: int) -> int:
    """When the caller must have an answer, final or not, in microseconds."""
    if call.time_left_us is None:
        return now_us + REPLY_MAX_US
    margin = min(REPLY_MARGIN_US, call.time_left_us // 4)
    return now_us + min(call.time_left_us - margin, REPLY_MAX_US)


def key_hash(caller: str, key: str) -> bytes:
    """16 bytes that stand for one caller's idempotency key."""
    return hashlib.blake2b(f"{len(caller)} {caller}{key}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def check_reference(reference: str) -> None:
    """Raises if a reference is longer than allowed."""
    if len(reference) > REFERENCE_CHARACTERS_MAX:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="reference", most=str(REFERENCE_CHARACTERS_MAX))


def deadline(request: pb.CreatePaymentRequest, now_us: int) -> int:
    """When the payment must have ended. Raises if that is in the past or too far ahead."""
    if not request.HasField("deadline"):
        return now_us + DEADLINE_DEFAULT_US
    deadline_us = request.deadline.seconds * 1_000_000 + request.deadline.nanos // 1000
    if deadline_us <= now_us:
        raise HutongError(Reason.ERROR_REASON_DEADLINE_PAST)
    if deadline_us > now_us + DEADLINE_MAX_US:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="deadline", most="24 hours ahead")
    return deadline_us


def hold_until(request: pb.CreatePaymentRequest, now_us: int) -> int:
    """When the requested hold expires; 0 if no hold is requested. Raises if its lifetime is not allowed."""
    if not request.HasField("hold"):
        return 0
    lifetime = request.hold.lifetime
    seconds = lifetime.seconds if request.hold.HasField("lifetime") else HOLD_DEFAULT_S
    if lifetime.nanos or not 0 < seconds <= HOLD_MAX_S:
        allowed = f"1 to {HOLD_MAX_S} whole seconds"
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="hold.lifetime", allowed=allowed)
    return now_us + seconds * 1_000_000


def amount(
    request: pb.CreatePaymentRequest,
    code_amount_minor: int | None,
    code_currency: str | None,
    code_least_minor: int | None = None,
    code_fee_minor: int = 0,
) -> tuple[int, str]:
    """The amount and currency to pay: the request's, which must agree with the code's where it has them.

    Args:
        request: what was asked for.
        code_amount_minor: what the payee's code asks for in all, fees included; None where the payer enters it.
        code_currency: the code's currency; None where it has none.
        code_least_minor: where the payer may pay more or less than `code_amount_minor`, as with a tip: the least.
        code_fee_minor: a fixed fee that is part of the amount which the payer enters.

    Raises:
        HutongError: FIELD_MISSING, CURRENCY_UNKNOWN, CURRENCY_MISMATCH, AMOUNT_NOT_POSITIVE or AMOUNT_ABOVE_LIMIT.
    """
    currency = request.currency or code_currency or ""
    if not currency:
        if not request.amount_minor:
            raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="amount_minor", also="currency")
        raise HutongError(Reason.ERROR_REASON_FIELD_MISSING, field="currency")
    if currency not in EXPONENT_OF:
        meant = nearest(currency[:CURRENCY_LOOKED_AT])
        hint = {"did_you_mean": meant} if meant else {}
        raise HutongError(Reason.ERROR_REASON_CURRENCY_UNKNOWN, currency=currency[:3], **hint)
    if code_currency is not None and currency != code_currency:
        raise HutongError(Reason.ERROR_REASON_CURRENCY_MISMATCH, code=code_currency, request=currency)
    minor = request.amount_minor or code_amount_minor or 0
    if minor <= 0:
        raise HutongError(Reason.ERROR_REASON_AMOUNT_NOT_POSITIVE)
    if minor > AMOUNT_MINOR_MAX:
        raise HutongError(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT, most_minor=str(AMOUNT_MINOR_MAX))
    if code_least_minor is not None or code_fee_minor:
        least = max(code_least_minor or 0, code_fee_minor + 1 if code_fee_minor else 0)
        if minor < least:
            raise HutongError(
                Reason.ERROR_REASON_CURRENCY_MISMATCH, code_least_minor=str(least), request_minor=str(minor)
            )
    elif code_amount_minor is not None and minor != code_amount_minor:
        raise HutongError(
            Reason.ERROR_REASON_CURRENCY_MISMATCH, code_minor=str(code_amount_minor), request_minor=str(minor)
        )
    return minor, currency


def fingerprint(
    key: bytes, payer: bytes, payee: bytes, amount_minor: int, currency: str, reference: str, hold: bytes | None = None
) -> bytes:
    """16 bytes that identify the content of a request, for comparison with a repeat. They are stored with the
    idempotency key, and later versions compare with them too: what is hashed here must not change.

    Args:
        key: this gateway's secret: a payment code or token is part of what is hashed.
        payer: the payer's key, serialized again from the parsed message, so that a repeat whose sender encodes the same
            request in another way has the same fingerprint.
        payee: the payee's key, likewise.
        amount_minor: as asked for; 0 where the code's is to be taken.
        currency: as asked for; empty where the code's is to be taken.
        reference: the caller's.
        hold: the hold that was asked for, serialized likewise; None without one. A deadline is not part of the
            fingerprint, since a repeat has another.
    """
    if hold is not None:
        payee += b"hold" + hold
    text = f"{len(payer)} {len(payee)} {amount_minor} {currency} {reference}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(payer + payee + text, digest_size=16, key=key).digest()
