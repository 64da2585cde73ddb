"""Every scheme against vectors from its public documentation: recognised, judged, routed; wrong ones named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import pytest

from gateway.barcode import decode
from gateway.barcode.forms import FORMS as TABLES
from gateway.barcode.profile import PROFILES, compile_profile
from gateway.barcode.tlv import crc, join, seal

VECTORS: Final = Path(__file__).parents[2] / "vectors" / "barcode"
FILES: Final = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(VECTORS.glob("*.json"))}
VALID: Final = [(name, case) for name, data in FILES.items() for case in data["valid"]]
INVALID: Final = [(name, case) for name, data in FILES.items() for case in data["invalid"]]


def test_every_profile_has_vectors_that_state_their_source() -> None:
    assert set(PROFILES) | set(TABLES) <= set(FILES)
    for name, data in FILES.items():
        assert data["source"], name
        assert data["valid"], name


@pytest.mark.parametrize(("scheme", "case"), VALID, ids=[f"{name}-{n}" for n, (name, _) in enumerate(VALID)])
def test_valid_vectors(scheme: str, case: dict[str, Any]) -> None:
    decoded = decode(case["payload"])
    assert decoded.scheme == scheme
    assert decoded.profile is not None
    assert decoded.profile.valid, decoded.profile.violations
    assert (decoded.strict.valid if decoded.strict else None) == case["strict"]
    found = {f"{v.path}:{v.rule}" for v in decoded.strict.violations} if decoded.strict else set()
    assert found == set(case.get("strict_rules", ()))
    routing = decoded.routing
    fields = ("scheme", "kind", "account", "participant", "terminal_id", "payee")
    assert ({name: getattr(routing, name) for name in fields} if routing else None) == case["routing"]
    for name in set(case) - {"payload", "strict", "strict_rules", "routing"}:
        assert getattr(decoded, name) == case[name], name


@pytest.mark.parametrize(("scheme", "case"), INVALID, ids=[f"{name}-{n}" for n, (name, _) in enumerate(INVALID)])
def test_invalid_vectors(scheme: str, case: dict[str, Any]) -> None:
    decoded = decode(case["payload"])
    # A wrong code of a scheme is still one of that scheme, unless nothing of what marks it is left.
    assert decoded.scheme == case.get("scheme", scheme)
    assert decoded.profile is not None
    assert not decoded.profile.valid
    assert {f"{v.path}:{v.rule}" for v in decoded.profile.violations} == set(case["rules"]), case["origin"]


def test_a_label_of_several_schemes_gives_ranked_candidates() -> None:
    paynow = join([("00", "SG.PAYNOW"), ("01", "2"), ("02", "201403121W"), ("03", "1")])
    sgqr = join([("00", "SG.SGQR"), ("01", "1809052DD729")])
    objects = [("00", "01"), ("01", "11"), ("02", "4403847000746908"), ("26", paynow), ("51", sgqr), ("52", "5812")]
    decoded = decode(seal([*objects, ("53", "702"), ("58", "SG"), ("59", "Kopi"), ("60", "Singapore")]))
    assert [candidate.scheme for candidate in decoded.candidates] == ["paynow", "visa", "sgqr"]
    scores = [candidate.score for candidate in decoded.candidates]
    assert scores == sorted(scores, reverse=True)


def test_an_unknown_scheme_is_no_fault_by_the_standard() -> None:
    guid = join([("00", "org.example.pay"), ("01", "M1")])
    objects = [("00", "01"), ("26", guid), ("52", "5812"), ("53", "840"), ("58", "US"), ("59", "Shop"), ("60", "City")]
    decoded = decode(seal(objects))
    assert (decoded.kind, decoded.scheme, decoded.routing) == ("emv_mpm", None, None)
    assert decoded.strict is not None
    assert decoded.strict.valid
    assert decoded.profile is None, "nobody has judged it"
    wrong = decode(seal([*objects[:-1], ("60", "x" * 16)]))
    assert wrong.profile is not None
    assert [violation.rule for violation in wrong.profile.violations] == ["scheme_unknown"]


def test_a_profile_is_one_file() -> None:
    profile = compile_profile(
        """
        name = "example"
        title = "Example"
        source = "here"
        countries = ["US"]
        currencies = ["USD"]
        tolerate = ["59:format"]
        [[account]]
        ids = "26-28 40"
        identifiers = ["org.example.pay"]
          [[account.route]]
          account = "@/01"
          check = "digits_8"
        """
    )
    account = profile.accounts[0]
    assert account.ids == {"26", "27", "28", "40"}
    assert profile.currencies == {"840"}
    assert ("59", "format") in profile.tolerated
    assert account.routes[0].check is not None
    assert not account.routes[0].check("1234567", {})


@pytest.mark.parametrize("fault", ['currencies = ["XXZ"]', '[[account]]\nids = "26"\n[[account.route]]\ncheck = "bic"'])
def test_a_wrong_profile_is_refused_when_it_is_read(fault: str) -> None:
    with pytest.raises(KeyError):
        compile_profile(f'name = "x"\ntitle = "X"\nsource = "s"\n{fault}')


def _form(template: str, fields: list[tuple[str, str]], country: str, currency: str) -> str:
    account = (template, join(fields))
    objects = [("00", "01"), ("01", "11"), account, ("52", "5812"), ("53", currency), ("58", country)]
    return seal([*objects, ("59", "Shop"), ("60", "City"), ("62", "0503***")])


FORMS: Final = {
    "qris transfer": (
        _form("40", [("00", "ID.CO.QRIS.WWW"), ("01", "936000140123456789"), ("02", "0123456789")], "ID", "360"),
        ("qris", "proxy", "936000140123456789", "93600014"),
    ),
    "qris before its name": (
        _form("51", [("00", "ID.OR.GPNQR.WWW"), ("02", "ID1020021181745")], "ID", "360"),
        ("qris", "merchant_account", "ID1020021181745", ""),
    ),
    "promptpay tax id": (
        _form("29", [("00", "A000000677010111"), ("02", "1234567890121")], "TH", "764"),
        ("promptpay", "proxy", "1234567890121", ""),
    ),
    "promptpay wallet": (
        _form("29", [("00", "A000000677010111"), ("03", "123456789012345")], "TH", "764"),
        ("promptpay", "proxy", "123456789012345", ""),
    ),
    "thai bill across borders": (
        _form("30", [("00", "A000000677012006"), ("01", "010753700088205"), ("02", "REF1")], "TH", "764"),
        ("thai_bill", "merchant_account", "010753700088205", ""),
    ),
    "paynow mobile": (
        _form("26", [("00", "SG.PAYNOW"), ("01", "0"), ("02", "+6591234567"), ("03", "1")], "SG", "702"),
        ("paynow", "proxy", "+6591234567", ""),
    ),
    "fps e-mail": (
        _form("26", [("00", "hk.com.hkicl"), ("01", "004"), ("04", "shop@example.com")], "HK", "344"),
        ("hkfps", "proxy", "shop@example.com", "004"),
    ),
    "pix phone": (
        _form("26", [("00", "BR.GOV.BCB.PIX"), ("01", "+5511912345678")], "BR", "986"),
        ("pix", "proxy", "+5511912345678", ""),
    ),
    "qr ph to a bank account": (
        _form("28", [("00", "ph.ppmi.p2m"), ("01", "BNORPHMMXXX"), ("04", "005260000123")], "PH", "608"),
        ("qrph", "merchant_account", "005260000123", "BNORPHMMXXX"),
    ),
}
"""Forms of schemes that the public samples do not show, built from the same documentation."""


@pytest.mark.parametrize("name", sorted(FORMS))
def test_further_forms_of_schemes(name: str) -> None:
    text, (scheme, kind, account, participant) = FORMS[name]
    decoded = decode(text)
    assert decoded.profile is not None
    assert decoded.profile.valid, decoded.profile.violations
    assert decoded.routing is not None
    routing = decoded.routing
    assert (routing.scheme, routing.kind, routing.account, routing.participant) == (scheme, kind, account, participant)


def test_a_slip_of_a_wallet_is_a_slip() -> None:
    body = join([("00", join([("00", "01"), ("01", "P2P"), ("02", "1234567890"), ("03", "01012026")])), ("51", "TH")])
    text = body + "9104" + crc(body + "9104")
    decoded = decode(text)
    assert (decoded.kind, decoded.scheme, decoded.routing) == ("emv_mpm", "thai_slip", None)
    assert decoded.profile is not None
    assert decoded.profile.valid, decoded.profile.violations
