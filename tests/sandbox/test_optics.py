"""Proves that codes rendered are codes read: every merchant's and wallet's code, as a file that was really written."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway import barcode, directory
from hutong_client.optics import CODE_128, QR
from hutong_contract.payment_code import offline_code, online_code
from sandbox.cameras import Optics, UnreadableError
from sandbox.optics import GatewaySymbols, MerchantPrinter
from sandbox.population import Merchant, populate

POPULATION = populate(7)
DIRECTORY = directory.parse(json.loads(POPULATION.directory()))


@pytest.fixture
def optics(tmp_path: Path) -> Optics:
    return Optics(GatewaySymbols(), tmp_path / "images")


@pytest.mark.parametrize("merchant", POPULATION.merchants, ids=lambda one: f"{one.id}-{one.scheme}")
@pytest.mark.parametrize("amount", [None, 1, 8_999, 123_456])
def test_every_merchants_code_leads_back_to_the_merchant(
    optics: Optics, merchant: Merchant, amount: int | None
) -> None:
    terminal = merchant.terminals[1]
    text = MerchantPrinter().merchant_code(merchant, terminal, amount)
    image = optics.show(merchant.id, text)
    assert image.read_bytes().startswith(b"\x89PNG")
    seen = optics.scan(image)
    assert seen == text
    decoded = barcode.decode(seen)
    assert decoded.routing is not None
    found = DIRECTORY.merchant(decoded.routing.scheme, decoded.routing.payee)
    assert found is not None
    assert found.id == merchant.id
    assert decoded.routing.terminal_id == terminal
    assert decoded.amount_minor == amount
    assert decoded.currency == merchant.currency
    assert decoded.initiation == ("static" if amount is None else "dynamic")


@pytest.mark.parametrize("symbology", [QR, CODE_128])
@pytest.mark.parametrize(
    "code", [online_code(lambda below: below // 3), offline_code("123456789", b"k" * 32, 0)], ids=["online", "offline"]
)
def test_every_payment_code_is_read_from_both_symbols(optics: Optics, symbology: str, code: str) -> None:
    assert optics.scan(optics.show("wallet", code, symbology)) == code


def test_what_is_shown_replaces_what_was_shown(optics: Optics) -> None:
    first = optics.show("screen", "6600000000000000001")
    second = optics.show("screen", "6600000000000000002")
    assert first == second
    assert optics.scan(first) == "6600000000000000002"


def test_an_image_without_one_symbol_is_refused(optics: Optics, tmp_path: Path) -> None:
    import cv2
    import numpy as np

    blank = tmp_path / "blank.png"
    cv2.imwrite(str(blank), np.full((200, 200), 255, np.uint8))
    with pytest.raises(UnreadableError, match="0 symbols"):
        optics.scan(blank)
    pictures = [cv2.imread(str(optics.show(name, f"code {name}")), cv2.IMREAD_GRAYSCALE) for name in "ab"]
    both = tmp_path / "both.png"
    cv2.imwrite(str(both), np.hstack([one for one in pictures if one is not None]))
    with pytest.raises(UnreadableError, match="2 symbols"):
        optics.scan(both)
