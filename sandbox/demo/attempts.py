"""One attempt: pays, waits until the payment is settled, and records the outcome."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Final

from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client.client import HutongClient
from hutong_client.wording import state_name
from hutong_contract.errors import HutongError
from sandbox.demo.record import Key, Line
from sandbox.population import Merchant, Wallet

SUCCEEDED: Final = "SUCCEEDED"


def attempt(
    client: HutongClient,
    scene: str,
    wallet: Wallet,
    merchant: Merchant,
    pay: Callable[[], pb.Payment],
    *,
    key: Key | None = None,
    expected: str = SUCCEEDED,
    expected_key: pb.KeyKind.ValueType = pb.KEY_KIND_UNSPECIFIED,
    amount_minor: int = 0,
) -> Line:
    """Pays and returns the record. A refusal is an outcome; a call that fails otherwise is raised (CallError). The
    answer's issuer, merchant, payer's key and amount are compared with those of the real payment (if `expected_key` and
    `amount_minor` are given)."""
    line = Line(scene, wallet.id, wallet.issuer_id, merchant.id, "", expected, "", key)
    try:
        payment = client.settled(pay())
    except HutongError as error:
        return replace(line, outcome=error.name)
    facts = {
        "issuer": (payment.issuer_id, wallet.issuer_id),
        "merchant": (payment.merchant_id, merchant.id),
        "payer key": (payment.payer_key, expected_key or payment.payer_key),
        "amount": (payment.amount_minor, amount_minor or payment.amount_minor),
    }
    wrong = [f"{name} is {said!r}, not {true!r}" for name, (said, true) in facts.items() if said != true]
    return replace(
        line,
        acquirer_id=payment.acquirer_id,
        outcome=state_name(payment.state),
        amount_minor=payment.amount_minor,
        payment_id=payment.payment_id,
        latency_us=latency_us(payment),
        wrong="; ".join(wrong),
        note=payment.reason,
    )


def latency_us(payment: pb.Payment) -> int:
    """From admission to the final state, in microseconds; 0 while it is open."""
    if not payment.HasField("end_time"):
        return 0
    return int(payment.end_time.ToMicroseconds() - payment.create_time.ToMicroseconds())
