"""The journal's records of judgements, as messages."""

from __future__ import annotations

import json

from gateway.engine.answer import id_text, timestamp
from gateway.journal.refusals import DecisionRow
from hutong.gateway.v1 import payment_pb2, risk_pb2
from hutong_contract.errors import HutongError


def judgement_message(text: str) -> payment_pb2.RiskJudgement:
    """The message of a stored judgement; see gateway.risk.rules.Finding for its text."""
    told = json.loads(text)
    return payment_pb2.RiskJudgement(
        action=told["action"],
        score=told["score"],
        tier=told["tier"],
        findings=[
            payment_pb2.RiskFinding(rule=rule, points=points, action=action) for rule, points, action in told["rules"]
        ],
        version=told["version"],
    )


def decision_message(row: DecisionRow) -> risk_pb2.RiskDecision:
    """The message of one decision."""
    return risk_pb2.RiskDecision(
        payment_id=id_text(row.payment_id),
        time=timestamp(row.time_us),
        judgement=judgement_message(row.judgement) if row.judgement else None,
        refused=HutongError(row.reason).name if row.reason else "",
        limit=row.limit,
        state=row.state,  # type: ignore[arg-type]
        caller=row.caller,
        amount_minor=row.amount_minor,
        currency=row.currency,
        issuer_id=row.issuer,
        account=row.account_ref.hex(),
        key=row.key_ref.hex(),
        payer_key=row.payer_key,  # type: ignore[arg-type]
        merchant_id=row.merchant_id,
        terminal_id=row.terminal_id,
    )
