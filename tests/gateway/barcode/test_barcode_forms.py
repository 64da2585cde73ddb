"""Bills and credit transfers: read by their tables, written again, and never another payee or amount."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.barcode import PAYABLE, Decoded, bysquare, decode, messages, translate
from gateway.barcode.build import MerchantCode, build_merchant_code
from gateway.barcode.form_write import rewrite
from gateway.barcode.forms import FORMS, compile_form
from gateway.barcode.profile import PROFILES
from gateway.barcode.routing import EMPTY
from gateway.directory import parse as parse_directory
from hutong.gateway.v1 import barcode_pb2 as pb
from hutong_contract.errors import HutongError

VECTORS: Final = Path(__file__).parents[2] / "vectors" / "barcode"
CODES: Final = [
    (name, case["payload"])
    for name in sorted(FORMS)
    for case in json.loads((VECTORS / f"{name}.json").read_text())["valid"]
]
NAMES: Final = [f"{name}-{n}" for n, (name, _) in enumerate(CODES)]


def _meaning(decoded: Decoded) -> tuple[Any, ...]:
    return (
        decoded.scheme, decoded.routing, decoded.amount_minor, decoded.currency, decoded.merchant_name,
        decoded.reference, decoded.bill_number, decoded.purpose, decoded.form,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "text"), CODES, ids=NAMES)
def test_a_form_is_written_again_from_its_fields(name: str, text: str) -> None:
    decoded = decode(text)
    assert decoded.form is not None
    again = rewrite(name, decoded.form)
    after = decode(again)
    fields = {key: value for key, value in decoded.form.items() if not key.startswith("tag.")}
    assert after.form is not None
    assert after.form == fields
    assert rewrite(name, after.form) == again
    assert (after.routing, after.amount_minor, after.currency) == (
        decoded.routing,
        decoded.amount_minor,
        decoded.currency,
    )


@pytest.mark.parametrize("name", sorted(FORMS))
def test_a_form_is_both_rules_examples(name: str) -> None:
    for text in FORMS[name].examples:
        decoded = decode(text)
        assert decoded.strict is not None
        assert decoded.strict.valid, decoded.strict.violations
        assert decoded.kind == FORMS[name].kind
        assert decoded.purpose in PAYABLE


@pytest.mark.parametrize(("name", "text"), CODES, ids=NAMES)
def test_a_changed_payee_amount_or_currency_is_never_read_as_before(name: str, text: str) -> None:
    """One sign of every field that says whom, how much or in what is replaced, at each place."""
    before = decode(text)
    assert before.form is not None
    assert before.routing is not None
    form = FORMS[name]
    if form.layout == "packed":
        return  # Its fields are under a checksum; a test below changes it as a whole.
    payee = {"account", *form.payee}
    tried = 0
    for field in form.fields:
        value = before.form.get(field.name, "")
        counts = field.role in {"amount", "currency"} or field.role in payee
        if not value or not counts or text.count(value) != 1:
            continue
        for place, sign in enumerate(value):
            others = "0123456789" if sign.isdigit() else "ABEKZ" if sign.isupper() else ""
            for other in others:
                if other == sign:
                    continue
                after = decode(text.replace(value, value[:place] + other + value[place + 1 :]))
                tried += 1
                if after.profile is None or not after.profile.valid or after.routing is None:
                    continue  # Refused, so nobody is paid.
                same = (
                    after.routing.payee == before.routing.payee
                    and after.routing.participant == before.routing.participant
                    and after.amount_minor == before.amount_minor
                    and after.currency == before.currency
                )
                assert not same, f"{field.name}: {value} and {after.form}"
    assert tried


@pytest.mark.parametrize(("name", "text"), CODES, ids=NAMES)
def test_what_is_cut_off_is_never_read_as_the_whole(name: str, text: str) -> None:
    whole = _meaning(decode(text))
    for end in range(len(text.rstrip())):
        part = decode(text[:end])
        if part.profile is not None and part.profile.valid and part.kind in {"bill", "credit_transfer"}:
            assert part.routing is not None
            fewer = part.form is not None and len(part.form) <= len(whole[-1])
            assert fewer, text[:end]
            # An optional field at the end may be lost or shortened; whom and what is paid may not change silently,
            # unless the amount itself was what the text ended with.
            if part.amount_minor is not None and part.amount_minor != whole[2]:
                assert FORMS[name].layout == "tags" or text[:end][-1].isdigit()


ACCOUNTS: Final[dict[str, st.SearchStrategy[dict[str, str]]]] = {
    "epc": st.sampled_from(
        [
            {"account": "DE89370400440532013000"},
            {"account": "BE72000000001616", "participant": "BPOTBEB1", "reference": "RF18539007547034"},
            {"account": "AT611904300234573201", "reference": "RE-2026-0815"},
        ]
    ),
    "swiss_qr": st.sampled_from(
        [
            {"account": "CH4431999123000889012", "reference": "210000000003139471430009017"},
            {"account": "CH5800791123000889012", "reference": "RF18539007547034"},
            {"account": "CH5800791123000889012", "reference": "Rent of May"},
            {"account": "LI21088100002324013AA"},
        ]
    ),
    "thai_bill_barcode": st.fixed_dictionaries(
        {
            "account": st.text("0123456789", min_size=15, max_size=15),
            "reference": st.from_regex("[A-Z0-9]{1,20}", fullmatch=True),
            "bill_number": st.from_regex("([A-Z0-9]{1,20})?", fullmatch=True),
        }
    ),
    "st00012": st.sampled_from(
        [
            {"account": "40702810138250123017", "participant": "044525225", "reference": "Счёт 7"},
            {"account": "40702810455000024248", "participant": "044030653", "bill_number": "123456"},
        ]
    ),
    "hub3": st.sampled_from(
        [
            {"account": "HR1210010051863000160", "reference": "7269-68949637676-00019"},
            {"account": "HR1210010051863000160"},
        ]
    ),
    "ips_rs": st.sampled_from(
        [
            {"account": "RS35845000000040484987", "reference": "97163220000111111111000"},
            {"account": "RS35840000074332484318", "reference": "RATA 7"},
        ]
    ),
    "pay_by_square": st.sampled_from(
        [
            {"account": "SK3112000000198742637541", "reference": "1234567890", "bill_number": "INV-7"},
            {"account": "SK3112000000198742637541", "participant": "FIOZSKBAXXX", "reference": "Lunch"},
        ]
    ),
    "spayd": st.sampled_from(
        [
            {"account": "CZ2806000000000168540115", "reference": "1234567890"},
            {"account": "CZ6508000000192000145399", "reference": "DAR*50%"},
        ]
    ),
    "swish": st.fixed_dictionaries(
        {
            "account": st.text("0123456789", min_size=10, max_size=10),
            "reference": st.sampled_from(["", "Kaffe; och bulle 50%"]),
        }
    ),
    "twqr_purchase": st.from_regex("00,[0-9]{26}(;01,[0-9]{26})?", fullmatch=True).map(
        lambda account: {"account": account, "reference": "000123"}
    ),
    "upnqr": st.sampled_from(
        [
            {"account": "SI56020170014356205", "reference": "SI121234567890120"},
            {"account": "SI56020170014356205", "reference": "RF45SBO2010"},
            {"account": "SI56020170014356205", "reference": "Najemnina"},
        ]
    ),
    "zbp": st.sampled_from([{"account": "PL61109010140000071219812874", "reference": "Faktura 7"}]),
    "twqr": st.fixed_dictionaries(
        {
            "account": st.text("0123456789", min_size=16, max_size=16),
            "participant": st.text("0123456789", min_size=3, max_size=3),
            "reference": st.sampled_from(["", "Lunch", "a&b=c%"]),
        }
    ),
}
"""For each format: what names payees, with references that it has a place for."""


def test_every_format_goes_there_and_back() -> None:
    assert set(ACCOUNTS) == set(FORMS)


@pytest.mark.parametrize("name", sorted(ACCOUNTS))
@given(data=st.data())
def test_building_what_was_read_of_what_was_built_is_the_same_text(name: str, data: st.DataObject) -> None:
    form = FORMS[name]
    said = data.draw(ACCOUNTS[name])
    code = MerchantCode(
        account=said["account"],
        participant=said.get("participant", ""),
        reference=said.get("reference", ""),
        bill_number=said.get("bill_number", ""),
        merchant_name=data.draw(st.sampled_from(["Max Muster", "Čigra d.o.o."])),
        merchant_city="Old Town",
        postal_code="8000",
        country="CH" if name == "swiss_qr" else form.country or "DE",
        currency=data.draw(st.sampled_from(sorted(form.currencies))),
        amount_minor=data.draw(st.none() | st.integers(1, 999_999)),
    )
    text = build_merchant_code(code, name)
    decoded = decode(text)
    assert decoded.routing is not None
    assert decoded.amount_minor == code.amount_minor
    assert decoded.routing.account.endswith(code.account)
    fields = {field.role for field in form.fields}
    again = MerchantCode(
        account=decoded.routing.account,
        participant=code.participant and decoded.routing.participant,
        merchant_name=decoded.merchant_name or "",
        merchant_city=decoded.merchant_city or "",
        postal_code=(decoded.form or {}).get("postal_code", "") if "postal_code" in fields else "",
        country=decoded.country or "",
        currency=decoded.currency or "",
        amount_minor=decoded.amount_minor,
        reference=decoded.reference or "",
        bill_number=decoded.bill_number or "",
    )
    assert build_merchant_code(again, name) == text


@pytest.mark.parametrize("text", [text for _, text in CODES], ids=NAMES)
def test_a_form_goes_into_the_gateways_own_encoding(text: str) -> None:
    decoded = decode(text)
    translation = translate(text)
    assert decoded.routing is not None
    assert (translation.routing.scheme, translation.routing.payee) == (decoded.routing.scheme, decoded.routing.payee)
    after = decode(translation.payload)
    assert (after.amount_minor, after.currency) == (decoded.amount_minor, decoded.currency)


def test_formats_of_one_account_space_translate_into_each_other() -> None:
    text = "BCD\n002\n1\nSCT\n\nMax Muster\nLI21088100002324013AA\nEUR12.30\n\nRF18539007547034"
    with pytest.raises(HutongError) as refused:
        translate(text, "thai_bill_barcode")  # Accounts of another kind.
    assert refused.value.fields["field"] == "account"
    bill = "|010753700088205\rREF1\r\r5000"
    emv = translate(bill, "thai_bill")
    after = decode(emv.payload)
    assert after.routing is not None
    assert (after.scheme, after.routing.payee, after.amount_minor) == ("thai_bill", "010753700088205:REF1", 5000)
    back = translate(emv.payload, "thai_bill_barcode")
    assert decode(back.payload).routing == decode(bill).routing


def test_an_iban_goes_from_one_format_into_another_with_its_reference() -> None:
    name = "A payee whose name is longer than twenty-five signs"
    text = f"BCD\n002\n1\nSCT\n\n{name}\nCZ2806000000000168540115\nEUR12.30\n\n\nRE-7"
    before = decode(text)
    for target in ("spayd", "pay_by_square"):
        translation = translate(text, target)
        after = decode(translation.payload)
        assert after.routing is not None
        assert before.routing is not None
        assert (after.scheme, after.routing.payee, after.amount_minor) == (target, before.routing.payee, 1230)
        assert after.reference == "RE-7"
        assert translation.losses == ()
        back = decode(translate(translation.payload, "epc").payload)
        assert (back.routing, back.reference) == (before.routing, "RE-7")
        if target == "pay_by_square":
            assert after.merchant_name == name
    for target in ("swiss_qr", "upnqr", "hub3", "zbp", "ips_rs"):
        with pytest.raises(HutongError) as refused:
            translate(text, target)
        assert refused.value.name == "FIELD_INVALID"


@pytest.mark.parametrize("text", [text for name, text in CODES if name == "pay_by_square"])
def test_a_packed_form_of_which_a_sign_changed_is_refused_or_says_the_same(text: str) -> None:
    before = _meaning(decode(text))
    for place in range(len(text)):
        for other in "0AV":
            changed = text[:place] + other + text[place + 1 :]
            after = decode(changed)
            if after.profile is not None and after.profile.valid and after.kind == "credit_transfer":
                assert _meaning(after) == before, (place, other)


def test_what_claims_to_unpack_into_much_is_not_unpacked() -> None:
    packed = bysquare.pack({"iban": "SK3112000000198742637541", "note": "A" * (2 * bysquare.UNPACKED_MAX)})
    assert decode(packed).kind == "unknown"
    assert bysquare.unpack(packed) is None


def test_one_iban_of_the_directory_is_found_by_every_format() -> None:
    merchant = {
        "id": "m1", "name": "M", "city": "C", "country": "DE", "mcc": "5812", "currency": "EUR", "terminals": [],
        "accounts": [{"scheme": "iban", "account": "DE89370400440532013000"}],
        "acquirers": [{"id": "acquirer-a", "cost_bp": 25, "weight": 10}],
    }  # fmt: skip
    participant = {"id": "acquirer-a", "role": "acquirer", "name": "A", "currencies": []}
    directory = parse_directory({"participants": [participant], "merchants": [merchant]})
    found = directory.merchant("iban", "DE89370400440532013000")
    assert found is not None
    text = translate("BCD\n002\n1\nSCT\n\nMax\nDE89370400440532013000\nEUR12.30", directory=directory).payload
    routing = decode(text).routing
    assert routing is not None
    assert (routing.scheme, routing.account) == ("hutong", "m1")
    assert directory.account_of("m1", "iban") == "DE89370400440532013000"


@pytest.mark.parametrize("sign", ["\x07", "\u202e", "\x1f"])
def test_names_with_signs_that_nobody_sees_are_refused(sign: str) -> None:
    for text in (
        f"BCD\n002\n1\nSCT\n\nMax{sign}Muster\nDE89370400440532013000\nEUR12.30",
        f"SPD*1.0*ACC:CZ2806000000000168540115*CC:CZK*RN:Max{sign}Muster",
        bysquare.pack({"options": "1", "currency": "EUR", "iban": "SK3112000000198742637541", "merchant_name": sign}),
    ):
        decoded = decode(text)
        assert decoded.profile is not None
        assert {violation.rule for violation in decoded.profile.violations} == {"control_character"}


@pytest.mark.parametrize("fault", ['layout = "tables"', 'kind = "coin"', 'currency = "XXZ"'])
def test_a_wrong_table_is_refused_when_it_is_read(fault: str) -> None:
    table = {"name": '"x"', "title": '"X"', "source": '"s"', "kind": '"bill"', "head": '"X"', "layout": '"lines"'}
    name, _, value = fault.partition(" = ")
    text = "\n".join(f"{key} = {entry}" for key, entry in (table | {name: value}).items())
    with pytest.raises((KeyError, ValueError)):
        compile_form(text + '\n[[field]]\nname = "a"\nplace = 0')


@pytest.mark.parametrize(("name", "text"), CODES, ids=NAMES)
def test_the_contract_has_their_kinds(name: str, text: str) -> None:
    message = messages.barcode(decode(text), EMPTY)
    assert (
        message.kind
        == {
            "bill": pb.BARCODE_KIND_BILL,
            "credit_transfer": pb.BARCODE_KIND_CREDIT_TRANSFER,
        }[FORMS[name].kind]
    )
    assert message.route.account
    assert message.strict.valid or message.strict.violations


def test_names_of_formats_and_schemes_differ() -> None:
    assert not set(FORMS) & set(PROFILES)
