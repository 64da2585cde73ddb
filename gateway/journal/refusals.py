"""The journal's record of risk decisions: rows of refused payments, and the list of all decisions.

Pure: rows and SQL for both journals, with `?` for parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any, Final, NamedTuple

from gateway.engine.model import Payment, Refusal, Refused

REFUSAL_COLUMNS: Final = (
    "payment_id",
    "time_us",
    "reason",
    "limit_name",
    "risk_id",
    "caller",
    "amount_minor",
    "currency",
    "issuer",
    "account_ref",
    "key_ref",
    "payer_key",
    "merchant_id",
    "terminal_id",
)
_SHARED: Final = "caller, amount_minor, currency, {issuer}, account_ref, key_ref, payer_key, merchant_id, terminal_id"
LIST_DECISIONS: Final = (
    "SELECT d.*, COALESCE(j.judgement, '') FROM ("
    f"SELECT * FROM (SELECT payment_id, created_us, 0, '', risk_id, state, {_SHARED.format(issuer='debtor')} "
    "FROM payments WHERE risk_id > 0 AND payment_id < ? ORDER BY payment_id DESC LIMIT ?) AS a UNION ALL "
    f"SELECT * FROM (SELECT payment_id, time_us, reason, limit_name, risk_id, 0, {_SHARED.format(issuer='issuer')} "
    "FROM refusals WHERE payment_id < ? ORDER BY payment_id DESC LIMIT ?) AS b"
    ") AS d LEFT JOIN judgements j ON j.risk_id = d.risk_id ORDER BY d.payment_id DESC LIMIT ?"
)
"""Parameters: before, most, before, most, most. Payments for which a rule fired, and refused ones, newest first. Ids of
both come from one source and ascend with time."""
AFTER_ALL: Final = b"\xff" * 16
"""Above every payment's id: the list begins at the newest."""


class DecisionRow(NamedTuple):
    """One decision of risk rules."""

    payment_id: bytes
    time_us: int
    reason: int
    """Of a refused payment, the hutong.status.v1.ErrorReason; 0: it was admitted."""
    limit: str
    risk_id: int
    state: int
    """Of an admitted payment; 0: it was refused."""
    caller: str
    amount_minor: int
    currency: str
    issuer: str
    account_ref: bytes
    key_ref: bytes
    payer_key: int
    merchant_id: str
    terminal_id: str
    judgement: str
    """JSON; see gateway.risk.judgement."""


def decision_parameters(before: bytes | None, most: int) -> tuple[object, ...]:
    """The parameters of LIST_DECISIONS, for up to `most` decisions older than the payment `before`."""
    edge = AFTER_ALL if before is None else before
    return edge, most, edge, most, most


def decisions_from_rows(rows: Iterable[Sequence[Any]]) -> list[DecisionRow]:
    """The decisions in the rows of LIST_DECISIONS."""
    return [DecisionRow._make((bytes(row[0]), *row[1:10], bytes(row[10]), bytes(row[11]), *row[12:])) for row in rows]


def limit_refusals(payments: Sequence[Payment], verdicts: Sequence[Refused | None]) -> list[Refusal]:
    """The refusals that follow from the verdicts on a tick's admissions."""
    if not any(verdicts):
        return []
    return [
        Refusal(payment, verdict.reason, verdict.limit)
        for payment, verdict in zip(payments, verdicts, strict=True)
        if verdict is not None and verdict.limit
    ]


def refusal_row(refusal: Refusal) -> tuple[object, ...]:
    """The row of a refused payment, in the order of REFUSAL_COLUMNS."""
    payment, reason, limit = refusal
    return (
        payment.payment_id,
        payment.created_us,
        reason,
        limit,
        payment.risk_id,
        payment.caller,
        payment.amount_minor,
        payment.currency,
        payment.debtor,
        payment.account_ref,
        payment.key_ref,
        payment.payer_key,
        payment.merchant_id,
        payment.terminal_id,
    )


def new_judgements(
    admissions: Sequence[Payment], refusals: Sequence[Refusal], known: Collection[int]
) -> dict[int, str]:
    """Texts, by id, that are not known to be stored."""
    new = {payment.risk_id: payment.risk for payment in admissions if payment.risk_id not in known}
    if refusals:
        new |= {one.payment.risk_id: one.payment.risk for one in refusals if one.payment.risk_id not in known}
    return new
