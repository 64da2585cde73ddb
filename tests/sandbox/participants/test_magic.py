"""Proves that the documented table of magic amounts is the table in code."""

from __future__ import annotations

from pathlib import Path

from sandbox.participants.magic import MAGIC, MODULUS, table

GUIDE = Path(__file__).parents[3] / "README.md"


def test_the_guide_shows_the_table_as_it_is() -> None:
    assert table() in GUIDE.read_text("utf-8")


def test_magic_stays_out_of_the_way_of_ordinary_prices() -> None:
    assert all(9_000 <= digits < MODULUS for digits in MAGIC)
    assert len(MAGIC) < MODULUS // 100
