"""Payees' keys that are remembered, and those that must not be."""

from __future__ import annotations

import pytest

from gateway import barcode, keys
from gateway.barcode.profile import PROFILES
from gateway.barcode.tlv import crc
from gateway.directory import Directory, parse
from gateway.keys import Payee, Payees
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError

STICKER = PROFILES["promptpay"].examples[0]
ENDING = PROFILES["paynow"].examples[0]
ENDS_US = 1_924_963_200_000_000


@pytest.fixture
def directory() -> Directory:
    accounts = []
    for text in (STICKER, ENDING):
        routing = barcode.decode(text).routing
        assert routing is not None
        accounts.append({"scheme": routing.scheme, "account": routing.account})
    merchant = {
        "id": "m1",
        "name": "m1",
        "acquirers": [{"id": "acquirer-a"}],
        "terminals": ["t1"],
        "accounts": accounts,
    }
    return parse({"participants": [{"id": "acquirer-a", "role": "acquirer"}], "merchants": [merchant]})


class Asked:
    """Counts how often a key is really looked at."""

    def __init__(self, directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
        self.times = 0
        self.payees = Payees(directory)
        look = keys.payee

        def counted(key: pb.RoutingKey, directory: Directory, now_us: int) -> Payee:
            self.times += 1
            return look(key, directory, now_us)

        monkeypatch.setattr(keys, "payee", counted)

    def find(self, key: pb.RoutingKey, now_us: int = ENDS_US - 1) -> Payee:
        return self.payees.find(key, key.SerializeToString(), now_us)


@pytest.fixture
def asked(directory: Directory, monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(directory, monkeypatch)


def named(merchant: str, terminal: str = "") -> pb.RoutingKey:
    return pb.RoutingKey(merchant=pb.MerchantKey(merchant_id=merchant, terminal_id=terminal))


def test_what_leads_to_one_place_is_looked_at_once(asked: Asked) -> None:
    for key in (named("m1"), named("m1", "t1"), pb.RoutingKey(barcode=STICKER)):
        first, second = asked.find(key), asked.find(key)
        assert first is second
        assert first.merchant.id == "m1"
    assert asked.times == 3


def test_a_code_that_ends_is_looked_at_each_time(asked: Asked) -> None:
    key = pb.RoutingKey(barcode=ENDING)
    assert asked.find(key).merchant.id == "m1"
    with pytest.raises(HutongError) as refused:
        asked.find(key, ENDS_US)
    assert refused.value.name == "CODE_EXPIRED"
    assert asked.times == 2


def test_a_refusal_is_not_remembered(asked: Asked) -> None:
    for _ in range(2):
        with pytest.raises(HutongError):
            asked.find(named("m2"))
    assert asked.times == 2


def test_the_memory_is_bounded(asked: Asked, directory: Directory, monkeypatch: pytest.MonkeyPatch) -> None:
    asked.payees = Payees(directory, most=2)
    three = (named("m1"), named("m1", "t1"), pb.RoutingKey(barcode=STICKER))
    for key in three:
        asked.find(key)
    asked.find(three[2])
    assert asked.times == 3
    asked.find(three[0])  # forgotten
    assert asked.times == 4
    monkeypatch.setattr(keys, "PAYEE_BYTES_MAX", 1)
    for _ in range(2):
        asked.find(three[1])
    assert asked.times == 6


def test_a_credit_transfer_leads_to_the_merchant_whose_iban_it_names(directory: Directory) -> None:
    text = "BCD\n002\n1\nSCT\n\nMax Muster\nDE89370400440532013000\nEUR12.30\n\nRF18539007547034"
    with pytest.raises(HutongError) as refused:
        keys.payee(pb.RoutingKey(barcode=text), directory, 0)
    assert refused.value.name == "NO_ROUTE"
    merchant = {"id": "m1", "name": "m1", "acquirers": [{"id": "acquirer-a"}], "terminals": []}
    account = {"scheme": "iban", "account": "DE89370400440532013000"}
    participants = [{"id": "acquirer-a", "role": "acquirer"}]
    known = parse({"participants": participants, "merchants": [merchant | {"accounts": [account]}]})
    payee = keys.payee(pb.RoutingKey(barcode=text), known, 0)
    assert (payee.merchant.id, payee.amount_minor, payee.currency) == ("m1", 1230, "EUR")
    assert payee.reference == "RF18539007547034"
    assert payee.order == b"", "the same slip may be paid again"
    for wrong, name in ((text.replace("DE89", "DE98"), "BARCODE_MALFORMED"), (text[:40], "BARCODE_MALFORMED")):
        with pytest.raises(HutongError) as refused:
            keys.payee(pb.RoutingKey(barcode=wrong), known, 0)
        assert refused.value.name == name


LABEL = (
    "000201010211153137910524005204460000000NBQM:29226430014fonepay.com.np0104NBQM0203292060613676952045411530352458"
    "02NP5909TEST SHOP6008District620707032926304"
)
FONEPAY = ("fonepay", "NBQM:292:136769")
UNIONPAY = ("unionpay", "3791052400520446:0000000NBQM%3A292")


def label_directory(*accounts: tuple[str, tuple[str, str]]) -> Directory:
    merchants = [
        {
            "id": merchant, "name": merchant, "acquirers": [{"id": "acquirer-a"}],
            "accounts": [{"scheme": scheme, "account": account}],
        }
        for merchant, (scheme, account) in accounts
    ]  # fmt: skip
    return parse({"participants": [{"id": "acquirer-a", "role": "acquirer"}], "merchants": merchants})


@pytest.mark.parametrize(
    ("accounts", "expected"),
    [
        ([("m1", FONEPAY), ("m2", UNIONPAY)], "m1"),
        ([("m2", UNIONPAY)], "m2"),
        ([("m3", ("unionpay", "0000000NBQM:292"))], None),
    ],
)
def test_a_label_of_two_schemes_leads_to_whom_the_better_names_else_to_whom_the_other_does(
    accounts: list[tuple[str, tuple[str, str]]], expected: str | None
) -> None:
    text = LABEL + crc(LABEL)
    found = [candidate.routing.payee for candidate in barcode.decode(text).candidates if candidate.routing is not None]
    assert found == [FONEPAY[1], UNIONPAY[1]]
    directory, key = label_directory(*accounts), pb.RoutingKey(barcode=text)
    if expected is None:
        with pytest.raises(HutongError) as refused:
            keys.payee(key, directory, 0)
        assert refused.value.name in {"NO_ROUTE", "MERCHANT_UNKNOWN"}
    else:
        assert keys.payee(key, directory, 0).merchant.id == expected


# -- orders ------------------------------------------------------------------------------------------------------------


def order_in(directory: Directory, **fields: object) -> bytes:
    code = barcode.MerchantCode("m1", "Shop", "City", **fields)  # type: ignore[arg-type]
    return keys.payee(pb.RoutingKey(barcode=barcode.build_merchant_code(code)), directory, 0).order


def test_a_dynamic_code_with_a_reference_names_an_order_and_no_other_code_does() -> None:
    directory = parse(
        {
            "participants": [{"id": "acquirer-a", "role": "acquirer"}],
            "merchants": [
                {
                    "id": name,
                    "name": name,
                    "acquirers": [{"id": "acquirer-a"}],
                    "accounts": [{"scheme": "hutong", "account": name}],
                }
                for name in ("m1", "m2")
            ],
        }
    )
    order = order_in(directory, amount_minor=100, reference="A-7")
    assert len(order) == 16
    assert order_in(directory, amount_minor=200, reference="A-7") == order, "an order is the same whatever the amount"
    assert order_in(directory, amount_minor=100, reference="A-8") != order
    assert keys.order_value("m2", "A-7") != order, "other merchants have orders of their own"
    assert keys.order_value("m1", "A-7") == order
    assert not order_in(directory, amount_minor=100), "no reference"
    assert not order_in(directory, amount_minor=100, reference=barcode.ASKED_FOR), "a reference to be filled in"
    assert not order_in(directory, reference="A-7"), "static, without an amount"
    assert not order_in(directory, amount_minor=100, reference="A-7", dynamic=False), "static, with an amount"
    assert not keys.payee(pb.RoutingKey(merchant=pb.MerchantKey(merchant_id="m1")), directory, 0).order
