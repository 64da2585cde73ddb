"""Proves that amounts, states and messages are worded the same way everywhere."""

from __future__ import annotations

import json

import pytest

from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client.wording import as_json, key_name, money, state_name


@pytest.mark.parametrize(
    ("minor", "exponent", "text"),
    [(1250, 2, "12.50 CNY"), (5, 2, "0.05 CNY"), (-5, 2, "-0.05 CNY"), (7, 0, "7 CNY"), (12345, 3, "12.345 CNY")],
)
def test_money(minor: int, exponent: int, text: str) -> None:
    assert money(minor, "CNY", exponent) == text


def test_every_state_and_key_has_a_name() -> None:
    assert state_name(pb.PAYMENT_STATE_CREDIT_UNKNOWN) == "CREDIT_UNKNOWN"
    for number in pb.KeyKind.values():
        assert bool(key_name(number)) is (number != pb.KEY_KIND_UNSPECIFIED)


def test_json_has_amounts_as_numbers_at_every_depth() -> None:
    answer = pb.GetPaymentResponse(
        payment=pb.Payment(payment_id="p", amount_minor=2**53 - 1, refunded_minor=5, state=pb.PAYMENT_STATE_SUCCEEDED),
        refunds=[pb.Payment(amount_minor=5)],
    )
    plain = json.loads(json.dumps(as_json(answer)))
    assert plain["payment"]["amount_minor"] == 2**53 - 1
    assert plain["payment"]["state"] == "PAYMENT_STATE_SUCCEEDED"
    assert plain["refunds"] == [{"amount_minor": 5}]
