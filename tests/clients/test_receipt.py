"""Receipts fit their paper, in whatever writing, and say what became of the money."""

from __future__ import annotations

import unicodedata

import pytest

from gateway.receipts import receipt_number
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client.receipt import COLUMNS_MAX, COLUMNS_MIN, TITLES, render

ID = "01a0c450-6c00-7000-94a9-e8c649d8fdb8"


def receipt(**changes: object) -> pb.Receipt:
    fields: dict[str, object] = {
        "receipt_number": receipt_number(ID),
        "payment_id": ID,
        "kind": pb.PAYMENT_KIND_PAYMENT,
        "state": pb.PAYMENT_STATE_SUCCEEDED,
        "merchant_id": "m1001",
        "merchant_name": "Tea House",
        "terminal_id": "m1001t1",
        "masked_account": "**** 5678",
        "currency": "CNY",
        "exponent": 2,
        "amount_minor": 1250,
        "paid_minor": 1250,
        "refundable_minor": 1250,
    }
    made = pb.Receipt(**(fields | changes))  # type: ignore[arg-type]
    made.create_time.FromSeconds(1_790_000_000)
    return made


def width(text: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def test_a_payment() -> None:
    slip = render(receipt()).splitlines()
    assert slip[0].strip() == "Tea House"
    assert slip[2].strip() == "PAID"
    assert "PAID" + " " * 27 + "12.50 CNY" in slip
    assert any(line.startswith("Began") and line.endswith("2026-09-21 14:13:20 UTC") for line in slip)
    assert not any(line.startswith(("Reference", "Refund", "Held")) for line in slip)


@pytest.mark.parametrize("columns", range(COLUMNS_MIN, COLUMNS_MAX + 1))
def test_no_line_is_wider_than_the_paper(columns: int) -> None:
    long = receipt(merchant_name="胡同茶馆" * 9, merchant_city="北京", reference="r" * 64, reason="没" * 40)
    slip = render(long, columns)
    assert all(width(line) <= columns for line in slip.splitlines())
    assert "".join(line.strip() for line in slip.splitlines()).count("r" * 20) >= 1
    assert "没" * 10 in slip


@pytest.mark.parametrize("columns", [COLUMNS_MIN - 1, COLUMNS_MAX + 1])
def test_paper_of_another_width_is_refused(columns: int) -> None:
    with pytest.raises(ValueError, match="columns"):
        render(receipt(), columns)


def test_refunds_and_what_is_left() -> None:
    one = receipt(refunded_minor=250, refundable_minor=1000)
    one.refunds.add(payment_id=ID, state=pb.PAYMENT_STATE_SUCCEEDED, amount_minor=250)
    one.refunds.add(payment_id=ID, state=pb.PAYMENT_STATE_DECLINED, amount_minor=99)
    slip = render(one)
    assert "-2.50 CNY" in slip
    assert "Refund declined" in slip
    assert "10.00 CNY" in slip


@pytest.mark.parametrize("state", TITLES)
def test_what_was_not_paid_says_so(state: int) -> None:
    if state == pb.PAYMENT_STATE_SUCCEEDED:
        return
    slip = render(receipt(state=state, paid_minor=0, refundable_minor=0))
    assert "NOT PAID" in slip
    assert "12.50 CNY" in slip


def test_yen_have_no_decimals_and_dinars_three() -> None:
    assert "1250 JPY" in render(receipt(currency="JPY", exponent=0))
    assert "1.250 KWD" in render(receipt(currency="KWD", exponent=3))


def test_numbers_are_stable_and_differ() -> None:
    assert receipt_number(ID) == receipt_number(ID.upper())
    assert receipt_number(ID) != receipt_number(ID[:-1] + "9")
    assert len(receipt_number(ID)) == 16
