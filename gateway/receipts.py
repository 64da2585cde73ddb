"""Receipts: the printable facts of a payment, for a terminal or wallet. Pure: made from what GetPayment returns."""

from __future__ import annotations

import base64
import hashlib
import uuid
from typing import Final

from gateway.directory import Merchant
from gateway.engine.states import RESTING, State
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.cleaning import printable
from hutong_contract.currencies import EXPONENT_OF
from hutong_contract.errors import HutongError, Reason

NUMBER_BYTES: Final = 10
"""Bytes of a receipt number: 16 characters, so that a million receipts have different ones (odds of 1 to 10^12)."""


def receipt_of(found: pb.GetPaymentResponse, merchant: Merchant | None) -> pb.Receipt:
    """The receipt of a payment or refund. Raises PAYMENT_NOT_SETTLED while it is in flight."""
    payment = found.payment
    state = State(payment.state)
    if state not in RESTING:
        named = {"payment_id": payment.payment_id, "state": state.name}
        raise HutongError(Reason.ERROR_REASON_PAYMENT_NOT_SETTLED, **named)
    succeeded, held = state is State.SUCCEEDED, state is State.HELD
    is_payment = payment.kind == pb.PAYMENT_KIND_PAYMENT
    receipt = pb.Receipt(
        receipt_number=receipt_number(payment.payment_id),
        payment_id=payment.payment_id,
        kind=payment.kind,
        state=payment.state,
        reason=printable(payment.reason),
        merchant_id=printable(payment.merchant_id),
        merchant_name=printable(merchant.name) if merchant else "",
        merchant_city=printable(merchant.city) if merchant else "",
        terminal_id=printable(payment.terminal_id),
        reference=printable(payment.reference),
        issuer_id=printable(payment.issuer_id),
        acquirer_id=printable(payment.acquirer_id) if succeeded else "",
        payer_key=payment.payer_key,
        masked_account=f"**** {printable(payment.payer_last_four)}" if payment.payer_last_four else "",
        currency=payment.currency,
        exponent=EXPONENT_OF[payment.currency],
        amount_minor=payment.amount_minor,
        paid_minor=payment.amount_minor if succeeded else 0,
        authorised_minor=payment.authorised_minor,
        held_minor=payment.authorised_minor if held else 0,
        refunded_minor=sum(one.amount_minor for one in found.refunds if State(one.state) is State.SUCCEEDED),
        refundable_minor=payment.amount_minor - payment.refunded_minor if succeeded and is_payment else 0,
        create_time=payment.create_time,
        end_time=payment.end_time if payment.HasField("end_time") else None,
        hold_expire_time=payment.hold_expire_time if held else None,
        original_payment_id=payment.original_payment_id,
    )
    for refund in found.refunds:
        receipt.refunds.add(
            payment_id=refund.payment_id,
            state=refund.state,
            amount_minor=refund.amount_minor,
            create_time=refund.create_time,
        )
    return receipt


def receipt_number(payment_id: str) -> str:
    """16 characters, A to Z and 2 to 7 (RFC 4648 section 6), that depend on the payment's id alone."""
    digest = hashlib.blake2b(uuid.UUID(payment_id).bytes, digest_size=NUMBER_BYTES, person=b"hutong receipt")
    return base64.b32encode(digest.digest()).decode()
