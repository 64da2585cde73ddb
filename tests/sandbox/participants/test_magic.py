"""Proves that the documented table of magic amounts is the table in code."""

from __future__ import annotations

from pathlib import Path

from sandbox.participants.magic import MAGIC, MODULUS

GUIDE = Path(__file__).parents[3] / "docs" / "clients.md"


def test_the_guide_lists_every_magic_amount_and_no_other() -> None:
    table = GUIDE.read_text(encoding="utf-8").partition("## Magic amounts")[2]
    rows = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| 9")]
    listed = {int(amount.replace(".", "")): text for amount, text in rows}
    assert listed == {digits: line.text for digits, line in MAGIC.items()}


def test_magic_stays_out_of_the_way_of_ordinary_prices() -> None:
    assert all(9_000 <= digits < MODULUS for digits in MAGIC)
    assert len(MAGIC) < MODULUS // 100
