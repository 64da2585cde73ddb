"""Refunds. A refund is a payment in the other direction: the acquirer is debited and the issuer credited, by the same
state machine."""

from __future__ import annotations

from gateway.engine.conditions import Original, refund_refusal
from gateway.engine.model import Kind, LegKind, Payment
from gateway.engine.transitions import current_debit
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError, Reason
from hutong_contract.limits import DEADLINE_DEFAULT_US


def refund_of(
    original: Payment | None, original_id: bytes, request: pb.RefundPaymentRequest, payment_id: bytes, now_us: int
) -> Payment:
    """The refund that a request asks for. The journal decides again in its commit, by the same rule, whether the
    original can still be refunded by this amount.

    Args:
        original: the payment to refund; None where there is none with this id.
        original_id: its 16 bytes.
        request: what was asked for; an amount of 0 means all that is left.
        payment_id: the refund's own 16 bytes.
        now_us: UTC in microseconds.

    Raises:
        HutongError: AMOUNT_NOT_POSITIVE, PAYMENT_NOT_FOUND, REFUND_OF_REFUND, PAYMENT_NOT_REFUNDABLE or
            REFUND_EXCEEDS_PAYMENT.
    """
    if request.amount_minor < 0:
        raise HutongError(Reason.ERROR_REASON_AMOUNT_NOT_POSITIVE)
    amount, facts = request.amount_minor, None
    if original is not None:
        amount = amount or original.amount_minor - original.refunded_minor
        facts = Original(original.kind, original.state, original.amount_minor, original.refunded_minor)
    refusal = refund_refusal(facts, original_id, amount)
    if refusal is not None:
        raise HutongError(refusal.reason, **refusal.fields)
    assert original is not None, "the rule refuses what there is not"
    # The acquirer that paid; an earlier one's late approval, still to be undone, is not what is refunded.
    credit = next(leg for leg in original.legs if leg.kind == LegKind.CREDIT and leg.participant == original.creditor)
    return Payment(
        payment_id=payment_id,
        kind=Kind.REFUND,
        amount_minor=amount,
        currency=original.currency,
        debtor=credit.participant,
        creditors=(original.debtor,),
        created_us=now_us,
        deadline_us=now_us + DEADLINE_DEFAULT_US,
        account_ref=original.account_ref,
        key_ref=original.key_ref,
        last_four=original.last_four,
        payer_key=original.payer_key,
        payee_key=original.payee_key,
        merchant_id=original.merchant_id,
        terminal_id=original.terminal_id,
        reference=request.reference,
        original_id=original.payment_id,
        debit_original=original.payment_id + credit.number.to_bytes(1, "big"),
        credit_original=original.payment_id + current_debit(original).number.to_bytes(1, "big"),
    )
