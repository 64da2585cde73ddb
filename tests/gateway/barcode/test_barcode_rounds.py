"""Codes there and back: what is built is read and built again, and nothing that changed reads as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.barcode import PAYABLE as PAYABLE_PURPOSES
from gateway.barcode import Decoded, Routing, decode, translate
from gateway.barcode.build import MerchantCode, build_merchant_code, says_when_it_ends, writable
from gateway.barcode.forms import FORMS
from gateway.barcode.profile import PROFILES
from gateway.barcode.recognise import moment_us, written_moment
from gateway.barcode.tips import FIXED
from gateway.barcode.tlv import crc, seal, split
from hutong_contract.currencies import EXPONENT_OF, NUMBER_OF
from hutong_contract.errors import HutongError

VECTORS: Final = Path(__file__).parents[2] / "vectors" / "barcode"
CODES: Final = [
    (path.stem, case["payload"])
    for path in sorted(VECTORS.glob("*.json"))
    for case in json.loads(path.read_text("utf-8"))["valid"]
]
CHECKED: Final = {
    "11222333000181",
    "12ABC34501DE35",
    "123e4567-e12b-12d1-a456-426655440000",
    "+5511912345678",
    "a@b.example",
}
"""Pix keys of each kind, since most texts are none."""


def _numbers(shortest: int, longest: int = 0) -> st.SearchStrategy[str]:
    return st.text("0123456789", min_size=shortest, max_size=longest or shortest)


ACCOUNTS: Final[dict[str, tuple[st.SearchStrategy[str], st.SearchStrategy[str]]]] = {
    "bharatqr": (st.from_regex(r"[a-z0-9._-]{2,20}@[a-z]{2,8}", fullmatch=True), st.just("")),
    "breb": (st.from_regex(r"@[a-z]{3,12}[0-9]{0,3}|[a-z]{3,9}@[a-z]{3,9}\.co", fullmatch=True), st.just("")),
    "duitnow": (st.from_regex(r"[A-Z0-9]{1,20}", fullmatch=True), _numbers(6)),
    "fonepay": (_numbers(15, 19), st.just("")),
    "ghqr": (_numbers(8, 20), _numbers(6)),
    "hkfps": (_numbers(7, 9), st.sampled_from(["", "004", "388"])),
    "hutong": (st.from_regex(r"[A-Za-z0-9._:-]{1,36}", fullmatch=True), st.just("")),
    "jpqr": (st.from_regex(r"[0-9]{13}/[0-9]{4}/[0-9]{6}/[0-9]{6}", fullmatch=True), st.just("")),
    "khqr": (st.from_regex(r"[a-z_]{1,9}@[a-z]{2,8}(/[A-Z0-9]{1,9}(/[A-Z]{2,9})?)?", fullmatch=True), st.just("")),
    "lankaqr": (_numbers(19), _numbers(5)),
    "laoqr": (st.from_regex(r"[A-Za-z0-9]{4,20}", fullmatch=True), _numbers(8)),
    "meeza": (_numbers(4, 20), st.just("")),
    "mmqr": (_numbers(15), st.just("")),
    "nepalpay": (st.from_regex(r"[A-Z0-9]{4,20}", fullmatch=True), _numbers(8)),
    "paynow": (st.from_regex(r"\+65[89][0-9]{7}|20[0-9]{7}[A-Z]|T[0-9]{2}LL[0-9]{4}X", fullmatch=True), st.just("")),
    "pix": (st.sampled_from(sorted(CHECKED)), st.just("")),
    "plin": (st.from_regex(r"[0-9a-f]{32}", fullmatch=True), st.just("")),
    "promptpay": (_numbers(11).map("00".__add__) | _numbers(12).map("1".__add__) | _numbers(15), st.just("")),
    "qpay": (_numbers(8, 20), st.just("CAXBMNUB")),
    "qris": (_numbers(14).map("9360".__add__), st.just("")),
    "qrph": (st.from_regex(r"[A-Z0-9]{4,20}", fullmatch=True), st.sampled_from(["BNORPHMMXXX", "PAPHPHM1XXX"])),
    "raast": (st.from_regex(r"\+92[0-9]{10}|03[0-9]{9}", fullmatch=True), st.just("")),
    "tanqr": (_numbers(8), _numbers(5)),
    "thai_bill": (_numbers(15), st.just("")),
    "unionpay": (_numbers(15), _numbers(8)),
    "uzqr": (st.from_regex(r"[A-Za-z0-9]{18}", fullmatch=True), st.just("")),
    "vietqr": (_numbers(6, 19), _numbers(6)),
    "vnpay": (_numbers(4, 20), st.just("")),
    "yape": (st.from_regex(r"[0-9a-f]{32}|[A-Za-z0-9]{43}=", fullmatch=True), st.just("")),
}  # fmt: skip
"""For each scheme that can be written: its accounts and participants."""


def test_every_writable_scheme_goes_there_and_back() -> None:
    assert set(ACCOUNTS) | set(FORMS) == set(writable())


def _again(decoded: Decoded, routing: Routing, created_us: int) -> MerchantCode:
    """The code that says what was decoded."""
    return MerchantCode(
        account=routing.account,
        participant=routing.participant,
        terminal_id=routing.terminal_id or decoded.terminal_label or "",
        merchant_name=decoded.merchant_name or "",
        merchant_city=decoded.merchant_city or "",
        country=decoded.country or "",
        currency=decoded.currency or "",
        merchant_category=decoded.merchant_category or "0000",
        amount_minor=decoded.amount_minor,
        reference=decoded.reference or "",
        bill_number=decoded.bill_number or "",
        expires_us=decoded.expires_us,
        created_us=created_us,
        tip=decoded.tip or "none",
        tip_minor=decoded.tip_minor if decoded.tip == FIXED else None,
        tip_basis_points=decoded.tip_basis_points,
        dynamic=decoded.initiation == "dynamic",
    )


@pytest.mark.parametrize("scheme", sorted(ACCOUNTS))
@given(data=st.data())
def test_building_what_was_read_of_what_was_built_is_the_same_code(scheme: str, data: st.DataObject) -> None:
    accounts, participants = ACCOUNTS[scheme]
    profile = PROFILES[scheme]
    currency = data.draw(st.sampled_from(sorted(profile.currencies))) if profile.currencies else NUMBER_OF["CNY"]
    alpha = next(name for name, number in NUMBER_OF.items() if number == currency)
    created_us = 1_800_000_000_000_000
    tip = data.draw(st.sampled_from(["none", "asked", "fixed", "percent"]))
    code = MerchantCode(
        account=data.draw(accounts),
        participant=data.draw(participants),
        terminal_id="0005" if scheme in {"lankaqr", "mmqr"} else data.draw(st.sampled_from(["", "T1"])),
        merchant_name=data.draw(st.sampled_from(["Shop", "Noodle House"])),
        merchant_city="Old Town",
        country=data.draw(st.sampled_from(sorted(profile.countries))) if profile.countries else "CN",
        currency=alpha,
        merchant_category="5812",
        amount_minor=data.draw(st.none() | st.integers(1, 10**8)),
        reference=data.draw(st.from_regex(r"[A-Z0-9]{1,12}", fullmatch=True)),
        bill_number=data.draw(st.from_regex(r"([A-Z0-9]{1,12})?", fullmatch=True)),
        created_us=created_us,
        expires_us=data.draw(st.none() | st.integers(1, 10**6).map(lambda s: created_us + s * 1_000_000))
        if says_when_it_ends(scheme) else None,
        tip=tip,
        tip_minor=data.draw(st.integers(1, 10**6)) if tip == "fixed" else None,
        tip_basis_points=data.draw(st.integers(1, 9999)) if tip == "percent" else None,
    )  # fmt: skip
    built = build_merchant_code(code, scheme)
    decoded = decode(built)
    assert decoded.scheme == scheme
    assert decoded.routing is not None
    assert decoded.routing.account == code.account
    assert (decoded.amount_minor, decoded.currency) == (code.amount_minor, alpha)
    assert (decoded.tip, decoded.expires_us) == (tip, code.expires_us)
    assert decoded.reference == code.reference
    assert build_merchant_code(_again(decoded, decoded.routing, created_us), scheme) == built


def test_a_moment_that_a_scheme_has_no_place_for_is_refused() -> None:
    with pytest.raises(HutongError, match="do not say when they end"):
        build_merchant_code(MerchantCode("11222333000181", "Shop", "City", "BR", "BRL", expires_us=1), "pix")


@pytest.mark.parametrize("text", [text for _, text in CODES if decode(text).expires_us is not None])
def test_a_translation_ends_when_the_original_does(text: str) -> None:
    original = decode(text)
    if original.purpose not in PAYABLE_PURPOSES:
        with pytest.raises(HutongError, match="CODE_NOT_PAYABLE"):
            translate(text)
        return
    said = translate(text)
    again = decode(said.payload)
    assert original.expires_us is not None
    assert again.expires_us == original.expires_us // 1_000_000 * 1_000_000
    assert "time of expiry" not in {loss.name for loss in said.losses}


@pytest.mark.parametrize("form", ["calendar", "day_first", "epoch_s", "epoch_ms"])
@given(minutes=st.integers(28_000_000, 60_000_000), offset=st.sampled_from([0, 330, 480, -180]))
def test_moments_there_and_back(form: str, minutes: int, offset: int) -> None:
    moment = minutes * 60_000_000
    assert moment_us(written_moment(moment, form, offset), form, offset) == moment


# -- nothing that changed reads as before -------------------------------------------------------------------


def _said(text: str) -> tuple[str, str, int | None, str | None, int | None, int | None] | None:
    """Whom a payer would pay, and how much, by this text; None where nobody would be paid."""
    decoded = decode(text)
    verdict = decoded.profile or decoded.strict
    if decoded.routing is None or verdict is None or not verdict.valid:
        return None
    key = decoded.routing
    due = decoded.amount_due_minor
    return key.scheme, key.payee, decoded.amount_minor, decoded.currency, due, decoded.amount_least_minor


PAYABLE: Final = [(scheme, text) for scheme, text in CODES if text.startswith("0002") and _said(text) is not None]
SEALED: Final = [(scheme, text) for scheme, text in PAYABLE if "6304" in text]


@pytest.mark.parametrize(("scheme", "text"), SEALED, ids=[f"{name}-{n}" for n, (name, _) in enumerate(SEALED)])
def test_a_code_of_which_one_character_changed_is_refused_or_says_something_else(scheme: str, text: str) -> None:
    """Without a new checksum: a smudge, or a scanner's mistake."""
    for place in range(len(text) - 8):
        for other in "08AZ":
            if text[place] != other:
                assert _said(text[:place] + other + text[place + 1 :]) is None, (scheme, place, other)


@pytest.mark.parametrize(("scheme", "text"), PAYABLE, ids=[f"{name}-{n}" for n, (name, _) in enumerate(PAYABLE)])
def test_another_amount_currency_or_fee_is_never_read_as_the_old_one(scheme: str, text: str) -> None:
    """With a right checksum: whoever wrote it meant it."""
    before = _said(text)
    assert before is not None
    pairs, _ = split(text)
    for identifier, value in pairs:
        if identifier not in {"53", "54", "56", "57"}:
            continue
        for place, character in enumerate(value):
            for other in "0123456789":
                changed = value[:place] + other + value[place + 1 :]
                if character in {other, "."} or _same_number(identifier, changed, value, before[3]):
                    continue
                after = _said(seal([(i, changed if i == identifier else v) for i, v in pairs if i != "63"]))
                remote = scheme in {"pix", "trkarekod"} and before[2] is None and identifier == "54"
                assert after is None or after != before or remote, (scheme, identifier, value, changed)


def _same_number(identifier: str, one: str, other: str, currency: str | None) -> bool:
    if identifier == "53":
        return False
    exponent = EXPONENT_OF[currency or "XXX"] if identifier != "57" else 2
    return _scaled(one, exponent) == _scaled(other, exponent)


def _scaled(text: str, exponent: int) -> int:
    whole, _, decimals = text.partition(".")
    return int(whole + decimals[:exponent].ljust(exponent, "0"))


@pytest.mark.parametrize("amount", ["1", "2"])
def test_links_of_another_amount_or_payee_say_so(amount: str) -> None:
    one = _said(f"upi://pay?pa=shop@okbank&am={amount}.00")
    assert one != _said(f"upi://pay?pa=shop@okbank&am={amount}.01")
    assert one != _said(f"upi://pay?pa=shop2@okbank&am={amount}.00")
    assert one is not None


@given(st.integers(1, 10**9), st.integers(1, 10**9))
def test_a_checksum_in_10_guards_codes_between_persons(one: int, other: int) -> None:
    texts = []
    for minor in (one, other):
        amount = f"{minor // 100}.{minor % 100:02d}"
        body = f"0002020102120202000424PK36SCBL000000112345670205{len(amount):02d}{amount}1004"
        texts.append(body + crc(body))
    assert decode(texts[0]).amount_minor == one
    assert (_said(texts[0]) == _said(texts[1])) == (one == other)
    broken = texts[0][:-4] + texts[1][-4:]
    assert _said(broken) is None or texts[0][-4:] == texts[1][-4:]
