"""Whom a code pays: `Routing.payee` names one payee of its scheme and no other, field by field for each scheme."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from gateway import barcode
from gateway.barcode import decode, translate
from gateway.barcode.build import MerchantCode, account_and_participant, build_merchant_code
from gateway.barcode.model import Pair
from gateway.barcode.profile import PROFILES, Account
from gateway.barcode.tlv import join, seal, split
from gateway.directory import parse as parse_directory
from hutong_contract.errors import HutongError

VECTORS: Final = Path(__file__).parents[2] / "vectors" / "barcode"


def _code(template: str, fields: list[Pair], country: str, currency: str, *more: Pair) -> str:
    objects = [("00", "01"), ("01", "11"), (template, join(fields)), ("52", "5812"), ("53", currency), ("58", country)]
    return seal([*objects, ("59", "Shop"), ("60", "City"), *more])


FORMS: Final = [
    _code("29", [("00", "A000000677010111"), ("02", "1234567890121")], "TH", "764"),
    _code("29", [("00", "A000000677010111"), ("03", "123456789012345")], "TH", "764"),
    _code("29", [("00", "A000000677010111"), ("04", "0141234567890")], "TH", "764"),
    _code("31", [("00", "A000000677010113"), ("01", "004"), ("02", "KB1"), ("03", "Q1"), ("04", "TX1")], "TH", "764"),
    _code("26", [("00", "hk.com.hkicl"), ("01", "004"), ("04", "shop@example.com")], "HK", "344"),
    _code("40", [("00", "ID.CO.QRIS.WWW"), ("01", "936000140123456789"), ("02", "0123456789")], "ID", "360"),
    _code("51", [("00", "ID.OR.GPNQR.WWW"), ("02", "ID1020021181745")], "ID", "360"),
    _code("51", [("00", "ID.CO.QRIS.WWW"), ("01", "936000140123456789"), ("02", "0123456789")], "ID", "360"),
    _code("28", [("00", "ph.ppmi.p2m"), ("01", "BNORPHMMXXX"), ("02", "12345")], "PH", "608"),
    _code("27", [("00", "com.p2pqrpay"), ("01", "BNORPHMMXXX"), ("02", "99964403"), ("03", "217020")], "PH", "608"),
    _code("27", [("00", "com.p2pqrpay"), ("01", "BNORPHMMXXX"), ("02", "99964403"), ("05", "+63917")], "PH", "608"),
    _code("29", [("00", "khqr@aclb"), ("01", "85511100002"), ("02", "ACLEDA")], "KH", "116"),
    _code("26", [("00", "SG.PAYNOW"), ("01", "0"), ("02", "+6591234567"), ("03", "1")], "SG", "702"),
    _code("26", [("00", "SG.PAYNOW"), ("01", "1"), ("02", "S1234567D"), ("03", "1")], "SG", "702"),
    _code("26", [("00", "SG.PAYNOW"), ("01", "3"), ("02", "+6591234567#GRAB"), ("03", "1")], "SG", "702"),
    seal([("00", "01"), ("01", "11"), ("08", "YESB0CMSNOC222333004882700"), ("52", "5812"), ("53", "356"), ("58", "IN"),
          ("59", "Shop"), ("60", "City")]),
    seal([("00", "01"), ("01", "11"), ("06", "6100030700074696"), ("52", "5812"), ("53", "356"), ("58", "IN"),
          ("59", "Shop"), ("60", "City")]),
    _code("26", [("00", "io.hutong.key"), ("01", "duitnow"), ("02", "M"), ("03", "603346")], "MY", "458",
          ("27", join([("00", "io.hutong.account"), ("01", "MD00167575")])),
          ("28", join([("00", "io.hutong.payee"), ("01", "603346:MD00167575")]))),
]  # fmt: skip
"""Forms that no vector shows, so that every way of every scheme to name a payee is tried."""
CODES: Final = [
    *FORMS,
    *(
        case["payload"]
        for path in sorted(VECTORS.glob("*.json"))
        for case in json.loads(path.read_text("utf-8"))["valid"]
        if case["payload"].startswith("0002") and case["routing"] is not None
    ),
]


def _holder(scheme: str, root: str, value: str, objects: dict[str, str]) -> Account | None:
    """The row of a scheme that recognises itself in this object."""
    guid = dict(split(value)[0]).get("00", "")
    for account in sorted(PROFILES[scheme].accounts, key=lambda account: root not in account.ids):
        if root >= "80" and root not in account.ids:
            if guid.lower() in account.identifiers and any(route.account.guid for route in account.routes):
                return account  # A route of it reads the unreserved template of the same identifier.
            continue
        if root not in account.ids or (account.country and account.country != objects.get("58")):
            continue
        if account.primitive:
            if root < "26":
                return account
        elif account.identifiers:
            if guid.lower() in account.identifiers:
                return account
        elif (account.pattern is None or account.pattern(guid) is not None) and all(
            form(dict(split(value)[0]).get(field, "")) is not None for field, form in account.where
        ):
            return account
    return None


def _leaves(value: str, nested: bool) -> Iterator[tuple[tuple[str, ...], str]]:
    """Paths of the fields inside an account object, and their values; a value that is itself objects is opened."""
    pairs, problem = split(value) if nested else ([], None)
    if not pairs or problem is not None:
        yield (), value
        return
    for identifier, item in pairs:
        inner, broken = split(item)
        opened = broken is None and len(inner) > 1 and inner[0][0] == "00"
        for path, leaf in _leaves(item, opened):
            yield (identifier, *path), leaf


def _replaced(value: str, path: tuple[str, ...], text: str) -> str:
    if not path:
        return text
    return join([(i, _replaced(item, path[1:], text) if i == path[0] else item) for i, item in split(value)[0]])


def _changed(text: str) -> Iterator[str]:
    """A field with one character replaced by another of its kind, at each place."""
    for place, character in enumerate(text):
        others = "0123456789" if character.isdigit() else "ABKZ" if character.isupper() else "abkz"
        for other in others:
            if other != character:
                yield text[:place] + other + text[place + 1 :]


@pytest.mark.parametrize("text", CODES, ids=range(len(CODES)))
def test_a_change_of_any_field_that_names_the_payee_names_another(text: str) -> None:
    before = decode(text)
    pairs = list(before.objects)
    objects = dict(pairs)
    keys = {c.scheme: c.routing for c in before.candidates if c.routing is not None and c.profile.valid}
    assert keys
    tried = 0
    for root, value in pairs:
        if not ("02" <= root <= "51" or root >= "80"):
            continue
        for scheme, key in keys.items():
            account = _holder(scheme, root, value, objects)
            if account is None:
                continue
            for path, leaf in _leaves(value, root >= "26"):
                if path == ("00",) and account.identifiers:
                    continue  # It names the scheme, not the payee.
                for changed in _changed(leaf):
                    other = _replaced(value, path, changed)
                    after = decode(seal([(i, other if i == root else v) for i, v in pairs if i != "63"]))
                    tried += 1
                    found = next((c for c in after.candidates if c.scheme == scheme), None)
                    if found is None or found.routing is None or not found.profile.valid:
                        continue  # Refused, so nobody is paid.
                    if path and path[0] in account.describes:
                        continue
                    same = (found.routing.scheme, found.routing.payee) == (key.scheme, key.payee)
                    assert not same or _another_object_routes(scheme, root, objects), (
                        f"{scheme} {root}/{'/'.join(path)}: {leaf} and {changed} share {key.payee}"
                    )
    assert tried


def _another_object_routes(scheme: str, root: str, objects: dict[str, str]) -> bool:
    """Whether the scheme's key comes from another object of the code: this one is beside it."""
    without = decode(seal([(i, v) for i, v in objects.items() if i not in (root, "63")]))
    mine = next((c for c in decode(seal([(i, v) for i, v in objects.items() if i != "63"])).candidates
                 if c.scheme == scheme), None)  # fmt: skip
    other = next((c for c in without.candidates if c.scheme == scheme), None)
    return mine is not None and other is not None and other.routing == mine.routing


def test_every_way_to_name_a_payee_is_tried() -> None:
    """Each route of each scheme's file is taken by one of the codes above."""
    taken: set[tuple[str, str, tuple[str, ...]]] = set()
    for text in CODES:
        decoded = decode(text)
        objects = dict(decoded.objects)
        for candidate in decoded.candidates:
            value = objects[candidate.template]
            inner = dict(split(value)[0]) if candidate.template >= "26" else {}
            account = _holder(candidate.scheme, candidate.template, value, objects)
            assert account is not None
            for route in account.routes:
                if not route.account.path or route.account.path[0] in inner or not route.account.inside:
                    where = f"{min(account.ids)}{bool(route.account.guid)}"
                    taken.add((candidate.scheme, where, route.account.path))
                    break
    every = {
        (name, f"{min(account.ids)}{bool(route.account.guid)}", route.account.path)
        for name, profile in PROFILES.items()
        for account in profile.accounts
        for route in account.routes
    }
    assert every <= taken, every - taken


def test_numbers_of_two_kinds_that_look_alike_are_two_payees() -> None:
    digits = "0141234567890"
    national, bank = (decode(_code("29", [("00", "A000000677010111"), (f, digits)], "TH", "764")) for f in ("02", "04"))
    assert national.routing is not None
    assert bank.routing is not None
    assert national.routing.account == bank.routing.account
    assert national.routing.payee != bank.routing.payee


SWAPS = {
    "promptpay": ("29", "A000000677010111", ["01", "02", "03", "04"], "TH", "764"),
    "hkfps": ("26", "hk.com.hkicl", ["02", "03", "04"], "HK", "344"),
    "pix": ("26", "br.gov.bcb.pix", ["01", "25"], "BR", "986"),
}
VALUES = [
    "0066812345678", "1234567890121", "123456789012345", "0141234567890", "1234567", "+852-67891234", "a@b.example",
    "11222333000181", "+5511912345678", "pix.example.com/a1",
]  # fmt: skip


@pytest.mark.parametrize("scheme", SWAPS)
@pytest.mark.parametrize("value", VALUES)
def test_one_value_in_two_fields_is_two_payees_or_wrong_in_one(scheme: str, value: str) -> None:
    template, guid, fields, country, currency = SWAPS[scheme]
    payees = []
    for field in fields:
        decoded = decode(_code(template, [("00", guid), (field, value)], country, currency, ("62", "0503***")))
        if decoded.routing is not None and decoded.profile is not None and decoded.profile.valid:
            payees.append(decoded.routing.payee)
    assert len(payees) == len(set(payees))


@pytest.mark.parametrize(
    ("template", "guid", "fields"),
    [
        ("29", "A000000677010111", [("01", "0066812345678"), ("02", "1234567890121")]),
        ("26", "br.gov.bcb.pix", [("01", "11222333000181"), ("25", "pix.example.com/a1")]),
    ],
)
def test_a_code_that_names_two_payees_is_refused(template: str, guid: str, fields: list[Pair]) -> None:
    country, currency = ("TH", "764") if template == "29" else ("BR", "986")
    profile = decode(_code(template, [("00", guid), *fields], country, currency, ("62", "0503***"))).profile
    assert profile is not None
    assert "ambiguous" in {violation.rule for violation in profile.violations}


def test_a_mark_inside_a_field_does_not_make_two_payees_one() -> None:
    forms = [[("01", "A:B"), ("02", "C")], [("01", "A"), ("02", "B:C")], [("01", "A%3AB"), ("02", "C")]]
    payees = set()
    for fields in forms:
        routing = decode(_code("31", [("00", "A000000677010113"), *fields, ("04", "X")], "TH", "764")).routing
        assert routing is not None
        payees.add(routing.payee)
    assert len(payees) == 3


def test_two_shops_behind_one_account_id_of_a_bank_are_two_payees() -> None:
    codes = [
        "00020101021129450016abaakhppxxx@abaa01090000000010208ABA Bank40260006abaP2P011224D93FFFC171520400005303116580"
        "2KH5909PAYEE ONE6010Phnom Penh6304AABC",
        _code("29", [("00", "khqr@aclb"), ("01", "85510000002"), ("02", "ACLEDA")], "KH", "116"),
        _code("29", [("00", "khqr@aclb"), ("01", "85510000003"), ("02", "ACLEDA")], "KH", "116"),
        _code("30", [("00", "khqr@aclb"), ("01", "85510000003"), ("02", "ACLEDA")], "KH", "116"),
    ]
    routings = [decode(code).routing for code in codes]
    accounts = [routing.account for routing in routings if routing is not None]
    assert accounts == [
        "abaakhppxxx@abaa/000000001", "khqr@aclb/85510000002", "khqr@aclb/85510000003", "khqr@aclb/85510000003/ACLEDA",
    ]  # fmt: skip


def _merchant(merchant_id: str, *accounts: tuple[str, str]) -> dict[str, object]:
    rows = [{"scheme": scheme, "account": account} for scheme, account in accounts]
    return {"id": merchant_id, "name": merchant_id, "acquirers": [{"id": "a"}], "accounts": rows}


def test_the_directory_is_asked_by_what_names_one_payee() -> None:
    participants = [{"id": "a", "role": "acquirer"}]
    merchants = [_merchant("m-1", ("duitnow", "603346:MD1")), _merchant("m-2", ("duitnow", "588830:MD1"))]
    directory = parse_directory({"participants": participants, "merchants": merchants})
    for participant, merchant in (("603346", "m-1"), ("588830", "m-2"), ("890053", None)):
        code = MerchantCode("MD1", "Shop", "KL", "MY", "MYR", participant=participant)
        route = barcode.best_route(decode(build_merchant_code(code, "duitnow")), directory)
        assert (route.merchant_id if route else None) == merchant


@pytest.mark.parametrize(
    ("scheme", "payee", "expected"),
    [
        ("duitnow", "603346:MD:1:2", ("603346:MD:1:2", "")),
        ("duitnow", "MD1", ("MD1", "")),
        ("duitnow", "603346:MD%3A1", ("MD:1", "603346")),
        ("vietqr", "970407:9796868:QRIBFTTA", ("9796868", "970407")),
        ("unionpay", "2500034425000344:500034470110001", ("500034470110001", "25000344")),
        ("pix", "11222333000181", ("11222333000181", "")),
        ("nobody", "x:y", ("x:y", "")),
    ],
)
def test_an_account_is_found_again_in_what_names_its_payee(scheme: str, payee: str, expected: tuple[str, str]) -> None:
    assert account_and_participant(scheme, payee) == expected


def test_a_translation_leads_to_the_same_payee_or_is_refused() -> None:
    same = "2600041026000410711958120000000"
    objects = [("00", "01"), ("01", "11"), ("52", "5812"), ("53", "344"), ("58", "HK"), ("59", "Shop"), ("60", "HK")]
    code = decode(translate(seal([*objects[:2], ("15", same), *objects[2:]]), "unionpay").payload)
    assert code.routing is not None
    assert code.routing.payee == "2600041026000410:711958120000000"
    other = "3427059100020344000000000000096"  # The builder writes the acquirer twice; this one has a forwarder.
    with pytest.raises(HutongError, match="names this payee"):
        translate(seal([*objects[:2], ("15", other), *objects[2:]]), "unionpay")
