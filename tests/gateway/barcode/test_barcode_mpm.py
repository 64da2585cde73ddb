"""EMV merchant codes: EMVCo's own example field by field, byte-exact round trips, every rule, every kind of damage."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.barcode import mpm_spec, tlv
from gateway.barcode.fuzz import texts
from gateway.barcode.mpm import parse, parse_carefully
from gateway.barcode.payload import CHARACTERS, UTF8_BYTES
from hutong_contract.amounts import from_minor, to_minor

# EMVCo QR Code Specification for Payment Systems, Merchant-Presented Mode v1.1, annex: the complete example.
EXAMPLE: Final = (
    "00020101021229300012D156000000000510A93FO3230Q31280012D15600000001030812345678520441115802CN5914BEST TRANSPORT"
    "6007BEIJING64200002ZH0104最佳运输0202北京540523.7253031565502016233030412340603***0708A60086670902ME"
    "91320016A0112233449988770708123456786304A13A"
)
FIELDS: Final = [
    ("00", "01"), ("01", "12"), ("29", "0012D156000000000510A93FO3230Q"), ("31", "0012D156000000010308" + "12345678"),
    ("52", "4111"), ("58", "CN"), ("59", "BEST TRANSPORT"), ("60", "BEIJING"), ("64", "0002ZH0104最佳运输0202北京"),
    ("54", "23.72"), ("53", "156"), ("55", "01"), ("62", "030412340603***0708A60086670902ME"),
    ("91", "0016A011223344998877070812345678"), ("63", "A13A"),
]  # fmt: skip
INSIDE: Final = {
    "29": {"00": "D15600000000", "05": "A93FO3230Q"},
    "31": {"00": "D15600000001", "03": "12345678"},
    "64": {"00": "ZH", "01": "最佳运输", "02": "北京"},
    "62": {"03": "1234", "06": "***", "07": "A6008667", "09": "ME"},
    "91": {"00": "A011223344998877", "07": "12345678"},
}
HEAD: Final = [("00", "01"), ("01", "11"), ("26", "0009io.domain0101X")]
TAIL: Final = [("52", "5812"), ("53", "156"), ("58", "CN"), ("59", "Shop"), ("60", "City")]


def rules(text: str) -> set[tuple[str, str]]:
    return {(violation.path, violation.rule) for violation in parse(text)[1]}


def code(*more: tuple[str, str], without: str = "") -> str:
    replaced = {identifier for identifier, _ in more} | {without}
    return tlv.seal([*(pair for pair in HEAD + TAIL if pair[0] not in replaced), *more])


def test_published_example_field_by_field() -> None:
    payload, violations = parse(EXAMPLE)
    assert violations == []
    assert list(payload.objects) == FIELDS
    assert payload.templates == INSIDE
    assert (payload.reading, payload.currency, payload.amount_minor) == (CHARACTERS, "CNY", 2372)
    assert payload.text() == EXAMPLE


def test_checksum_of_the_standard() -> None:
    assert tlv.crc("123456789") == "29B1", "the check value of CRC-16/CCITT-FALSE"
    assert tlv.crc(EXAMPLE[:-4]) == "A13A"


def test_a_code_without_a_fault_has_none() -> None:
    assert rules(code()) == set()


@pytest.mark.parametrize(
    ("text", "path", "rule"),
    [
        (code(("00", "02")), "00", "value"),
        (code(("01", "13")), "01", "value"),
        (tlv.seal([HEAD[2], HEAD[0], *TAIL]), "00", "not_first"),
        (code(without="26"), "02-51", "missing"),
        (code(("26", "0101X")), "26/00", "missing"),
        (code(("26", "0033" + "x" * 33)), "26/00", "length"),
        (code(("26", "00")), "26/00", "length_format"),
        (code(("26", "0099X")), "26/00", "truncated"),
        (code(("26", "0009io.domain0009io.domain")), "26/00", "duplicate"),
        (code(without="52"), "52", "missing"),
        (code(("52", "58A2")), "52", "format"),
        (code(("52", "581")), "52", "length"),
        (code(("53", "000")), "53", "unknown_currency"),
        (code(("58", "cn")), "58", "value"),
        (code(("58", "ZZ")), "58", "unknown_country"),
        (code(("59", "x" * 26)), "59", "length"),
        (code(("59", "最佳")), "59", "format"),
        (code(("60", "x" * 16)), "60", "length"),
        (code(("61", "12345678901")), "61", "length"),
        (code(("54", "0")), "54", "zero"),
        (code(("54", "0.00")), "54", "zero"),
        (code(("54", "1,00")), "54", "format"),
        (code(("54", "1e5")), "54", "format"),
        (code(("54", "-1")), "54", "format"),
        (code(("54", "+1")), "54", "format"),
        (code(("54", ".5")), "54", "format"),
        (code(("54", "1.2.3")), "54", "format"),
        (code(("54", "12345678901234")), "54", "length"),
        (code(("54", "1.005")), "54", "amount_precision"),
        (code(("54", "1.000")), "54", "decimals"),
        (code(("55", "02")), "56", "missing"),
        (code(("55", "03")), "57", "missing"),
        (code(("55", "01"), ("56", "1.00")), "56", "not_allowed"),
        (code(("57", "1.00")), "57", "not_allowed"),
        (code(("55", "03"), ("57", "00.00")), "57", "value"),
        (code(("55", "04")), "55", "value"),
        (code(("62", "0526" + "x" * 26)), "62/05", "length"),
        (code(("62", "0902AA")), "62/09", "value"),
        (code(("62", "0903AMX")), "62/09", "value"),
        (code(("62", "1001X")), "62/10", "reserved"),
        (code(("62", "0001X")), "62/00", "id_not_allowed"),
        (code(("62", "50050101X")), "62/50/00", "missing"),
        (code(("64", "0104最佳运输")), "64/00", "missing"),
        (code(("64", "0002zh")), "64/01", "missing"),
        (code(("64", "0003zho0101x")), "64/00", "length"),
        (code(("65", "x")), "65", "reserved"),
        (code(("80", "0101X")), "80/00", "missing"),
        (tlv.seal([*HEAD, *TAIL, ("59", "Again")]), "59", "duplicate"),
        (code()[:-8], "63", "missing"),
        (code()[:-4] + "0000", "63", "crc_mismatch"),
        (code()[:-4] + "00ZZ", "63", "value"),
        (tlv.join([*HEAD, ("63", "0000"), *TAIL]), "63", "not_last"),
        (code() + "x", "", "id_format"),
        (code(*((f"{n}", "0001X" + "01" + "80" + "y" * 80) for n in range(80, 87))), "", "over_512"),
    ],
)  # fmt: skip
def test_each_rule_is_checked_and_named(text: str, path: str, rule: str) -> None:
    assert (path, rule) in rules(text)


def test_a_lower_case_checksum_is_right_but_not_as_written() -> None:
    text = next(text for text in (code(("54", f"{n}.00")) for n in range(1, 50)) if text[-4:] != text[-4:].lower())
    assert rules(text[:-4] + text[-4:].lower()) == {("63", "lower_case")}


@pytest.mark.parametrize("amount", ["98.73", "98", "98.", "0.01", "1234567890.99"])
def test_amounts_of_the_standard(amount: str) -> None:
    assert rules(code(("54", amount))) == set()


def test_amounts_follow_the_currency() -> None:
    assert parse(code(("53", "392"), ("54", "500")))[0].amount_minor == 500
    assert parse(code(("53", "414"), ("54", "1.234")))[0].amount_minor == 1234
    assert parse(code(("53", "392"), ("54", "500.5")))[0].amount_minor is None


@given(st.integers(1, 10**9), st.sampled_from([0, 2, 3]))
def test_amounts_round_trip(minor: int, exponent: int) -> None:
    assert to_minor(from_minor(minor, exponent), exponent) == (minor, None)


def test_unknown_ids_are_kept_byte_for_byte() -> None:
    text = code(("26", "0009io.domain77030x1"), ("70", "future"), ("99", "0003abc"))
    payload, _ = parse(text)
    assert payload.text() == text
    assert ("70", "future") in payload.objects


def test_both_readings_of_lengths() -> None:
    name, city = "最佳运输", "北京"
    pairs = [*HEAD, ("52", "5812"), ("53", "156"), ("58", "CN"), ("59", name), ("60", city)]
    for count_bytes, reading in ((False, CHARACTERS), (True, UTF8_BYTES)):
        body = tlv.join(pairs, count_bytes=count_bytes) + "6304"
        text = body + tlv.crc(body)
        payload, violations = parse(text)
        assert payload.reading == reading
        assert (payload.values["59"], payload.values["60"]) == (name, city)
        assert payload.text() == text
        assert (("", "length_in_bytes") in {(v.path, v.rule) for v in violations}) == count_bytes


def test_emoji_count_as_one_character() -> None:
    payload, _ = parse(code(("59", "Tea 😀")))
    assert (payload.values["59"], payload.reading) == ("Tea 😀", CHARACTERS)


def test_a_byte_length_that_cuts_a_character_is_no_reading() -> None:
    _, problem = tlv.split_bytes("5904" + "最佳")
    assert problem is not None
    assert problem.rule == "length_cuts_character"


@pytest.mark.parametrize("end", range(len(EXAMPLE)))
def test_truncation_at_every_position_is_not_valid(end: int) -> None:
    assert parse(EXAMPLE[:end])[1] or end == 0


def test_every_digit_of_every_length_changed_is_not_valid() -> None:
    starts, position = [], 0
    for _, value in FIELDS:
        starts.append(position)
        position += 4 + len(value)
    for at in (start + offset for start in starts for offset in (2, 3)):
        for digit in "0123456789":
            if EXAMPLE[at] != digit:
                assert parse(EXAMPLE[:at] + digit + EXAMPLE[at + 1 :])[1], (at, digit)


def test_nesting_deeper_than_the_standard_is_opaque_and_bounded() -> None:
    inner = "0001A"
    while len(inner) <= 95:
        text = code(("26", inner), ("62", inner), ("80", inner))
        assert isinstance(parse(text)[1], list)
        inner = f"01{len(inner):02d}{inner}"


_VALUE = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(
    st.dictionaries(st.sampled_from([f"{n:02d}" for n in range(1, 100) if n != 63]), _VALUE, max_size=8), st.booleans()
)
def test_any_objects_round_trip_in_their_reading(objects: dict[str, str], count_bytes: bool) -> None:
    body = tlv.join([("00", "01"), *objects.items()], count_bytes=count_bytes) + "6304"
    text = body + tlv.crc(body)
    payload, _ = parse(text)
    assert payload.reading is not None
    assert payload.text() == text


@given(st.text(max_size=200))
def test_any_text_gets_a_typed_verdict(text: str) -> None:
    payload, violations = parse(text)
    assert payload.reading in {CHARACTERS, UTF8_BYTES, None}
    assert all(violation.rule for violation in violations)


def test_the_short_cut_agrees_with_the_long_way() -> None:
    accepted = 0
    for text in [EXAMPLE, code(), *texts(3000, 5)]:
        if len(text) < 8000:
            assert parse(text) == parse_carefully(text)
            accepted += not parse(text)[1]
    assert accepted > 50


def test_the_tables_cover_every_id() -> None:
    assert set(mpm_spec.ROOT) == {f"{n:02d}" for n in range(100)}
    assert {root for root in mpm_spec.TEMPLATES if root <= "51"} == {f"{n:02d}" for n in range(26, 52)}
