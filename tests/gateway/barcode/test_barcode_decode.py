"""One entrance for everything: kinds, artefacts, payment codes, links, expiry, routes, and input that means harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.barcode import Decoded, decode, forget
from gateway.barcode.build import MerchantCode, build_merchant_code
from gateway.barcode.checks import cnpj, cpf, luhn, thai_id
from gateway.barcode.decode import REMEMBERED_MAX
from gateway.barcode.payment_codes import PREFIXES
from gateway.barcode.profile import PROFILES
from gateway.barcode.references import iban
from gateway.barcode.routing import EMPTY, NO_ROUTE, ROUTED, best_route
from gateway.barcode.shape import to_json
from gateway.barcode.tlv import join, seal
from gateway.directory import Directory, load
from hutong_contract import payment_code
from hutong_contract.limits import PAYLOAD_CHARACTERS_MAX

CODE = build_merchant_code(MerchantCode("merchant-1", "Noodle House", "Beijing", terminal_id="t-1"))
KEYS = {
    "kind", "scheme", "strict", "profile", "route", "candidates", "amount_minor", "currency", "merchant_name",
    "length_reading",
}  # fmt: skip


def directory(tmp_path: Path) -> Directory:
    path = tmp_path / "directory.json"
    merchant = {
        "id": "m-1", "name": "Noodle House",
        "acquirers": [{"id": "acq-2", "cost_bp": 40}, {"id": "acq-1", "cost_bp": 30}],
        "accounts": [{"scheme": "hutong", "account": "merchant-1"}, {"scheme": "pix", "account": "11222333000181"}],
    }  # fmt: skip
    participants = [{"id": "acq-1", "role": "acquirer"}, {"id": "acq-2", "role": "acquirer"}]
    routes = [{"scheme": "khqr", "participant": "wing", "to": "acq-2"}]
    path.write_text(json.dumps({"participants": participants, "merchants": [merchant], "routes": routes}), "utf-8")
    return load(path)


@pytest.mark.parametrize(
    ("text", "artefact"),
    [
        ("\\000026" + CODE, "eci_prefix"),
        ("\ufeff" + CODE, "bom"),
        ("ï»¿" + CODE, "bom"),
        ("]Q0" + CODE, "symbology_identifier"),
        ("]Q1" + CODE, "symbology_identifier"),
        ("]Q3" + CODE, "symbology_identifier"),
        ("]Q6" + CODE, "symbology_identifier"),
        ("]C1" + CODE, "symbology_identifier"),
        ("]L2" + CODE, "symbology_identifier"),
        ("]z3" + CODE, "symbology_identifier"),
        ("]d2" + CODE, "symbology_identifier"),
        ("\x02" + CODE + "\x03", "framing"),
        (CODE + "\x1d", "framing"),
        ("\u200e" + CODE, "invisible_mark"),
        ("\u2066" + CODE + "\u2069", "invisible_mark"),
        (CODE + "\u200b", "invisible_mark"),
        (f"  {CODE}\r\n", "white_space"),
        ("\u3000" + CODE, "white_space"),
    ],
)
def test_scanner_artefacts_are_named_and_removed(text: str, artefact: str) -> None:
    decoded = decode(text)
    assert artefact in decoded.artefacts
    assert decoded.strict is not None
    assert decoded.strict.valid
    assert decoded.routing == decode(CODE).routing


def test_several_artefacts_at_once() -> None:
    assert set(decode("\ufeff \\000026" + CODE + "\n").artefacts) == {"bom", "white_space", "eci_prefix"}


def test_a_lower_case_checksum_is_an_artefact_and_no_fault_of_the_scheme() -> None:
    codes = (build_merchant_code(MerchantCode(f"merchant-{n}", "Noodle House", "Beijing")) for n in range(99))
    text = next(code for code in codes if code[-4:] != code[-4:].lower())
    decoded = decode(text[:-4] + text[-4:].lower())
    assert decoded.artefacts == ("lower_case_crc",)
    assert decoded.profile is not None
    assert decoded.profile.valid
    assert decoded.strict is not None
    assert [violation.rule for violation in decoded.strict.violations] == ["lower_case"]


@pytest.mark.parametrize(
    ("digits", "scheme", "participant"),
    [
        ("6612345678901234567", "hutong", ""),
        ("6712345678901234567", "hutong", ""),
        ("101234567890123456", "wechatpay", "wechatpay"),
        ("151234567890123456", "wechatpay", "wechatpay"),
        ("2512345678901234", "alipay", "alipay_cn"),
        ("301234567890123456789012", "alipay", "alipay_cn"),
        ("2812345678901234567", "alipay", "alipay_cn"),
        ("2810061234567890123", "alipay_plus", "kakaopay"),
        ("6212345678901234567", "unionpay", "unionpay"),
        ("0112345678901234567", "ecny", "ecny"),
        ("5678123456789012345", "webank", "webank"),
        ("8221234567890123456", "lakala", "lakala"),
    ],
)
def test_payment_codes_go_by_their_longest_prefix(digits: str, scheme: str, participant: str) -> None:
    decoded = decode(digits)
    assert (decoded.kind, decoded.scheme, decoded.strict) == ("payment_code", scheme, None)
    assert decoded.profile is not None
    assert decoded.profile.valid
    assert decoded.routing is not None
    assert decoded.routing.participant == participant
    assert digits.startswith(decoded.routing.account)
    assert decoded.credential is not None
    assert decoded.credential.value.reveal() == digits
    assert decoded.credential.lifetime_us


def test_no_digits_of_a_payment_code_are_shown() -> None:
    digits = "6612345678901234567"
    decoded = decode(digits)
    shown = repr(decoded) + json.dumps(to_json(decoded, EMPTY))
    assert "12345" not in shown


@pytest.mark.parametrize(
    "digits", ["16123456789012345", "4006381333931", "0012345678905", "00123457", "9912345678901234567", "1", "٣" * 19]
)
def test_other_numbers_are_unknown(digits: str) -> None:
    assert decode(digits).kind == "unknown"


def test_a_code_of_the_wrong_length_says_so() -> None:
    profile = decode("66123456789012345").profile
    assert profile is not None
    assert [violation.rule for violation in profile.violations] == ["length"]


def test_the_prefixes_are_those_of_the_token_service() -> None:
    for prefix in (payment_code.ONLINE_PREFIX, payment_code.OFFLINE_PREFIX):
        assert PREFIXES[prefix].scheme == "hutong"
        assert PREFIXES[prefix].shortest == PREFIXES[prefix].longest == payment_code.CODE_DIGITS


@pytest.mark.parametrize("text", ["", " ", "hello", "http://example.org/x", "{}", "0", "00", "000", "00A201", "hQV"])
def test_what_is_nothing_is_unknown_with_a_typed_verdict(text: str) -> None:
    decoded = decode(text)
    assert (decoded.kind, decoded.scheme, decoded.routing) == ("unknown", None, None)
    assert decoded.strict is not None
    assert decoded.strict.violations


@pytest.mark.parametrize("text", ["7" * 100_000, " " * 100_000, "0002" + "0" * 100_000, "hQVDUFY" + "A" * 100_000])
def test_a_hundred_kilobytes_are_refused_at_once(text: str) -> None:
    decoded = decode(text)
    assert decoded.strict is not None
    assert [violation.rule for violation in decoded.strict.violations] == ["too_long"]


@pytest.mark.parametrize("text", ["\ud800", CODE[:40] + "\udfff" + CODE[41:], "66\ud83d"])
def test_surrogates_are_no_text(text: str) -> None:
    decoded = decode(text)
    assert decoded.strict is not None
    assert [violation.rule for violation in decoded.strict.violations] == ["not_unicode"]
    json.dumps(to_json(decoded, EMPTY)).encode()


def test_control_characters_are_escaped_in_what_was_found() -> None:
    decoded = decode(CODE.replace("Noodle House", "Nood\x00\x1b[House"))
    assert decoded.strict is not None
    assert all(violation.found.isprintable() for violation in decoded.strict.violations)
    assert "59" in {violation.path for violation in decoded.strict.violations}


def test_every_kind_of_input_has_the_same_keys() -> None:
    texts = [CODE, "6612345678901234567", "upi://pay?pa=a.b@icici", "hQVDUFYx", "x"]
    shapes = [to_json(decode(text), EMPTY) for text in texts]
    assert {shape["kind"] for shape in shapes} == {"emv_mpm", "payment_code", "link", "emv_cpm", "unknown"}
    assert len({tuple(shape) for shape in shapes}) == 1
    assert set(shapes[0]) >= KEYS


@given(st.text(max_size=300))
def test_any_text_is_decoded(text: str) -> None:
    assert isinstance(decode(text), Decoded)


@given(st.text("0123456789", max_size=400))
def test_any_digits_are_decoded(text: str) -> None:
    assert isinstance(decode("0002" + text), Decoded)


def test_static_codes_are_remembered_and_the_memory_is_bounded() -> None:
    forget()
    assert decode(CODE) is decode(CODE)
    dynamic = build_merchant_code(MerchantCode("merchant-1", "Noodle House", "Beijing", amount_minor=5))
    assert decode(dynamic) is not decode(dynamic)
    assert decode("6612345678901234567") is not decode("6612345678901234567")
    first = decode("000201010211" + "kept")
    for number in range(REMEMBERED_MAX - 1):
        decode(f"000201010211{number:08d}")
    assert decode("000201010211" + "kept") is first, "used again, so it stays"
    decode("000201010211" + "one more")
    assert decode("000201010211" + "kept") is first
    assert PAYLOAD_CHARACTERS_MAX == 7089


def test_a_code_that_has_ended_says_so_when_asked_with_a_time() -> None:
    times = join([("00", "1727168754698"), ("01", "1727168814698")])
    objects = [("00", "01"), ("01", "12"), ("29", "0009shop@wing"), ("52", "5812"), ("53", "840"), ("54", "1.00")]
    text = seal([*objects, ("58", "KH"), ("59", "Shop"), ("60", "Phnom Penh"), ("99", times)])
    ends = decode(text).expires_us
    assert ends == 1_727_168_814_698_000
    before, after = decode(text, now_us=ends - 1), decode(text, now_us=ends)
    assert before.profile is not None
    assert before.profile.valid
    assert after.profile is not None
    assert [violation.rule for violation in after.profile.violations] == ["expired"]


def test_the_earlier_of_two_ends_counts() -> None:
    both = "upi://pay?pa=a.b@icici&QRexpire=2030-01-01T00:00:00%2B05:30&validityend=31122028"
    assert decode(both).expires_us == 1_861_900_200_000_000, "the last day of 2028 ends at 18:30 UTC"


@pytest.mark.parametrize(
    ("scheme", "expires_us"),
    [
        ("hkfps", 1_893_427_199_000_000),  # 291231235959 in Hong Kong
        ("nets", 4_102_415_940_000_000),  # 991231235900 in Singapore
        ("raast_p2p", 1_896_116_340_000_000),  # 310120302359, the day first, in Karachi
    ],
)
def test_each_scheme_says_in_its_way_when_its_codes_end(scheme: str, expires_us: int) -> None:
    path = Path(__file__).parents[2] / "vectors" / "barcode" / f"{scheme}.json"
    ends = {decode(case["payload"]).expires_us for case in json.loads(path.read_text("utf-8"))["valid"]}
    assert expires_us in ends


def test_what_begins_as_an_object_but_is_no_object_is_none_of_emv() -> None:
    compressed = "0004A0000G4TKA5U1HQFPPNPHV0TJKDGSCR79PPV17IN4FB0J3LM7UDDHNBDPAHT4AH0OTSD4KIC"
    assert decode(compressed).kind == "credit_transfer", "PAY by square"
    damaged = CODE[:40] + CODE[44:]
    assert decode(damaged).kind == "emv_mpm"


def test_paynow_ends_with_its_day_in_singapore() -> None:
    # 2030-12-31 ends at 16:00 UTC.
    assert decode(PROFILES["paynow"].examples[0]).expires_us == 1_924_963_200_000_000


def test_routes_by_the_directory(tmp_path: Path) -> None:
    known = directory(tmp_path)
    route = best_route(decode(CODE), known)
    assert route is not None
    assert (route.status, route.to, route.merchant_id) == (ROUTED, "acq-1", "m-1"), "the cheapest acquirer"
    khqr = build_merchant_code(MerchantCode("someone@wing", "Someone", "Siem Reap", "KH", "KHR"), "khqr")
    by_participant = best_route(decode(khqr), known)
    assert by_participant is not None
    assert by_participant.to == "acq-2"
    foreign = best_route(decode("upi://pay?pa=a.b@icici"), known)
    assert foreign is not None
    assert (foreign.status, foreign.to) == (NO_ROUTE, None)
    assert decode("upi://pay?pa=a.b@icici").profile == decode("upi://pay?pa=c.d@icici").profile


def test_check_digits() -> None:
    assert luhn("4111111111111111")
    assert not luhn("4111111111111112")
    assert cpf("11144477735")
    assert not cpf("11111111111")
    assert cnpj("11222333000181")
    assert not cnpj("11222333000182")
    assert thai_id("1234567890121")
    assert not thai_id("1234567890122")
    assert iban("GB82WEST12345698765432")
    assert not iban("GB82WEST12345698765431")
