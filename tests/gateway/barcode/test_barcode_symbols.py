"""Symbols: by EMVCo's rules, read back by a library that did not write them, and found in bad pictures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import pytest
import zxingcpp

from gateway.barcode import symbols
from gateway.barcode.build import MerchantCode, build_merchant_code
from gateway.barcode.found import Effort
from gateway.barcode.raster import Picture, modules_of_svg, modules_of_terminal, picture, png
from gateway.barcode.read import read_image, read_picture
from gateway.barcode.symbols import Style, modules_of, render_png, render_svg, render_terminal
from hutong_contract.errors import HutongError
from loadtest import pictures as pictures

CODE: Final = build_merchant_code(MerchantCode("merchant-1", "Noodle House", "Beijing", amount_minor=1250))
CHINESE: Final = build_merchant_code(MerchantCode("merchant-1", "最佳运输", "北京"))
DIGITS: Final = "6612345678901234567"


def grey(data: bytes) -> Picture:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE), dtype=np.uint8)


def by_opencv(seen: Picture) -> str:
    text, _, _ = cv2.QRCodeDetector().detectAndDecode(seen)
    return str(text)


def by_opencv_linear(seen: Picture) -> str:
    # OpenCV reads EAN and UPC only; zxing-cpp did not draw this symbol's pixels, the raster module did.
    read = zxingcpp.read_barcodes(seen)
    return read[0].text if read else ""


@pytest.mark.parametrize("text", [CODE, CHINESE, DIGITS, "upi://pay?pa=a.b@icici"])
@pytest.mark.parametrize("level", ["L", "M", "Q", "H"])
def test_png_is_read_by_another_library(text: str, level: str) -> None:
    assert by_opencv(grey(render_png(text, style=Style(level=level)))) == text


@pytest.mark.parametrize("text", [CODE, CHINESE])
def test_svg_and_terminal_are_read_by_another_library(text: str) -> None:
    assert by_opencv(picture(modules_of_svg(render_svg(text)), 6)) == text
    assert by_opencv(picture(modules_of_terminal(render_terminal(text)), 6)) == text


def test_code_128_in_every_form() -> None:
    assert by_opencv_linear(grey(render_png(DIGITS, "code128"))) == DIGITS
    assert by_opencv_linear(picture(modules_of_svg(render_svg(DIGITS, "code128")), 3)) == DIGITS
    assert by_opencv_linear(picture(modules_of_terminal(render_terminal(DIGITS, "code128")), 3, 12)) == DIGITS


def test_byte_mode_only_even_for_digits() -> None:
    # 19 digits in byte mode need version 2 at level M; numeric mode would fit version 1.
    assert modules_of(DIGITS).shape == (25 + 8, 25 + 8)


def has_eci(text: str, wanted: bool | None) -> bool:
    """Whether the symbol names ECI 26, by the reader's own account: `]Q2` and the designator, else `]Q1`."""
    seen = picture(modules_of(text, style=Style(eci=wanted)), 4)
    told = bytes.fromhex(zxingcpp.read_barcodes(seen, text_mode=zxingcpp.TextMode.HexECI)[0].text)
    assert told[:3] in {b"]Q1", b"]Q2"}
    assert (told[:3] == b"]Q2") == (told[3:10] == b"\\000026")
    return told[:3] == b"]Q2"


def test_eci_stands_where_a_character_needs_it_and_can_be_switched() -> None:
    assert not has_eci(CODE, None)
    assert has_eci(CHINESE, None)
    assert has_eci(CODE, True)
    assert not has_eci(CHINESE, False)


def test_the_quiet_zone_is_four_modules() -> None:
    modules = modules_of(CODE)
    for edge in (modules[:4], modules[-4:], modules[:, :4], modules[:, -4:]):
        assert not edge.any()
    assert modules[4, 4]


def test_a_symbol_that_does_not_read_back_is_never_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    other = modules_of("something else entirely")
    monkeypatch.setattr(symbols, "modules_of", lambda *_: other)
    for writer in (render_png, render_svg, render_terminal):
        with pytest.raises(HutongError, match="read back"):
            writer(CODE)


@pytest.mark.parametrize(
    ("text", "symbology", "style"),
    [
        ("", "qr", Style()),
        ("x" * 5000, "qr", Style()),
        ("x", "aztec", Style()),
        ("x", "qr", Style(level="Z")),
        ("x", "qr", Style(scale=0)),
        ("x", "qr", Style(scale=65)),
        ("北京", "code128", Style()),
        ("1" * 81, "code128", Style()),
    ],
)
def test_what_does_not_fit_is_refused(text: str, symbology: str, style: Style) -> None:
    with pytest.raises(HutongError) as refused:
        render_png(text, symbology, style)
    assert refused.value.name == "FIELD_INVALID"


def test_several_codes_in_one_picture() -> None:
    texts = [CODE, CHINESE, DIGITS]
    drawn = [picture(modules_of(text, "code128" if text == DIGITS else "qr"), 4) for text in texts]
    page = np.full((900, 900), 220, dtype=np.uint8)
    for each, (top, left) in zip(drawn, ((20, 20), (20, 450), (600, 60)), strict=True):
        page[top : top + each.shape[0], left : left + each.shape[1]] = each
    found = read_image(png(page), Effort.THOROUGH)
    assert {symbol.text for symbol in found} == set(texts)
    assert {symbol.format for symbol in found} == {"QRCode", "Code128"}
    for symbol in found:
        assert all(0 <= x <= 900 and 0 <= y <= 900 for x, y in symbol.position)


@pytest.mark.parametrize("distortion", sorted(pictures.DISTORTIONS))
@pytest.mark.parametrize(("text", "symbology"), [(CODE, "qr"), (DIGITS, "code128")])
def test_bad_pictures_are_read_and_nothing_that_zxing_reads_is_lost(distortion: str, text: str, symbology: str) -> None:
    chance = np.random.default_rng(4)
    read = alone = 0
    for _ in range(2):
        seen = pictures.seen(text, symbology, distortion, chance)
        formats = zxingcpp.BarcodeFormats([zxingcpp.BarcodeFormat.QRCode, zxingcpp.BarcodeFormat.Code128])
        alone += text in {barcode.text for barcode in zxingcpp.read_barcodes(seen, formats=formats)}
        found = {symbol.text for symbol in read_picture(seen)}
        assert found <= {text}
        read += text in found
    assert read >= alone
    assert read or symbology == "code128"


def test_the_second_stage_adds_readings() -> None:
    chance = np.random.default_rng(9)
    seen = [pictures.seen(CODE, "qr", kind, chance) for kind in ("small", "blurred") for _ in range(10)]
    first = sum(bool(read_picture(each, Effort.PLAIN)) for each in seen)
    second = sum(bool(read_picture(each, Effort.LADDER)) for each in seen)
    assert second > first


def test_pictures_without_a_code_show_none() -> None:
    chance = np.random.default_rng(2)
    assert [read_picture(pictures.empty(number, chance)) for number in range(18)] == [[]] * 18


def test_a_file_is_read_by_its_path(tmp_path: Path) -> None:
    path = tmp_path / "code.png"
    path.write_bytes(render_png(CODE))
    assert [symbol.text for symbol in read_image(path)] == [CODE]
    assert [symbol.text for symbol in read_image(str(path))] == [CODE]


@pytest.mark.parametrize("data", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"\x00" * 40])
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    with pytest.raises(HutongError, match="not a picture"):
        read_image(data)


def test_a_picture_that_claims_to_be_enormous_is_not_unpacked() -> None:
    claim = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (60_000).to_bytes(4) * 2 + b"\x08\x00\x00\x00\x00"
    with pytest.raises(HutongError, match="60000 by 60000"):
        read_image(claim)


def test_svg_is_one_self_contained_document() -> None:
    document = render_svg(CODE)
    assert re.match(r"<svg [^>]+>", document)
    assert "http" not in document.replace("http://www.w3.org/2000/svg", "")
