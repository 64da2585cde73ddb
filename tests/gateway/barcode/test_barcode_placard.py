"""Placards: read by other libraries in every format, read when partly covered, and refused where they would not be."""

from __future__ import annotations

import asyncio
import io
import re
import zlib
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

import cv2
import grpc
import numpy as np
import pytest
import qrcode
import zxingcpp
from click.testing import CliRunner
from qrcode.image.styledpil import StyledPilImage
from qrcode.image.styles.moduledrawers.pil import CircleModuleDrawer, RoundedModuleDrawer

from command.barcode import barcode
from gateway.barcode import placard as placards
from gateway.barcode.build import MerchantCode, build_merchant_code
from gateway.barcode.placard import FORMATS, Placard, render_placard
from gateway.barcode.raster import Picture, png
from gateway.barcode.read import read_image
from gateway.barcode.server import BarcodeServicer
from gateway.barcode.symbols import modules_of
from hutong.gateway.v1 import barcode_pb2 as pb
from hutong.gateway.v1 import barcode_pb2_grpc as rpc
from hutong_contract.errors import HutongError, from_rpc_error

pytestmark = pytest.mark.slow

CODE: Final = build_merchant_code(MerchantCode("merchant-1", "Noodle House", "Beijing"))
NAME: Final = "Noodle House 互通"
SVG: Final = "{http://www.w3.org/2000/svg}"
COVERED: Final = 0.10


def logo() -> bytes:
    drawn = np.full((200, 300, 3), (40, 40, 200), dtype=np.uint8)
    cv2.circle(drawn, (150, 100), 70, (255, 255, 255), -1)
    return png(drawn)


STYLES: Final = {
    "plain": Placard(CODE, NAME, ("UnionPay", "PromptPay")),
    "rounded": Placard(CODE, NAME, rounded=True),
    "logo": Placard(CODE, NAME, ("UnionPay",), logo=logo()),
    "rounded, logo": Placard(CODE, NAME, rounded=True, logo=logo(), size="a5"),
    "chinese": Placard(build_merchant_code(MerchantCode("merchant-1", "最佳运输", "北京")), "最佳运输", rounded=True),
}


def grey(picture: Picture) -> Picture:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), dtype=np.uint8)


def by_opencv(picture: Picture) -> set[str]:
    """What OpenCV reads at sizes that a camera would give it."""
    found = set()
    for part in (0.3, 0.45, 0.6, 1.0):
        small = cv2.resize(grey(picture), None, fx=part, fy=part, interpolation=cv2.INTER_AREA)
        found.add(str(cv2.QRCodeDetector().detectAndDecode(small)[0]))
    return found - {""}


def by_zxing(picture: Picture) -> list[str]:
    return [one.text for one in zxingcpp.read_barcodes(grey(picture), text_mode=zxingcpp.TextMode.Plain)]


def opened(data: bytes) -> Picture:
    return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), dtype=np.uint8)


def printed(document: str, scale: int = 12) -> Picture:
    """What an SVG viewer shows of the code: its paths, drawn by the path's own commands."""
    root = ElementTree.fromstring(document)
    code = root.find(f"{SVG}svg")
    assert code is not None
    side = int(code.attrib["viewBox"].split()[2])
    seen = np.full((side * scale, side * scale, 3), 255, dtype=np.uint8)
    path = code.find(f"{SVG}path")
    assert path is not None
    for outline in filter(None, path.attrib["d"].split("M")):
        cv2.fillPoly(
            seen, [np.array([points(outline)], dtype=np.float64).dot(scale).round().astype(np.int32)], (0, 0, 0)
        )
    plate, image = code.find(f"{SVG}rect"), code.find(f"{SVG}image")
    if plate is not None:
        x, y, width, height = (int(float(plate.attrib[name]) * scale) for name in ("x", "y", "width", "height"))
        assert image is not None
        seen[y : y + height, x : x + width] = (40, 40, 200)
    return seen


def points(outline: str) -> list[tuple[float, float]]:
    """The corners of one closed path of M, v, h and quarter circles."""
    start, rest = re.fullmatch(r"([0-9. ]+)((?:[a-z][^a-z]*)+)", outline).groups()  # type: ignore[union-attr]
    x, y = (float(part) for part in start.split())
    found = [(x, y)]
    for command, given in re.findall(r"([a-z])([^a-z]*)", rest):
        numbers = [float(part) for part in re.findall(r"-?(?:[0-9]+\.?[0-9]*|\.[0-9]+)", given)]
        if command == "v":
            y += numbers[0]
        elif command == "h":
            x += numbers[0]
        elif command == "a":
            x, y = x + numbers[-2], y + numbers[-1]
        found.append((x, y))
    return found


def page_of(document: bytes) -> Picture:
    """The one picture of a PDF, by its cross-reference table."""
    table = int(re.findall(rb"startxref\n([0-9]+)", document)[0])
    assert document[table : table + 4] == b"xref"
    starts = [int(start) for start in re.findall(rb"([0-9]{10}) 00000 n ", document[table:])]
    for number, start in enumerate(starts, 1):
        assert document[start:].startswith(b"%d 0 obj" % number)
    head = document[starts[4] : starts[4] + 400]
    width, height, length = (
        int(re.findall(b"/%s ([0-9]+)" % name, head)[0]) for name in (b"Width", b"Height", b"Length")
    )
    data = document[starts[4] + head.index(b"stream\n") + 7 :][:length]
    rgb = np.frombuffer(zlib.decompress(data), dtype=np.uint8).reshape(height, width, 3)
    return np.ascontiguousarray(rgb[:, :, ::-1])


@pytest.mark.parametrize("style", sorted(STYLES))
def test_every_format_is_read_by_two_libraries(style: str) -> None:
    placard = STYLES[style]
    for form in FORMATS:
        data = render_placard(placard, form)
        seen = opened(data) if form == "png" else page_of(data) if form == "pdf" else printed(data.decode("utf-8"))
        assert by_zxing(seen) == [placard.text], form
        if form == "png":
            assert by_opencv(seen) == {placard.text}
            assert [found.text for found in read_image(data)] == [placard.text]


def test_a_page_has_its_size_in_print() -> None:
    for size, (width, height) in list(placards.SIZES_MM.items())[:2]:
        page = page_of(render_placard(Placard(CODE, NAME, size=size), "pdf"))
        assert page.shape[1] == round(width / 25.4 * placards.DPI)
        assert page.shape[0] == round(height / 25.4 * placards.DPI)
        root = ElementTree.fromstring(render_placard(Placard(CODE, NAME, size=size), "svg").decode("utf-8"))
        assert (root.attrib["width"], root.attrib["height"]) == (f"{width}mm", f"{height}mm")


@pytest.mark.parametrize("style", sorted(STYLES))
def test_a_code_is_read_with_a_tenth_of_it_covered(style: str) -> None:
    """Anywhere but on a finder pattern, by anything from black to white."""
    placard = STYLES[style]
    page = opened(render_placard(placard, "png"))
    found = zxingcpp.read_barcodes(grey(page))[0].position
    left, top, side = found.top_left.x, found.top_left.y, found.bottom_right.x - found.top_left.x
    patch, finder = round(side * COVERED**0.5), side * 0.24
    chance = np.random.default_rng(6)
    tried = 0
    while tried < 20:
        x, y = (int(chance.integers(0, side - patch)) for _ in range(2))
        at_left, at_top, at_right, at_bottom = (
            x < finder,
            y < finder,
            x + patch > side - finder,
            y + patch > side - finder,
        )
        if (at_left and at_top) or (at_right and at_top) or (at_left and at_bottom):
            continue
        covered = page.copy()
        covered[top + y : top + y + patch, left + x : left + x + patch] = int(chance.integers(0, 256))
        assert by_zxing(covered) == [placard.text], (x, y, side)
        tried += 1


@pytest.mark.parametrize("drawer", [None, RoundedModuleDrawer(), CircleModuleDrawer()])
def test_what_another_writer_draws_is_read(drawer: object) -> None:
    made = qrcode.QRCode(error_correction=qrcode.constants.ERROR_CORRECT_Q, border=4, box_size=8)
    made.add_data(CODE)
    image = made.make_image(image_factory=StyledPilImage, module_drawer=drawer) if drawer else made.make_image()
    data = io.BytesIO()
    image.save(data, "PNG")
    assert [found.text for found in read_image(data.getvalue())] == [CODE]


@pytest.mark.parametrize(
    ("placard", "form", "told"),
    [
        (Placard(CODE, ""), "png", "merchant_name"),
        (Placard(CODE, "x" * 61), "png", "merchant_name"),
        (Placard(CODE, "a\nb"), "svg", "merchant_name"),
        (Placard(CODE, "ร้านก๋วยเตี๋ยว"), "png", "draw it as SVG"),
        (Placard(CODE, "مطعم"), "pdf", "draw it as SVG"),
        (Placard(CODE, NAME, ("x" * 31,)), "png", "schemes"),
        (Placard(CODE, NAME, ("x",) * 25), "png", "schemes"),
        (Placard(CODE, NAME, ("W" * 30,) * 24), "png", "more than fit"),
        (Placard(CODE, NAME, size="a0"), "png", "size"),
        (Placard(CODE, NAME), "gif", "format"),
        (Placard("", NAME), "png", "text"),
        (Placard("x" * 5_000, NAME), "png", "text"),
        (Placard(CODE, NAME, logo=b"no picture"), "png", "logo"),
        (Placard(CODE, NAME, logo=b"\x00\x00\x00\x18ftypheic" + b"\x00" * 50), "png", "HEIC"),
    ],
)
def test_what_cannot_be_drawn_is_refused(placard: Placard, form: str, told: str) -> None:
    with pytest.raises(HutongError, match=told) as refused:
        render_placard(placard, form)
    assert refused.value.name == "FIELD_INVALID"


def test_a_name_without_letters_here_is_drawn_by_the_printer() -> None:
    document = render_placard(Placard(CODE, "ร้าน <&> ก๋วยเตี๋ยว"), "svg").decode("utf-8")
    texts = [one.text for one in ElementTree.fromstring(document).iter(f"{SVG}text")]
    assert texts == ["ร้าน <&> ก๋วยเตี๋ยว"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_placard_that_does_not_read_back_is_never_handed_out(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = modules_of("something else")
    monkeypatch.setattr("gateway.barcode.placard.modules_of", lambda *_: other)
    monkeypatch.setattr("gateway.barcode.placard.covered_readings", lambda *_: [True])
    with pytest.raises(HutongError, match="read back"):
        render_placard(Placard(CODE, NAME), form)


def test_the_command_writes_what_the_suffix_says(tmp_path: Path) -> None:
    picture = tmp_path / "logo.png"
    picture.write_bytes(logo())
    for suffix, head in ((".pdf", b"%PDF"), (".png", b"\x89PNG"), (".svg", b"<svg")):
        out = tmp_path / f"till{suffix}"
        given = ["placard", CODE, str(out), "--name", NAME, "--takes", "UnionPay", "--rounded", "--logo", str(picture)]
        ran = CliRunner().invoke(barcode, given)
        assert ran.exit_code == 0, ran.output
        assert out.read_bytes().startswith(head)
    refused = CliRunner().invoke(barcode, ["placard", CODE, str(tmp_path / "till.gif"), "--name", NAME])
    assert refused.exit_code == 1
    assert "pdf, png, svg" in refused.output
    assert not (tmp_path / "till.gif").exists()


def test_render_draws_placards() -> None:
    async def run() -> None:
        server = grpc.aio.server()
        servicer = BarcodeServicer()
        rpc.add_BarcodeServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = rpc.BarcodeServiceStub(channel)
                asked = pb.Placard(merchant_name=NAME, schemes=["UnionPay"], rounded=True)
                image = (await stub.Render(pb.RenderRequest(text=CODE, placard=asked))).symbol
                assert by_zxing(opened(image)) == [CODE]
                pdf = pb.RenderRequest(text=CODE, placard=asked, format=pb.SYMBOL_FORMAT_PDF)
                assert (await stub.Render(pdf)).symbol.startswith(b"%PDF")
                for wrong in (
                    pb.RenderRequest(text=CODE, format=pb.SYMBOL_FORMAT_PDF),
                    pb.RenderRequest(text=CODE, placard=asked, format=pb.SYMBOL_FORMAT_TERMINAL),
                    pb.RenderRequest(text=CODE, placard=pb.Placard()),
                ):
                    with pytest.raises(grpc.aio.AioRpcError) as raised:
                        await stub.Render(wrong)
                    error = from_rpc_error(raised.value)
                    assert error is not None
                    assert error.name == "FIELD_INVALID"
        finally:
            await server.stop(None)
            servicer.close()

    asyncio.run(run())
