"""Tips and fees: told as EMVCo writes them, what is due in all, and what the gateway takes."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from command.barcode import barcode as command
from gateway import keys, requests
from gateway.barcode import decode, translate
from gateway.barcode.build import MerchantCode, build_merchant_code
from gateway.barcode.model import Pair
from gateway.barcode.tips import basis_points, percentage_of, written_percentage
from gateway.barcode.tlv import join, seal
from gateway.directory import parse as parse_directory
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError

ACCOUNT = ("26", join([("00", "io.hutong.pay"), ("01", "m1")]))


def code(*tip: Pair, amount: str = "", currency: str = "156") -> str:
    objects = [("00", "01"), ("01", "12" if amount else "11"), ACCOUNT, ("52", "5812"), ("53", currency)]
    objects += [("54", amount)] if amount else []
    return seal([*objects, *tip, ("58", "CN"), ("59", "Shop"), ("60", "City")])


@pytest.mark.parametrize(
    ("text", "tip", "fee", "points", "due", "least"),
    [
        (code(amount="10.00"), "none", None, None, 1000, None),
        (code(), "none", None, None, None, None),
        (code(("55", "01"), amount="10.00"), "asked", None, None, None, 1000),
        (code(("55", "01")), "asked", None, None, None, None),
        (code(("55", "02"), ("56", "5"), amount="10.00"), "fixed", 500, None, 1500, None),
        (code(("55", "02"), ("56", "5.00"), amount="10.00"), "fixed", 500, None, 1500, None),
        (code(("55", "02"), ("56", "500"), amount="1000", currency="360"), "fixed", 50_000, None, 150_000, None),
        (code(("55", "02"), ("56", "500"), amount="1000", currency="392"), "fixed", 500, None, 1500, None),
        (code(("55", "02"), ("56", "0.500"), amount="1.000", currency="512"), "fixed", 500, None, 1500, None),
        (code(("55", "02"), ("56", "5")), "fixed", 500, None, None, None),
        (code(("55", "03"), ("57", "10"), amount="10.00"), "percent", 100, 1000, 1100, None),
        (code(("55", "03"), ("57", "3.5"), amount="10.00"), "percent", 35, 350, 1035, None),
        (code(("55", "03"), ("57", "00.01"), amount="49.99"), "percent", 0, 1, 4999, None),
        (code(("55", "03"), ("57", "00.01"), amount="50.00"), "percent", 1, 1, 5001, None),
        (code(("55", "03"), ("57", "99.99"), amount="0.01"), "percent", 1, 9999, 2, None),
        (code(("55", "03"), ("57", "5.")), "percent", None, 500, None, None),
    ],
)
def test_what_a_code_asks_for_beyond_its_amount(
    text: str, tip: str, fee: int | None, points: int | None, due: int | None, least: int | None
) -> None:
    found = decode(text)
    assert found.profile is not None
    assert found.profile.valid, found.profile.violations
    told = (found.tip, found.tip_minor, found.tip_basis_points, found.amount_due_minor, found.amount_least_minor)
    assert told == (tip, fee, points, due, least)


@pytest.mark.parametrize(
    "tip",
    [
        [("55", "02")], [("55", "02"), ("56", "0.00")], [("55", "02"), ("56", "1.005")], [("55", "02"), ("56", "-1")],
        [("55", "03")], [("55", "03"), ("57", "100")], [("55", "03"), ("57", "0")], [("55", "04")],
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_not_due(tip: list[Pair]) -> None:
    found = decode(code(*tip, amount="10.00"))
    assert found.profile is not None
    assert not found.profile.valid
    assert (found.tip, found.amount_due_minor) == (None, None)


def test_a_printed_code_of_qris_with_a_fee() -> None:
    found = decode(
        "00020101021226530012COM.DOKU.WWW0118936008990000002475020424750303URE51440014ID.CO.QRIS.WWW0215ID102003929348203"
        "03URE5204539953033605404100055020256035005802ID5909TEST SHOP6013JAKARTA PUSAT61051064062070703A0163041E76"
    )
    assert (found.amount_minor, found.tip, found.tip_minor, found.amount_due_minor) == (
        100_000,
        "fixed",
        50_000,
        150_000,
    )


def taken(text: str, amount_minor: int) -> int:
    merchant = {
        "id": "m1",
        "name": "m1",
        "acquirers": [{"id": "a"}],
        "accounts": [{"scheme": "hutong", "account": "m1"}],
    }
    directory = parse_directory({"participants": [{"id": "a", "role": "acquirer"}], "merchants": [merchant]})
    payee = keys.payee(pb.RoutingKey(barcode=text), directory, 0)
    request = pb.CreatePaymentRequest(amount_minor=amount_minor)
    minor, currency = requests.amount(request, payee.amount_minor, payee.currency, payee.least_minor, payee.fee_minor)
    assert currency == "CNY"
    return minor


FIXED = code(("55", "02"), ("56", "5"), amount="10.00")
PERCENT = code(("55", "03"), ("57", "3.5"), amount="10.00")
ASKED = code(("55", "01"), amount="10.00")
STATIC_FEE = code(("55", "02"), ("56", "5"))
STATIC_PERCENT = code(("55", "03"), ("57", "3.5"))


@pytest.mark.parametrize(
    ("text", "asked", "expected"),
    [
        (FIXED, 0, 1500), (FIXED, 1500, 1500), (PERCENT, 0, 1035), (PERCENT, 1035, 1035), (ASKED, 0, 1000),
        (ASKED, 1000, 1000), (ASKED, 1200, 1200), (STATIC_FEE, 501, 501), (STATIC_PERCENT, 1035, 1035),
        (code(("55", "01")), 700, 700), (code(amount="10.00"), 0, 1000), (code(), 5, 5),
    ],
)  # fmt: skip
def test_the_gateway_takes_what_is_due(text: str, asked: int, expected: int) -> None:
    assert taken(text, asked) == expected


@pytest.mark.parametrize(
    ("text", "asked"),
    [
        (FIXED, 1000), (FIXED, 1501), (PERCENT, 1000), (PERCENT, 1036), (ASKED, 999), (STATIC_FEE, 500),
        (code(amount="10.00"), 1001),
    ],
)  # fmt: skip
def test_the_gateway_refuses_another_amount(text: str, asked: int) -> None:
    with pytest.raises(HutongError) as refused:
        taken(text, asked)
    assert refused.value.name == "CURRENCY_MISMATCH"


def test_nothing_entered_for_a_static_code_with_a_fee_is_no_amount() -> None:
    with pytest.raises(HutongError) as refused:
        taken(STATIC_FEE, 0)
    assert refused.value.name == "AMOUNT_NOT_POSITIVE"


def test_a_links_least_amount_may_be_paid_and_less_may_not() -> None:
    found = decode("upi://pay?pa=shop@okbank&am=100.00&mam=20.00")
    assert (found.amount_minor, found.amount_least_minor, found.amount_due_minor) == (10_000, 2_000, None)


@given(
    amount=st.none() | st.integers(1, 10**9),
    tip=st.sampled_from(["none", "asked", "fixed", "percent"]),
    fee=st.integers(1, 10**8),
    points=st.integers(1, 9999),
)
def test_what_is_built_asks_for_what_was_given_and_translation_keeps_it(
    amount: int | None, tip: str, fee: int, points: int
) -> None:
    built = build_merchant_code(
        MerchantCode(
            "m1", "Shop", "City", amount_minor=amount, tip=tip,
            tip_minor=fee if tip == "fixed" else None, tip_basis_points=points if tip == "percent" else None,
        )
    )  # fmt: skip
    found = decode(built)
    assert (found.tip, found.amount_minor) == (tip, amount)
    if tip == "fixed":
        assert found.tip_minor == fee
    if tip == "percent":
        assert found.tip_basis_points == points
    again = decode(translate(built).payload)
    for name in ("tip", "tip_minor", "tip_basis_points", "amount_due_minor", "amount_least_minor"):
        assert getattr(again, name) == getattr(found, name)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tip": "some"}, {"tip": "fixed"}, {"tip": "percent"}, {"tip": "asked", "tip_minor": 1},
        {"tip": "fixed", "tip_minor": 0}, {"tip": "percent", "tip_basis_points": 10_000}, {"tip_minor": 5},
        {"tip": "fixed", "tip_minor": 1, "tip_basis_points": 1},
    ],
)  # fmt: skip
def test_a_tip_that_makes_no_sense_is_not_built(wrong: dict[str, str | int]) -> None:
    with pytest.raises(HutongError) as refused:
        build_merchant_code(MerchantCode("m1", "Shop", "City", **wrong))  # type: ignore[arg-type]
    assert refused.value.name in {"FIELD_INVALID", "AMOUNT_NOT_POSITIVE"}


@given(st.integers(1, 10**12), st.integers(1, 9999))
def test_a_fee_is_the_nearest_minor_unit(amount: int, points: int) -> None:
    assert abs(percentage_of(amount, points) * 10_000 - amount * points) <= 5_000
    assert basis_points(written_percentage(points)) == points


@pytest.mark.parametrize(
    ("options", "tip"),
    [(["--ask-for-tip"], "asked"), (["--fee", "0.50"], "fixed"), (["--fee", "2.5%"], "percent"), ([], "none")],
)  # fmt: skip
def test_the_command_writes_them(options: list[str], tip: str) -> None:
    said = CliRunner().invoke(command, ["encode", "--account", "m1", "--name", "Shop", *options])
    assert said.exit_code == 0, said.output
    assert decode(said.output.strip()).tip == tip


@pytest.mark.parametrize("options", [["--ask-for-tip", "--fee", "1"], ["--fee", "100%"], ["--fee", "x%"]])
def test_the_command_refuses_what_makes_no_sense(options: list[str]) -> None:
    assert CliRunner().invoke(command, ["encode", "--account", "m1", "--name", "Shop", *options]).exit_code == 2
