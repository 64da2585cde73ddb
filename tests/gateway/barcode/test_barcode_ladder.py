"""The ladder of attempts: what each rung is for, what counts as one symbol, and that easy pictures stay cheap."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

import cv2
import numpy as np
import pytest
import zxingcpp

from gateway.barcode import read
from gateway.barcode.charsets import text_of
from gateway.barcode.found import Effort, Symbol
from gateway.barcode.raster import Picture, picture, png
from gateway.barcode.read import Readout, confirmed, merge, read_image, read_picture
from gateway.barcode.symbols import modules_of
from loadtest import barcode_scenes as scenes

pytestmark = pytest.mark.slow

TEXT: Final = "00020101021126330013io.hutong.pay0112merchant-001" * 3
EACH: Final = 6


def shown(kind: str, count: int = EACH) -> list[scenes.Sample]:
    return [scenes.sample(kind, number, TEXT, np.random.default_rng([8, number])) for number in range(count)]


def grey(image: Picture) -> Picture:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), dtype=np.uint8)


def alone(image: Picture) -> set[str]:
    return {one.text for one in zxingcpp.read_barcodes(grey(image), text_mode=zxingcpp.TextMode.Plain)}


@pytest.mark.parametrize(
    ("kind", "least", "more"),
    [
        ("coloured", EACH, True),
        ("linear turned", EACH, True),
        ("curved", 4, True),
        ("covered", 3, True),
        ("unfocused", 2, True),
        ("linear short", EACH, False),
        ("Micro QR", 4, False),
        ("rMQR", 3, False),
        ("Aztec", 3, False),
        ("Data Matrix", 3, False),
        ("PDF417", 2, False),
        ("screen", 4, False),
        ("busy", EACH, False),
        ("inverted", EACH, False),
    ],
)
def test_each_kind_of_picture_is_read(kind: str, least: int, more: bool) -> None:
    """At least so many of six, more than zxing-cpp alone where that is the point, and nothing that is not shown."""
    read_here = read_alone = 0
    for one in shown(kind):
        found = {symbol.text for symbol in read_picture(one.image)}
        assert found <= set(one.texts)
        read_here += found == set(one.texts)
        read_alone += alone(one.image) >= set(one.texts)
    assert read_here >= least
    assert read_here >= read_alone + more


def test_positions_lead_back_to_the_picture_from_every_copy() -> None:
    """Where a symbol is read in a turned, unbent or resized copy, its corners are still the picture's."""
    copies = set()
    for kind in ("linear turned", "curved", "unfocused", "coloured", "rMQR"):
        for one in shown(kind):
            height, width = one.image.shape[:2]
            for symbol in read_picture(one.image):
                copies.add(symbol.reader)
                corners = np.array(symbol.position)
                assert (corners >= -8).all()
                assert (corners <= np.array([width, height]) + 8).all()
                inside = np.zeros((height, width), dtype=np.uint8)
                cv2.fillConvexPoly(inside, corners.astype(np.int32), (255,))
                middle = cv2.dilate(inside, np.ones((9, 9), dtype=np.uint8)) > 0
                assert grey(one.image)[middle].std() > grey(one.image)[~middle].std() / 2
    assert {"zxing+turned", "zxing+unbent", "zxing+colour"} <= copies


def test_what_zxing_reads_costs_little_more_than_zxing_alone() -> None:
    images = [grey(one.image) for kind in ("paper", "perspective", "inverted", "linear") for one in shown(kind)]
    formats = zxingcpp.barcode_formats_from_str("QRCode,MicroQRCode,RMQRCode,Code128")
    ratios = []
    for image in images:
        alone_s = min(timed(partial(zxingcpp.read_barcodes, image, formats=formats)) for _ in range(3))
        here_s = min(timed(partial(read_picture, image)) for _ in range(3))
        ratios.append(here_s / alone_s)
    assert np.median(ratios) <= 3


def timed(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def page(*placed: tuple[Picture, int, int]) -> Picture:
    sheet = np.full((900, 900), 235, dtype=np.uint8)
    for drawn, top, left in placed:
        sheet[top : top + drawn.shape[0], left : left + drawn.shape[1]] = drawn
    return sheet


def test_one_symbol_is_told_once_and_two_alike_twice() -> None:
    drawn = picture(modules_of("the same"), 6)
    one = read_picture(page((drawn, 40, 40)), Effort.THOROUGH)
    assert [symbol.text for symbol in one] == ["the same"]
    two = read_picture(page((drawn, 40, 40), (drawn, 500, 500)), Effort.THOROUGH)
    assert [symbol.text for symbol in two] == ["the same", "the same"]
    label = picture(modules_of("6612345678901234567", "code128"), 2)
    linear = read_picture(page((label, 300, 100)), Effort.THOROUGH)
    assert [symbol.text for symbol in linear] == ["6612345678901234567"]


def test_the_earlier_reading_of_a_place_counts() -> None:
    """What reads something else at the same place adds nothing; at another place it does."""
    first = Symbol("first", "QRCode", ((0, 0), (100, 0), (100, 100), (0, 100)), "zxing")
    near = Symbol("other", "QRCode", ((4, 3), (103, 2), (101, 98), (2, 99)), "opencv")
    far = Symbol("third", "QRCode", ((200, 0), (300, 0), (300, 100), (200, 100)), "opencv")
    found: list[Symbol] = []
    assert merge(found, [first])
    assert not merge(found, [near])
    assert merge(found, [far])
    assert found == [first, far]


def test_a_line_is_one_symbol_wherever_it_was_crossed() -> None:
    high = Symbol("6612345678901234567", "Code128", ((10, 100), (310, 100), (310, 102), (10, 102)), "zxing")
    low = Symbol("6612345678901234567", "Code128", ((10, 160), (310, 160), (310, 162), (10, 162)), "zxing+turned")
    other = Symbol("6700000000000000000", "Code128", ((10, 300), (310, 300), (310, 302), (10, 302)), "zxing")
    found: list[Symbol] = []
    merge(found, [high, low, other])
    assert found == [high, other]


def test_a_weak_reading_counts_when_another_copy_says_the_same_there() -> None:
    short = Symbol("AB12", "Code128", ((0, 0), (100, 0), (100, 2), (0, 2)), "zxing")
    elsewhere = Symbol("AB12", "Code128", ((700, 700), (800, 700), (800, 702), (700, 702)), "zxing+turned")
    differs = Symbol("AB13", "Code128", short.position, "zxing+smaller")
    waiting: list[Symbol] = []
    assert confirmed([Readout(short, weak=True), Readout(short, weak=True)], waiting) == []
    assert confirmed([Readout(elsewhere, weak=True), Readout(differs, weak=True)], waiting) == []
    assert confirmed([Readout(short, weak=True)], waiting) == [short]
    assert confirmed([Readout(differs)], waiting) == [differs]


def test_a_symbol_that_was_corrected_into_another_is_not_believed() -> None:
    """zxing-cpp reads this PDF417 picture as another text, by the last of its error correction."""
    image = scenes.sample("PDF417", 2, TEXT, np.random.default_rng([7, 2]))
    assert alone(image.image)
    assert not alone(image.image) & set(image.texts)
    assert {symbol.text for symbol in read_picture(image.image)} <= set(image.texts)


def test_no_attempt_begins_after_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "LADDER_CPU_S", -1.0)
    steps = list(read.readings(png(picture(modules_of("late"), 4)), Effort.LADDER))
    assert [step.symbols for step in steps] == [()]
    assert not steps[-1].complete


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("最佳运输".encode("gb18030"), "最佳运输"),
        ("00026005北京饭店".encode("gb18030"), "00026005北京饭店"),
        ("BRASÍLIA".encode("latin-1"), "BRASÍLIA"),
        ("São João, ação".encode("latin-1"), "São João, ação"),
        ("Zürich Straße".encode("latin-1"), "Zürich Straße"),
        (b"plain", "plain"),
    ],
)
def test_bytes_without_a_character_set(data: bytes, text: str) -> None:
    assert text_of(data, data.decode("latin-1")) == text


def test_what_the_reader_knew_is_kept() -> None:
    assert text_of("日本橋".encode("shift-jis"), "日本橋") == "日本橋"
    assert text_of("最佳".encode(), "最佳") == "最佳"


def test_colour_is_read_from_a_file_too() -> None:
    one = shown("coloured", 1)[0]
    done, data = cv2.imencode(".png", one.image)
    assert done
    assert not alone(one.image)
    assert [symbol.text for symbol in read_image(bytes(data))] == [TEXT]
