"""Builders and translation: what is written decodes to what was asked, and what is lost is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.barcode import PAYABLE, decode, translate
from gateway.barcode.build import MerchantCode, build_merchant_code, writable
from gateway.barcode.forms import FORMS
from gateway.directory import parse as parse_directory
from hutong_contract.errors import HutongError

VECTORS: Final = Path(__file__).parents[2] / "vectors" / "barcode"
FOREIGN: Final = [
    (path.stem, case)
    for path in sorted(VECTORS.glob("*.json"))
    for case in json.loads(path.read_text("utf-8"))["valid"]
    if case["routing"] is not None and decode(case["payload"]).purpose in PAYABLE
]
ACCOUNT_MAX: Final = 74
"""The longest account of another scheme that fits into Hutong's encoding."""
ACCOUNTS: Final = {
    "bharatqr": ("a.shop@icici", "", "IN", "INR"), "duitnow": ("MD00167575", "603346", "MY", "MYR"),
    "fonepay": ("2222610015873056", "", "NP", "NPR"), "ghqr": ("1064024100064025", "010000", "GH", "GHS"),
    "hkfps": ("9999999", "", "HK", "HKD"), "hutong": ("merchant-1", "", "CN", "CNY"),
    "khqr": ("john_smith@devb", "devb", "KH", "KHR"), "lankaqr": ("0005812000000001000", "16728", "LK", "LKR"),
    "laoqr": ("mch19B73F61B9E", "27710418", "LA", "LAK"), "mmqr": ("620401000000064", "", "MM", "MMK"),
    "nepalpay": ("2501ELFDRY2", "00002501", "NP", "NPR"), "paynow": ("201403121W", "", "SG", "SGD"),
    "pix": ("11222333000181", "", "BR", "BRL"), "promptpay": ("0066801234567", "", "TH", "THB"),
    "qris": ("936009153030232517", "93600915", "ID", "IDR"), "qrph": ("102140529", "PAPHPHM1XXX", "PH", "PHP"),
    "raast": ("+923367865823", "", "PK", "PKR"), "thai_bill": ("010753700088205", "", "TH", "THB"),
    "unionpay": ("500034470110001", "25000344", "HK", "HKD"), "vietqr": ("9796868", "970407", "VN", "VND"),
    "vnpay": ("0106913377", "", "VN", "VND"), "breb": ("@testkey1", "", "CO", "COP"),
    "jpqr": ("0000000000001/0001/000001/000001", "", "JP", "JPY"), "meeza": ("610055979", "", "EG", "EGP"),
    "plin": ("0123456789abcdef0123456789abcdef", "", "PE", "PEN"), "qpay": ("5003000016", "CAXBMNUB", "MN", "MNT"),
    "tanqr": ("12345678", "01001", "TZ", "TZS"), "uzqr": ("6qz7uqn60TiFsWDuxO", "", "UZ", "UZS"),
    "yape": ("0123456789abcdef0123456789abcdef", "", "PE", "PEN"),
}  # fmt: skip


def test_every_writable_scheme_is_tried() -> None:
    assert set(ACCOUNTS) | set(FORMS) == set(writable())


@pytest.mark.parametrize("scheme", sorted(ACCOUNTS))
@pytest.mark.parametrize("amount_minor", [None, 123_400])
def test_a_code_of_each_scheme_decodes_to_what_was_asked(scheme: str, amount_minor: int | None) -> None:
    account, participant, country, currency = ACCOUNTS[scheme]
    terminal = "0005" if scheme in {"lankaqr", "mmqr"} else "T1"
    code = MerchantCode(
        account, "Noodle House", "Old Town", country, currency, "5812", amount_minor, terminal, participant, "R1"
    )
    decoded = decode(build_merchant_code(code, scheme))
    assert decoded.scheme == scheme
    assert decoded.strict is not None
    assert decoded.strict.valid == (scheme != "yape"), "Yape puts a plain text where the standard has a template"
    assert decoded.profile is not None
    assert decoded.profile.valid
    assert decoded.routing is not None
    assert decoded.routing.account == account
    assert decoded.routing.participant == participant or not participant
    assert (decoded.amount_minor, decoded.currency, decoded.merchant_name) == (amount_minor, currency, "Noodle House")
    assert decoded.initiation == ("static" if amount_minor is None else "dynamic")


@pytest.mark.slow
@given(
    name=st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=25),
    account=st.from_regex(r"[A-Za-z0-9._:-]{1,36}", fullmatch=True),
    terminal=st.from_regex(r"[A-Za-z0-9._:-]{0,25}", fullmatch=True),
    amount=st.none() | st.integers(1, 10**9),
)
def test_hutongs_codes_round_trip(name: str, account: str, terminal: str, amount: int | None) -> None:
    decoded = decode(
        build_merchant_code(MerchantCode(account, name, "Beijing", terminal_id=terminal, amount_minor=amount))
    )
    assert decoded.routing is not None
    assert (decoded.routing.account, decoded.routing.terminal_id) == (account, terminal)
    assert (decoded.amount_minor, decoded.merchant_name, decoded.scheme) == (amount, name, "hutong")


@pytest.mark.parametrize(
    "wrong",
    [
        {"account": "has space"}, {"account": ""}, {"account": "x" * 99}, {"merchant_name": "x" * 26},
        {"country": "XX"}, {"merchant_category": "12"}, {"amount_minor": 0}, {"amount_minor": -5},
        {"amount_minor": 10**14}, {"currency": "ABC"}, {"terminal_id": "x" * 26}, {"reference": "x" * 26},
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(wrong: dict[str, Any]) -> None:
    fields = {"account": "m-1", "merchant_name": "Shop", "merchant_city": "City", **wrong}
    with pytest.raises(HutongError) as refused:
        build_merchant_code(MerchantCode(**fields))
    assert refused.value.name in {"FIELD_INVALID", "AMOUNT_NOT_POSITIVE", "CURRENCY_UNKNOWN"}


def test_a_scheme_without_a_builder_is_refused_with_those_that_have_one() -> None:
    with pytest.raises(HutongError, match="hutong"):
        build_merchant_code(MerchantCode("x", "y"), "visa")


@pytest.mark.parametrize(("scheme", "case"), FOREIGN, ids=[f"{name}-{n}" for n, (name, _) in enumerate(FOREIGN)])
def test_every_code_goes_into_hutongs_encoding_and_routes_the_same(scheme: str, case: dict[str, Any]) -> None:
    original = decode(case["payload"])
    if len(case["routing"]["account"]) > ACCOUNT_MAX:
        with pytest.raises(HutongError, match="does not fit"):
            translate(case["payload"])
        return
    said = translate(case["payload"])
    again = decode(said.payload)
    assert (said.source, said.scheme, again.scheme) == (scheme, "hutong", "hutong")
    assert again.profile is not None
    assert again.profile.valid
    assert original.routing is not None
    assert again.routing is not None
    for name in ("scheme", "kind", "account", "participant", "payee"):
        assert getattr(again.routing, name) == getattr(original.routing, name), name
    assert again.amount_minor == original.amount_minor


def test_a_merchant_of_the_directory_is_named_by_its_own_id() -> None:
    directory = parse_directory(
        {
            "participants": [{"id": "a", "role": "acquirer"}],
            "merchants": [
                {
                    "id": "m-7", "name": "Padaria", "acquirers": [{"id": "a"}],
                    "accounts": [
                        {"scheme": "pix", "account": "11222333000181"}, {"scheme": "hkfps", "account": "1234567"},
                    ],
                }
            ],
        }
    )  # fmt: skip
    pix = build_merchant_code(MerchantCode("11222333000181", "Padaria", "Recife", "BR", "BRL"), "pix")
    said = translate(pix, directory=directory)
    assert (said.routing.scheme, said.routing.account) == ("hutong", "m-7")
    elsewhere = build_merchant_code(MerchantCode("11222333000181", "Padaria", "Recife", "BR", "BRL"), "pix")
    with pytest.raises(HutongError, match="58"):
        translate(elsewhere, "hkfps", directory)  # Known there, but a Brazilian code is none of Hong Kong's.


def test_upi_and_bharat_qr_share_their_accounts() -> None:
    said = translate("upi://pay?pa=a.shop@icici&pn=A%20Shop&am=12.50&cu=INR&tr=R1&mc=5411&tn=hello", "bharatqr")
    decoded = decode(said.payload)
    assert decoded.routing is not None
    assert (decoded.scheme, decoded.routing.account, decoded.amount_minor) == ("bharatqr", "a.shop@icici", 1250)
    assert {(loss.path, loss.reason) for loss in said.losses} == {("60", "assumed"), ("query.tn", "no_place")}


def test_a_code_without_an_account_in_the_target_is_refused_or_takes_the_callers() -> None:
    with pytest.raises(HutongError, match="no account of hkfps"):
        translate("upi://pay?pa=a.shop@icici", "hkfps")
    said = translate(build_merchant_code(MerchantCode("m-1", "Shop", "City", "HK", "HKD")), "hkfps", account="7654321")
    assert said.routing.account == "7654321"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("6612345678901234567", "KEY_NOT_PAYEE"),
        ("hQVDUFYwMWEaTwegAAAAVVVVVw8SNFZ4kBI0WNGRIgESNF8=", "KEY_NOT_PAYEE"),
        ("nothing", "BARCODE_UNKNOWN"),
        ("upi://pay?pa=nobody", "BARCODE_MALFORMED"),
    ],
)
def test_what_is_no_merchant_code_is_refused(text: str, reason: str) -> None:
    with pytest.raises(HutongError) as refused:
        translate(text)
    assert refused.value.name == reason


def test_what_is_shortened_or_left_behind_is_told() -> None:
    case = json.loads((VECTORS / "qris.json").read_text("utf-8"))["valid"][0]
    said = translate(case["payload"])
    assert ("59", "shortened") in {(loss.path, loss.reason) for loss in said.losses}
    assert ("51/02", "no_place") in {(loss.path, loss.reason) for loss in said.losses}
