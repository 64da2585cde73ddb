"""Answers are put together from parts that payments have in common; they must be what protobuf makes of the whole."""

from __future__ import annotations

import pytest

from gateway.engine.answer import response, to_message
from gateway.engine.model import Kind, Payment
from gateway.engine.states import State
from hutong.gateway.v1 import payment_pb2 as pb

PLAIN = {
    "payment_id": bytes(range(16)),
    "kind": Kind.PAYMENT,
    "amount_minor": 12_345,
    "currency": "CNY",
    "debtor": "issuer-a",
    "creditors": ("acquirer-a", "acquirer-b"),
    "created_us": 1_763_780_000_123_456,
    "deadline_us": 1_763_780_030_123_456,
    "ended_us": 1_763_780_000_200_000,
    "payer_key": int(pb.KEY_KIND_TOKEN),
    "payee_key": int(pb.KEY_KIND_MERCHANT),
    "merchant_id": "merchant-1",
    "terminal_id": "terminal-1",
    "last_four": "0042",
    "state": State.SUCCEEDED,
}


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"state": State.DEBITING, "ended_us": 0},
        {"state": State.DECLINED, "reason": "51"},
        {"attempt": 1},
        {"amount_minor": 999_999_999_999, "currency": "JPY"},
        {"reference": "订单 4711 " * 6, "terminal_id": "", "payee_key": int(pb.KEY_KIND_MERCHANT_CODE)},
        {"reference": "a" * 64, "merchant_id": "m" * 64, "terminal_id": "t" * 64},
        {"kind": Kind.REFUND, "original_id": bytes(16)},
        {"state": State.HELD, "authorised_minor": 12_345, "hold_until_us": 1_763_790_000_000_000},
        {"created_us": 1, "ended_us": 2, "last_four": ""},
    ],
    ids=lambda other: " ".join(other) or "plain",
)
def test_an_answer_is_what_protobuf_makes_of_it(other: dict[str, object]) -> None:
    payment = Payment(**(PLAIN | other))  # type: ignore[arg-type]
    whole = pb.CreatePaymentResponse(payment=to_message(payment)).SerializeToString(deterministic=True)
    assert response(payment) == whole
    assert response(payment) == whole, "also from what was kept"
