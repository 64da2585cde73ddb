"""A refund is a payment the other way: the acquirer is debited, the issuer credited, by the same state machine."""

from __future__ import annotations

from gateway.engine.model import Kind, LegKind, Payment
from gateway.engine.states import State
from gateway.engine.transitions import current_debit
from gateway.requests import DEADLINE_DEFAULT_US
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError, Reason


def refund_of(original: Payment | None, request: pb.RefundPaymentRequest, payment_id: bytes, now_us: int) -> Payment:
    """The refund that a request asks for. Raises HutongError where the original cannot be refunded so. The journal
    decides again, in its commit, whether the amount is still left."""
    if original is None:
        raise HutongError(Reason.ERROR_REASON_PAYMENT_NOT_FOUND, payment_id=request.payment_id)
    if original.kind == Kind.REFUND:
        raise HutongError(Reason.ERROR_REASON_REFUND_OF_REFUND)
    if original.state is not State.SUCCEEDED:
        raise HutongError(Reason.ERROR_REASON_PAYMENT_NOT_REFUNDABLE, state=original.state.name)
    if request.amount_minor < 0:
        raise HutongError(Reason.ERROR_REASON_AMOUNT_NOT_POSITIVE)
    left = original.amount_minor - original.refunded_minor
    amount = request.amount_minor or left
    if amount > left or amount <= 0:
        raise HutongError(Reason.ERROR_REASON_REFUND_EXCEEDS_PAYMENT, left_minor=str(left))
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
