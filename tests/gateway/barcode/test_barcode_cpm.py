"""EMV consumer codes: EMVCo's own examples field by field, byte-exact round trips, every rule, every kind of damage."""

from __future__ import annotations

import base64
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.barcode import ber, cpm, decode
from gateway.barcode.ber import Item
from gateway.barcode.build import ConsumerCode, build_consumer_code
from hutong_contract.errors import HutongError
from hutong_contract.secret import Secret

# EMVCo QR Code Specification for Payment Systems, Consumer-Presented Mode v1.1, annex A.
ONE_APPLICATION: Final = "hQVDUFYwMWEaTwegAAAAVVVVVw8SNFZ4kBI0WNGRIgESNF8="
TWO_APPLICATIONS: Final = (
    "hQVDUFYwMWETTwegAAAAVVVVUAhQcm9kdWN0MWETTwegAAAAZmZmUAhQcm9kdWN0MmJJWggSNFZ4kBI0WF8gDkNBUkRIT0xERVIvRU1WXy0I"
    "cnVlc2RlZW5kIZ8QBwYBCgMAAACfJghYT9OF+iNLzJ82AgABnzcEbVjvEw=="
)
# Codes of wallets in public integrations: UnionPay and QRIS.
UNIONPAY: Final = (
    "hQVDUFYwMWFYTwigAAADMwEBAVcTYpJhA1hEQzVkHSIQIBAAABiAH180AQBjM58mCFaLEtnaC9l/nycBgJ8QEQcAAQOgAAABCDM5OTk5OTk5nzYC"
    "AAGCAgAAnzcE6gZYyA=="
)
QRIS: Final = (
    "hQVDUFYwMWFcTwegAAAGAiAgUAdRUklTQ1BNWgqTYAACISAJl0KPXyAOcml6a2EgcmFtYWRoYW5fLQRpZGVuX1AVYWRob24ucml6a3lAZ21haWwu"
    "Y29tnyUCl0JjB590BGFlNjE="
)
AID = Item("4F", bytes.fromhex("A0000000555555"))
PAN = Item("5A", bytes.fromhex("1234567890123458"))


def armour(*items: Item) -> str:
    return base64.b64encode(ber.join([Item("85", b"CPV01"), *items])).decode()


def application(*items: Item) -> Item:
    return Item("61", ber.join(items))


def rules(text: str) -> set[tuple[str, str]]:
    return {(violation.path, violation.rule) for violation in cpm.parse(text)[1]}


def test_published_example_with_one_application() -> None:
    payload, violations = cpm.parse(ONE_APPLICATION)
    assert violations == []
    assert payload.applications == (
        {"4F": bytes.fromhex("A0000000555555"), "57": bytes.fromhex("1234567890123458D191220112345F")},
    )
    assert payload.common is None
    assert payload.text() == ONE_APPLICATION


def test_published_example_with_two_applications() -> None:
    payload, violations = cpm.parse(TWO_APPLICATIONS)
    assert violations == []
    assert payload.applications == (
        {"4F": bytes.fromhex("A0000000555555"), "50": b"Product1"},
        {"4F": bytes.fromhex("A0000000666666"), "50": b"Product2"},
    )
    assert payload.common is not None
    assert payload.common["5A"] == bytes.fromhex("1234567890123458")
    assert payload.common["5F20"] == b"CARDHOLDER/EMV"
    assert payload.common["5F2D"] == b"ruesdeen"
    assert payload.find_inside("64", "9F10") == bytes.fromhex("06010A03000000")
    assert payload.find_inside("64", "9F26") == bytes.fromhex("584FD385FA234BCC")
    assert payload.find_inside("64", "9F36") == bytes.fromhex("0001")
    assert payload.find_inside("64", "9F37") == bytes.fromhex("6D58EF13")
    assert payload.text() == TWO_APPLICATIONS


@pytest.mark.parametrize(("text", "scheme"), [(UNIONPAY, "unionpay"), (QRIS, "qris")])
def test_wallets_codes_are_recognised_and_masked(text: str, scheme: str) -> None:
    decoded = decode(text)
    assert (decoded.kind, decoded.scheme) == ("emv_cpm", scheme)
    assert decoded.profile is not None
    assert decoded.profile.valid
    assert decoded.credential is not None
    assert decoded.credential.value.reveal() not in repr(decoded)
    assert decoded.routing is not None
    assert len(decoded.routing.account) == 8, "a BIN, and no more"


@pytest.mark.parametrize(
    ("text", "path", "rule"),
    [
        (armour(), "61", "missing"),
        (armour(*[application(AID, PAN)] * 3), "61", "too_many"),
        (armour(application(PAN)), "61/4F", "missing"),
        (armour(application(AID)), "61/57", "missing"),
        (armour(application(Item("4F", b"abcd"), PAN)), "61/4F", "length"),
        (armour(application(Item("4F", b"a" * 17), PAN)), "61/4F", "length"),
        (armour(application(AID, Item("5A", b"1" * 11))), "61/5A", "length"),
        (armour(application(AID, Item("5A", b"\x12\xf3"))), "61/5A", "format"),
        (armour(application(AID, Item("57", b"1" * 20))), "61/57", "length"),
        (armour(application(AID, PAN, Item("5F20", b"x"))), "61/5F20", "length"),
        (armour(application(AID, PAN, Item("5F2D", b"deenfrites"))), "61/5F2D", "length"),
        (armour(application(AID, PAN, Item("5F2D", b"d!"))), "61/5F2D", "format"),
        (armour(application(AID, PAN, Item("9F08", b"x"))), "61/9F08", "length"),
        (armour(application(AID, PAN, Item("9F19", b"\xaa" * 6))), "61/9F19", "format"),
        (armour(application(AID, PAN, Item("9F24", b"A" * 28))), "61/9F24", "length"),
        (armour(application(AID, PAN, Item("9F25", b"\x12"))), "61/9F25", "length"),
        (armour(application(AID, PAN, AID)), "61/4F", "duplicate"),
        (armour(application(AID, PAN, Item("64", b""))), "61/64", "not_allowed"),
        (armour(application(AID), Item("62", ber.join([PAN]))), "62", "not_allowed"),
        (armour(application(AID, PAN), application(AID), Item("62", ber.join([PAN]))), "62/5A", "also_in_61"),
        (armour(application(AID), application(AID), Item("62", ber.join([AID, PAN]))), "62/4F", "not_allowed"),
        (armour(Item("70", b""), application(AID, PAN)), "", "order"),
        (armour(Item("85", b"CPV01"), application(AID, PAN)), "85", "duplicate"),
        (base64.b64encode(ber.join([Item("85", b"CPV02"), application(AID, PAN)])).decode(), "85", "value"),
        (base64.b64encode(b"\x85\x05CPV01\x61\x80\x00\x00").decode(), "61", "indefinite_length"),
        (base64.b64encode(b"\x85\x05CPV01\x61\x84\x00\x00\x00\x01x").decode(), "61", "length_too_long"),
        (base64.b64encode(b"\x85\x05CPV01\x61\x7fxx").decode(), "61", "truncated"),
        (base64.b64encode(b"\x85\x05CPV01\x61").decode(), "61", "truncated"),
        (base64.b64encode(b"\x85\x05CPV01\x61\x82\x01").decode(), "61", "truncated"),
        (base64.b64encode(b"\x85\x81\x05CPV01" + ber.join([application(AID)])).decode(), "85", "length_not_minimal"),
        (base64.b64encode(b"\x85\x05CPV01\x9f").decode(), "", "tag"),
        (ONE_APPLICATION.replace("=", ""), "", "base64_not_canonical"),
        (ONE_APPLICATION[:10] + "!" + ONE_APPLICATION[11:], "", "base64"),
        (ONE_APPLICATION[:-3], "", "base64"),
        ("hQVDUFY=====", "", "base64"),
    ],
)  # fmt: skip
def test_each_rule_is_checked_and_named(text: str, path: str, rule: str) -> None:
    assert (path, rule) in rules(text)


def test_unknown_tags_are_kept() -> None:
    text = armour(application(AID, PAN, Item("DF01", b"mine"), Item("9F8101", b"x")), Item("70", b"later"))
    payload, violations = cpm.parse(text)
    assert violations == []
    assert payload.applications[0]["DF01"] == b"mine"
    assert payload.text() == text


def test_five_hundred_and_twelve_bytes_are_read() -> None:
    filler = Item("63", b"\x00" * 450)
    payload, violations = cpm.parse(armour(application(AID, PAN, filler), Item("70", b"x" * 60)))
    assert violations == []
    assert payload.find("63") == b"\x00" * 450


_TAGS = st.sampled_from(["50", "5F50", "9F08", "DF01", "9F7F", "C1"])


@given(st.lists(st.tuples(_TAGS, st.binary(max_size=300)), max_size=6))
def test_any_objects_round_trip(pairs: list[tuple[str, bytes]]) -> None:
    items = [Item(tag, value) for tag, value in pairs]
    assert ber.split(ber.join(items)) == (items, None)
    text = armour(application(AID, PAN, *items))
    assert cpm.parse(text)[0].text() == text


@given(st.binary(max_size=120))
def test_any_bytes_get_a_typed_verdict(data: bytes) -> None:
    decoded = decode(base64.b64encode(b"\x85\x05CPV01" + data).decode())
    assert decoded.kind == "emv_cpm"
    assert decoded.strict is not None


def test_a_number_too_short_for_an_account_is_no_credential_and_is_not_shown() -> None:
    decoded = decode(armour(application(AID, Item("5A", bytes.fromhex("98765432")))))
    assert (decoded.credential, decoded.routing) == (None, None)
    assert "98765432" not in repr(decoded)


def test_a_wallet_writes_its_token_with_a_cryptogram() -> None:
    text = build_consumer_code(
        ConsumerCode(
            Secret("6212345678901234565"),
            cryptogram=b"\x01" * 8,
            counter=513,
            unpredictable_number=0xDEADBEEF,
            issuer_data=b"data",
            requestor_id="12345678901",
            account_reference="A" * 29,
            last_four="4321",
        )
    )
    decoded = decode(text)
    credential = decoded.credential
    assert decoded.strict is not None
    assert decoded.strict.valid
    assert credential is not None
    assert (decoded.scheme, credential.kind, credential.value.reveal()) == ("hutong", "token", "6212345678901234565")
    assert credential.cryptogram is not None
    assert credential.cryptogram.reveal() == b"\x01" * 8
    assert (credential.counter, credential.unpredictable_number) == (513, 0xDEADBEEF)
    assert (credential.requestor_id, credential.last_four) == ("12345678901", "4321")


def test_a_payment_code_travels_inside_a_consumer_code() -> None:
    credential = decode(build_consumer_code(ConsumerCode(Secret("6612345678901234567")))).credential
    assert credential is not None
    assert (credential.kind, credential.value.reveal()) == ("payment_code", "6612345678901234567")
    assert credential.lifetime_us == 60_000_000


@pytest.mark.parametrize("digits", ["123", "12345678901234567890", "12x45678", ""])
def test_a_value_that_does_not_fit_is_refused_without_being_shown(digits: str) -> None:
    with pytest.raises(HutongError) as refused:
        build_consumer_code(ConsumerCode(Secret(digits)))
    assert refused.value.name == "FIELD_INVALID"
