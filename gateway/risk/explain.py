"""Tries a payment on the rules without making it. Reads the judge's memory, changes nothing."""

from __future__ import annotations

from gateway.engine.model import Kind, Payment
from gateway.risk.facts import Facts
from gateway.risk.judge import Judge, refusal_of
from gateway.risk.records import judgement_message
from gateway.risk.tiers import tier_of
from hutong.gateway.v1 import payment_pb2, risk_pb2
from hutong_contract.currencies import EXPONENT_OF
from hutong_contract.errors import HutongError, Reason

REFERENCE_BYTES = 16
_NOBODY = Payment(
    payment_id=bytes(16),
    kind=Kind.PAYMENT,
    amount_minor=1,
    currency="CNY",
    debtor="",
    creditors=("",),
    created_us=0,
    deadline_us=0,
)
"""What a trial is about where no payment is named and the request leaves facts out."""


def explain(
    judge: Judge, request: risk_pb2.ExplainRiskRequest, payment: Payment | None, now_us: int
) -> risk_pb2.ExplainRiskResponse:
    """Which rules would fire for a described payment: `payment`, if given, changed by the request's fields. Raises
    HutongError."""
    facts = _facts(judge, request, payment or _NOBODY, now_us)
    judgement = judge.find(facts)
    error = refusal_of(judgement, payment or _NOBODY)
    return risk_pb2.ExplainRiskResponse(
        judgement=judgement_message(judgement.finding.text),
        refused=error.name if error is not None else "",
        factor=judgement.factor,
        limits=[risk_pb2.RiskLimit(name=one.limit, add=one.add, most=one.cap) for one in judgement.limits],
        account=facts.account.hex(),
        key=facts.key.hex(),
    )


def _facts(judge: Judge, request: risk_pb2.ExplainRiskRequest, payment: Payment, now_us: int) -> Facts:
    currency = request.currency or payment.currency
    if currency not in EXPONENT_OF:
        raise HutongError(Reason.ERROR_REASON_CURRENCY_UNKNOWN, currency=currency[:3])
    amount = request.amount_minor or payment.amount_minor
    if amount <= 0:
        raise HutongError(Reason.ERROR_REASON_AMOUNT_NOT_POSITIVE)
    kind = int(request.payer_key) or payment.payer_key or int(payment_pb2.KEY_KIND_PAYMENT_CODE)
    account = _reference("account", request.account) or payment.account_ref
    assurance = request.assurance_method or "00"
    scanned = request.static_merchant_code or payment.payee_key == payment_pb2.KEY_KIND_MERCHANT_CODE
    tier = tier_of(
        kind,
        assurance,
        static_code=request.static_code,
        scanned=scanned,
        static_merchant=request.static_merchant_code,
        agreement=(account, currency) in judge.rules.agreements,
    )
    time = request.time
    return Facts(
        now_us=time.seconds * 1_000_000 + time.nanos // 1000 if request.HasField("time") else now_us,
        key_kind=kind,
        amount_minor=amount,
        currency=currency,
        tier=tier,
        assurance=assurance,
        static_code=request.static_code,
        static_merchant=request.static_merchant_code,
        account=account,
        key=_reference("key", request.key) or payment.key_ref,
        issuer=request.issuer_id or payment.debtor,
        merchant=request.merchant_id or payment.merchant_id,
        terminal=request.terminal_id or payment.terminal_id,
        caller=request.caller or payment.caller,
    )


def _reference(field: str, text: str) -> bytes:
    if not text:
        return b""
    try:
        value = bytes.fromhex(text)
        if len(value) != REFERENCE_BYTES:
            raise ValueError(text)
    except ValueError:
        raise HutongError(Reason.ERROR_REASON_FIELD_INVALID, field=field, allowed="32 hexadecimal digits") from None
    return value
