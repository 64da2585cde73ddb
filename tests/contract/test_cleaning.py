"""Text from outside commands nothing that shows it: no printer, terminal, log or spreadsheet."""

from __future__ import annotations

import json
import logging
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutong_contract.cleaning import (
    ELLIPSIS,
    MARK,
    TEXT_MAX,
    UNSAFE,
    LogFormatter,
    cell,
    json_text,
    printable,
    printable_lines,
)

JOINERS = {"\u200c", "\u200d"}
VISIBLE_FORMATS = {
    *map(chr, range(0x600, 0x606)),
    "\u06dd",
    "\u070f",
    "\u0890",
    "\u0891",
    "\u08e2",
    "\U000110bd",
    "\U000110cd",
}
"""Arabic, Syriac and Kaithi signs round a number: Unicode counts them as formats, and they are seen."""

HOSTILE = {
    "a line of its own": "order\nPAID 0.00",
    "a carriage return": "order\rPAID",
    "a tab": "order\tPAID",
    "a printer's reset": "order\x1b@",
    "a terminal's colour": "\x1b[31mred",
    "a terminal's title": "\x1b]0;title\x07",
    "a C1 sequence": "\x9b31m",
    "a backspace": "paid\b\b\b\bfree",
    "delete": "a\x7fb",
    "nothing": "a\x00b",
    "a text turned round": "\u202egpj.exe",
    "an isolate": "\u2066a\u2069",
    "a mark of direction": "a\u200fb",
    "a line separator": "a\u2028b",
    "a paragraph separator": "a\u2029b",
    "next line": "a\x85b",
    "an invisible space": "a\u200bb",
    "a byte order mark": "\ufeffa",
    "a soft hyphen": "pay\u00adpal",
    "tags": "a\U000e0041b",
    "half a character": "a\ud800b",
    "no character": "a\ufffeb\U0010ffff",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_could_command_is_marked(name: str) -> None:
    text = HOSTILE[name]
    shown = printable(text)
    assert MARK in shown
    assert len(shown) == len(text)
    assert not UNSAFE.search(shown)
    assert all(unicodedata.category(one) not in ("Cc", "Cf", "Cs", "Zl", "Zp") for one in shown)


@pytest.mark.parametrize("text", ["", "Order 7", "订单 №7, café — ¥12.50", "نان‌وایی", "👩‍👩‍👧", "Ⅷ・㍿", "e\u0301"])
def test_what_people_write_stays(text: str) -> None:
    assert printable(text) == cell(text) == text


def test_every_control_and_format_of_unicode_is_decided() -> None:
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        unsafe = bool(UNSAFE.match(character))
        category = unicodedata.category(character)
        if category in ("Cc", "Cs", "Zl", "Zp"):
            assert unsafe, hex(number)
        elif category == "Cf":
            assert unsafe == (character not in JOINERS | VISIBLE_FORMATS), hex(number)
        elif unsafe:
            assert category == "Cn", hex(number)


def test_length_is_bounded() -> None:
    assert printable("x" * (TEXT_MAX + 1)) == "x" * (TEXT_MAX - 1) + ELLIPSIS
    assert printable("x" * TEXT_MAX) == "x" * TEXT_MAX
    assert printable("\x1b" * 10**6, 5) == MARK * 4 + ELLIPSIS


@pytest.mark.parametrize("start", [*"=+-@", "\uff1d", "\uff0b", "\uff0d", "\uff20", " =", "\u3000="])
def test_a_cell_is_no_formula(start: str) -> None:
    text = f'{start}HYPERLINK("http://x","y")'
    assert cell(text) == "'" + text


@pytest.mark.parametrize("start", ["\t=", "\r=", "\n@"])
def test_nor_is_one_behind_what_spreadsheets_drop(start: str) -> None:
    assert cell(start + "1")[0] == MARK


def test_lines_of_our_own_stay_lines() -> None:
    assert printable_lines("a\nb\x1b[1m\nc") == f"a\nb{MARK}[1m\nc"


@given(
    st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)), st.none() | st.just(1)
)
def test_json_reads_back_exactly_and_commands_nothing(value: object, indent: int | None) -> None:
    written = json_text(value, indent)
    assert json.loads(written) == value
    assert not UNSAFE.search(written.replace("\n", "") if indent else written)


def test_an_entry_of_the_log_cannot_be_forged() -> None:
    formatter = LogFormatter("%(asctime)s %(levelname)s %(message)s")
    try:
        raise ValueError("x\n2026-01-01 00:00:00 CRITICAL forged\x1b[2J")
    except ValueError:
        record = logging.LogRecord("n", logging.ERROR, "", 1, "of %s", ("a\nINFO\x1b[0m b",), sys.exc_info())
    first, *rest = formatter.format(record).split("\n")
    assert first.endswith("ERROR of a")
    assert all(line.startswith("    ") for line in rest)
    assert any(line.strip() == f"INFO{MARK}[0m b" for line in rest)
    assert not any(UNSAFE.search(line) for line in (first, *rest))
