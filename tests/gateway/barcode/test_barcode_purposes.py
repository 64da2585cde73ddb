"""What a code asks for: only what a payment fulfils is paid, and nothing makes a payment of the rest."""

from __future__ import annotations

import pytest

from gateway import keys
from gateway.barcode import PAYABLE, PURPOSES, decode, translate
from gateway.barcode.model import Pair
from gateway.barcode.profile import compile_profile
from gateway.barcode.tlv import join, seal
from gateway.directory import parse as parse_directory
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError


def code(template: str, fields: list[Pair], country: str, currency: str, *more: Pair) -> str:
    objects = [("00", "01"), ("01", "11"), (template, join(fields)), ("52", "5812"), ("53", currency), ("58", country)]
    return seal([*objects, ("59", "Shop"), ("60", "City"), *more])


def qris(purpose: str, criteria: str = "UMI") -> str:
    fields = [("00", "ID.DANA.WWW"), ("01", "936009153022591481"), ("02", "022591481"), ("03", criteria)]
    return code("26", fields, "ID", "360", ("62", join([("07", "A01"), ("08", purpose)])))


BANK_ACCOUNT = "0006970407" + "01079796868"
RECURRENCE = ("80", join([("00", "br.gov.bcb.pix"), ("25", "a.example/r/1")]))
PIX = ("br.gov.bcb.pix", "11222333000181")
CASES = {
    "upi payment": ("upi://pay?pa=shop@okbank&am=1.00", "payment"),
    "upi mandate": ("upi://mandate?pa=shop@okbank&am=199.00&amrule=MAX", "mandate"),
    "upi mandate in capitals": ("UPI://MANDATE?PA=SHOP@OKBANK&AM=199.00", "mandate"),
    "upi standing instruction": ("upi://pay?pa=shop@okbank&purpose=14", "mandate"),
    "upi cash machine": ("upi://pay?pa=cash@okbank&purpose=13&am=500", "withdrawal"),
    "upi bill": ("upi://pay?pa=power@okbank&purpose=10&am=500", "bill"),
    "qris payment": (qris("coffee"), "payment"),
    "qris withdrawal": (qris("CWDL"), "withdrawal"),
    "qris deposit": (qris("CDPT"), "deposit"),
    "qris transfer": (qris("DMCT"), "transfer"),
    "qris transfer template": (
        code("40", [("00", "ID.CO.QRIS.WWW"), ("01", "936000140123456789"), ("02", "0123456789")], "ID", "360"),
        "transfer",
    ),
    "qris donation": (qris("charity", "DON"), "donation"),
    "pix": (code("26", [("00", PIX[0]), ("01", PIX[1])], "BR", "986", ("62", "0503***")), "payment"),
    "pix cash": (
        code("26", [("00", PIX[0]), ("01", PIX[1]), ("03", "12345678")], "BR", "986", ("62", "0503***")), "withdrawal",
    ),
    "pix recurrence alone": (
        code("26", [("00", PIX[0])], "BR", "986", ("62", "0503***"), RECURRENCE),
        "mandate",
    ),
    "pix payment with a recurrence": (
        code("26", [("00", PIX[0]), ("01", PIX[1])], "BR", "986", ("62", "0503***"),
             RECURRENCE),
        "payment",
    ),
    "promptpay": (code("29", [("00", "A000000677010111"), ("01", "0066812345678")], "TH", "764"), "transfer"),
    "thai bill": (
        code("30", [("00", "A000000677010112"), ("01", "010753700088205"), ("02", "REF1")], "TH", "764"), "bill",
    ),
    "thai acquirer": (code("31", [("00", "A000000677010113"), ("01", "004"), ("04", "TX1")], "TH", "764"), "payment"),
    "vietqr account": (
        code("38", [("00", "A000000727"), ("01", BANK_ACCOUNT), ("02", "QRIBFTTA")], "VN", "704"),
        "transfer",
    ),
    "vietqr cash": (
        code("38", [("00", "A000000727"), ("01", BANK_ACCOUNT), ("02", "QRCASH")], "VN", "704"), "withdrawal",
    ),
    "qr ph person": (
        code("27", [("00", "com.p2pqrpay"), ("01", "BNORPHMMXXX"), ("02", "99964403"), ("04", "526727")], "PH", "608"),
        "transfer",
    ),
    "paynow mobile": (code("26", [("00", "SG.PAYNOW"), ("01", "0"), ("02", "+6591234567")], "SG", "702"), "transfer"),
    "paynow company": (code("26", [("00", "SG.PAYNOW"), ("01", "2"), ("02", "201403121W")], "SG", "702"), "payment"),
    "wechat": ("weixin://wxpay/bizpayurl?pr=NwY5Mz9", "payment"),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_each_scheme_says_what_its_codes_ask_for(name: str) -> None:
    text, purpose = CASES[name]
    decoded = decode(text)
    assert decoded.profile is not None
    assert decoded.profile.valid, decoded.profile.violations
    assert decoded.purpose == purpose
    assert decoded.candidates[0].purpose == purpose


@pytest.mark.parametrize("text", ["6612345678901234567", "hello", "hQVDUFYwMWFJTwegAAAGAiAgUAdRUklTQ1BN"])
def test_payers_codes_and_unknown_texts_ask_for_nothing(text: str) -> None:
    assert decode(text).purpose is None


@pytest.mark.parametrize("name", CASES)
def test_only_what_a_payment_fulfils_is_paid(name: str) -> None:
    text, purpose = CASES[name]
    routing = decode(text).routing
    assert routing is not None
    merchant = {
        "id": "m1", "name": "m1", "acquirers": [{"id": "a"}],
        "accounts": [{"scheme": routing.scheme, "account": routing.payee}],
    }  # fmt: skip
    directory = parse_directory({"participants": [{"id": "a", "role": "acquirer"}], "merchants": [merchant]})
    if purpose in PAYABLE:
        assert keys.payee(pb.RoutingKey(barcode=text), directory, 0).merchant.id == "m1"
        return
    with pytest.raises(HutongError) as refused:
        keys.payee(pb.RoutingKey(barcode=text), directory, 0)
    assert refused.value.name == "CODE_NOT_PAYABLE"
    assert purpose in str(refused.value)
    with pytest.raises(HutongError, match="CODE_NOT_PAYABLE"):
        translate(text)


def test_a_mandates_amount_is_no_amount_to_pay() -> None:
    decoded = decode("upi://mandate?pa=shop@okbank&am=199.00&amrule=MAX")
    assert (decoded.amount_minor, decoded.amount_least_minor) == (None, None)


def test_a_profile_cannot_name_a_purpose_that_is_none() -> None:
    assert PAYABLE < PURPOSES
    with pytest.raises(ValueError, match="purpose gift"):
        compile_profile('name = "x"\ntitle = "X"\nsource = "s"\npurpose = "gift"')


def test_a_national_template_comes_before_a_network_and_both_say_why() -> None:
    fields = [("00", "fonepay.com.np"), ("01", "NBQM"), ("02", "292"), ("06", "136769")]
    text = code("26", fields, "NP", "524", ("15", "37910524005204460000000NBQM:292"))
    decoded = decode(text)
    assert [(c.scheme, c.reason) for c in decoded.candidates] == [
        ("fonepay", "26/00 is fonepay.com.np"), ("unionpay", "15 is the network's account"),
    ]  # fmt: skip
    assert decoded.routing is not None
    assert decoded.routing.scheme == "fonepay"


@pytest.mark.parametrize("value", ["**999166**999166****M0000000000", "9999000000000000"])
def test_what_is_no_account_of_a_network_beside_a_national_template_is_no_candidate(value: str) -> None:
    fields = [("00", "NCHL00010001O000012181"), ("01", "X")]
    decoded = decode(code("29", fields, "NP", "524", ("15", value)))
    assert [candidate.scheme for candidate in decoded.candidates] == ["nepalpay"]


def test_a_masked_number_in_a_networks_object_is_nobodys() -> None:
    guid = ("26", join([("00", "NG.COM.NIBSSPLC.QR"), ("01", "S0000000000")]))
    objects = [("00", "01"), ("01", "11"), ("15", "**999166**999166****M0000000000"), guid, ("52", "0000"),
               ("53", "566"), ("58", "XX"), ("59", "Shop"), ("60", "Lagos")]  # fmt: skip
    assert "unionpay" not in {candidate.scheme for candidate in decode(seal(objects)).candidates}
