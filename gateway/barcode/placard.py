"""Placards for a till: the merchant's name, its code, the accepted schemes; PDF, PNG and SVG at print size.

The code may have rounded modules and a logo in its middle. Error level and logo size are chosen so that the code is
still read when another tenth of it is covered, which is tried before the placard is returned (`covered_readings`). What
is read back is the finished document, not the modules that it was drawn from.
"""

from __future__ import annotations

import base64
import re
import unicodedata
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from typing import Final

import numpy as np
import zxingcpp
from numpy.typing import NDArray

from gateway.barcode import files
from gateway.barcode.raster import Modules, Picture
from gateway.barcode.symbols import QR, QR_QUIET_MODULES, Style, modules_of
from hutong_contract.errors import HutongError, Reason
from hutong_contract.extras import needs

with needs("pictures"):
    import cv2


SIZES_MM: Final = {"a6": (105.0, 148.0), "a5": (148.0, 210.0), "a4": (210.0, 297.0)}
DEFAULT_SIZE: Final = "a6"
FORMATS: Final = ("pdf", "png", "svg")
DPI: Final = 600
PNG_DPI: Final = 300
NAME_CHARACTERS_MAX: Final = 60
SCHEMES_MAX: Final = 24
SCHEME_CHARACTERS_MAX: Final = 30
LEVEL: Final = "Q"
"""Corrects a quarter of the codewords."""
LEVEL_UNDER_LOGO: Final = "H"
"""Corrects 30 %."""
LOGO_PART_MAX: Final = 0.22
"""Of the code's side: a twentieth of its area."""
LOGO_MODULES_MIN: Final = 5
LOGO_PIXELS_MAX: Final = 16_000_000
COVERED_PART: Final = 0.10
"""Of the code's area, which may be hidden by a thumb, a scratch or a sticker."""

_MM_IN_INCH: Final = 25.4
_POINTS_IN_INCH: Final = 72
_PROOF_SCALE: Final = 6
_STEPS: Final = 5
_FINDER: Final = 9
"""Modules of a finder pattern and what is around it: without one of them nobody finds a code."""
_SHAPES: Final = 16
_INK, _PAPER = 0, 255
_MARGIN: Final = 0.07
_SYMBOL_PART: Final = 0.80
_NAME_PART: Final = 0.085
_SCHEME_PART: Final = 0.038
_TEXT_WEIGHT: Final = 500


@dataclass(frozen=True, slots=True)
class Placard:
    """The content of a placard."""

    text: str
    """The text of the code."""
    merchant_name: str
    schemes: tuple[str, ...] = ()
    """Names as customers know them, at most 24."""
    rounded: bool = False
    logo: bytes = b""
    """A PNG, JPEG, WebP, BMP or TIFF file of the merchant's own."""
    size: str = DEFAULT_SIZE


@dataclass(frozen=True, slots=True)
class _Code:
    """A code as it is drawn: the shape of each module, and the logo over the middle ones."""

    shapes: NDArray[np.uint8]
    """For each module 0 where light, else 1 and the corners that are round: 2, 4, 8, 16 clockwise from the top left."""
    logo: Picture | None = field(repr=False)
    logo_modules: int = 0


@dataclass(frozen=True, slots=True)
class _Text:
    """One line; measures in parts of the page's width."""

    text: str
    x: float
    y: float
    """Of its base line."""
    size: float
    anchor: str = "middle"


def render_placard(placard: Placard, form: str) -> bytes:
    """The placard as a PDF, PNG or SVG file, read back before it is handed out.

    Raises:
        HutongError: FIELD_INVALID where a text does not fit or cannot be drawn, the logo cannot be read, or the code is
            too dense for a logo; INTERNAL where the result does not read back, which is a defect.
    """
    _require(placard, form)
    code = _code(placard)
    if form == "svg":
        document = _svg(placard, code)
        _prove(_pixels(_code_of_svg(document), _PROOF_SCALE), placard.text)
        return document.encode("utf-8")
    page = _page(placard, code, PNG_DPI if form == "png" else DPI)
    if form == "png":
        data = _png(page)
        _prove(np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), np.uint8), placard.text)
        return data
    data = _pdf(page, SIZES_MM[placard.size])
    _prove(_page_of_pdf(data), placard.text)
    return data


def covered_readings(picture: Picture, modules: int, text: str) -> list[bool]:
    """Whether a code is read with a tenth of its area covered, by black and by white, at every place but on a finder
    pattern.

    Args:
        picture: the code alone with its quiet zone, any number of pixels a module.
        modules: its side without the quiet zone.
        text: what it says.
    """
    scale = picture.shape[0] / (modules + 2 * QR_QUIET_MODULES)
    side = round(modules * COVERED_PART**0.5)
    read = []
    for top, left in _places(modules, side):
        corner = [round((at + QR_QUIET_MODULES) * scale) for at in (top, left)]
        for shade in (_INK, _PAPER):
            covered = picture.copy()
            covered[corner[0] : corner[0] + round(side * scale), corner[1] : corner[1] + round(side * scale)] = shade
            read.append(_texts(covered) == [text])
    return read


def _places(modules: int, side: int) -> Iterator[tuple[int, int]]:
    steps = [round(at) for at in np.linspace(0, modules - side, _STEPS)]
    far = modules - _FINDER
    for top in steps:
        for left in steps:
            above, beside = top < _FINDER, left < _FINDER
            below, beyond = top + side > far, left + side > far
            if not ((above and beside) or (above and beyond) or (below and beside)):
                yield top, left


def _require(placard: Placard, form: str) -> None:
    if form not in FORMATS:
        raise _invalid("format", f"{form} is unknown; use {', '.join(FORMATS)}")
    if placard.size not in SIZES_MM:
        raise _invalid("size", f"{placard.size} is unknown; use {', '.join(SIZES_MM)}")
    if not placard.merchant_name.strip():
        raise _invalid("merchant_name", "nothing to write above the code")
    _require_text("merchant_name", placard.merchant_name, NAME_CHARACTERS_MAX, form)
    if len(placard.schemes) > SCHEMES_MAX:
        raise _invalid("schemes", f"{len(placard.schemes)} schemes, at most {SCHEMES_MAX} fit")
    for scheme in placard.schemes:
        _require_text("schemes", scheme, SCHEME_CHARACTERS_MAX, form)


def _require_text(name: str, text: str, longest: int, form: str) -> None:
    if len(text) > longest or not text.isprintable():
        raise _invalid(name, f"at most {longest} characters, all of them printable")
    missing = "" if form == "svg" else "".join(letter for letter in dict.fromkeys(text) if not _can_draw(letter))
    if missing:
        raise _invalid(name, f"no letters for {missing!r} here: draw it as SVG, which uses the printer's own letters")


def _can_draw(letter: str) -> bool:
    """Whether the letters here hold it; those that run from right to left, or change beside others, are not joined."""
    if unicodedata.bidirectional(letter) in {"R", "AL", "AN"} or unicodedata.combining(letter):
        return False
    return letter == "?" or letter.isspace() or not np.array_equal(_drawn(letter), _drawn("?"))


def _drawn(letter: str) -> Picture:
    sheet = np.full((48, 64), _PAPER, dtype=np.uint8)
    cv2.putText(sheet, letter, (4, 38), (_INK,), cv2.FontFace("sans"), 32, _TEXT_WEIGHT)
    return sheet


def _code(placard: Placard) -> _Code:
    """The code with the largest logo with which it is still read when it is partly covered."""
    logo = _logo(placard.logo) if placard.logo else None
    level = LEVEL if logo is None else LEVEL_UNDER_LOGO
    shapes = _shapes(modules_of(placard.text, QR, Style(level=level)), placard.rounded)
    side = len(shapes) - 2 * QR_QUIET_MODULES
    largest = int(side * LOGO_PART_MAX) // 2 * 2 + 1 if logo is not None else 0
    for logo_modules in range(largest, LOGO_MODULES_MIN - 1, -2) if logo is not None else (0,):
        code = _Code(shapes, logo, logo_modules)
        if all(covered_readings(_pixels(code, _PROOF_SCALE), side, placard.text)):
            return code
    if logo is not None:
        raise _invalid("logo", "the code would not be read with a logo when it is partly covered: leave the logo out")
    raise _invalid("text", "the code would not be read when it is partly covered: shorten the text")


def _logo(data: bytes) -> Picture:
    try:
        width, height = files.require_readable(data)
    except HutongError as error:
        raise _invalid("logo", error.fields["problem"]) from error
    if width * height > LOGO_PIXELS_MAX:
        raise _invalid("logo", f"{width} by {height} pixels, at most {LOGO_PIXELS_MAX} in all")
    try:
        logo = cv2.imdecode(np.frombuffer(files.without_fill(data), np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        logo = None
    if logo is None:
        raise _invalid("logo", "not a picture that can be read")
    side = max(logo.shape[:2])
    square = np.full((side, side, 3), _PAPER, dtype=np.uint8)
    top, left = (side - logo.shape[0]) // 2, (side - logo.shape[1]) // 2
    square[top : top + logo.shape[0], left : left + logo.shape[1]] = logo
    return np.asarray(cv2.resize(square, (512, 512), interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _shapes(modules: Modules, rounded: bool) -> NDArray[np.uint8]:
    dark = np.pad(modules, 1)
    middle = dark[1:-1, 1:-1]
    above, below, left, right = dark[:-2, 1:-1], dark[2:, 1:-1], dark[1:-1, :-2], dark[1:-1, 2:]
    corners = np.zeros(modules.shape, dtype=np.uint8)
    if rounded:
        for bit, (one, other) in enumerate(((above, left), (above, right), (below, right), (below, left))):
            corners |= (~one & ~other).astype(np.uint8) << np.uint8(bit)
    return np.where(middle, corners * 2 + 1, 0).astype(np.uint8)


def _stamps(scale: int) -> NDArray[np.uint8]:
    """The pixels of a module of each shape: what is outside a rounded corner's circle is paper."""
    down, across = (np.mgrid[:scale, :scale] + 0.5) / scale - 0.5
    outside = np.hypot(down, across) > 0.5
    quarters = (
        (down < 0) & (across < 0), (down < 0) & (across >= 0), (down >= 0) & (across >= 0), (down >= 0) & (across < 0),
    )  # fmt: skip
    stamps = np.full((2 * _SHAPES, scale, scale), _PAPER, dtype=np.uint8)
    for corners in range(_SHAPES):
        light = np.zeros((scale, scale), dtype=np.bool_)
        for bit, quarter in enumerate(quarters):
            if corners >> bit & 1:
                light |= quarter & outside
        stamps[corners * 2 + 1] = np.where(light, _PAPER, _INK)
    return stamps


def _pixels(code: _Code, scale: int) -> Picture:
    """The code in colour, `scale` pixels a module."""
    side = len(code.shapes) * scale
    grey = _stamps(scale)[code.shapes].transpose(0, 2, 1, 3).reshape(side, side)
    picture = np.repeat(grey[:, :, None], 3, axis=2)
    if code.logo is not None:
        span, inner = code.logo_modules * scale, (code.logo_modules - 1) * scale
        start = (side - span) // 2
        picture[start : start + span, start : start + span] = _PAPER
        start = (side - inner) // 2
        small = cv2.resize(code.logo, (inner, inner), interpolation=cv2.INTER_AREA)
        picture[start : start + inner, start : start + inner] = small
    return picture


def _lines(placard: Placard) -> list[_Text]:
    """The texts and where they stand."""
    width, height = SIZES_MM[placard.size]
    room = 1 - 2 * _MARGIN
    size = min(_NAME_PART, _NAME_PART * room / max(_width(placard.merchant_name, _NAME_PART), 1e-9))
    lines = [_Text(placard.merchant_name, 0.5, _MARGIN + _NAME_PART, size)]
    y = _MARGIN + 1.5 * _NAME_PART + _SYMBOL_PART + 2 * _SCHEME_PART
    row = ""
    rows = []
    for scheme in placard.schemes:
        longer = f"{row}  ·  {scheme}" if row else scheme
        if row and _width(longer, _SCHEME_PART) > room:
            rows.append(row)
            longer = scheme
        row = longer
    rows += [row] if row else []
    for number, text in enumerate(rows):
        lines.append(_Text(text, 0.5, y + number * 1.6 * _SCHEME_PART, _SCHEME_PART))
    if lines[-1].y > height / width - _MARGIN / 2:
        raise _invalid("schemes", "more than fit below the code: name fewer, or shorter ones")
    return lines


def _width(text: str, size: float) -> float:
    """Of a text, in parts of the page's width."""
    points = 100
    box = cv2.getTextSize((0, 0), text, (0, 0), cv2.FontFace("sans"), points, _TEXT_WEIGHT)
    return float(box[2]) / points * size


def _page(placard: Placard, code: _Code, dpi: int) -> Picture:
    width, height = (round(side / _MM_IN_INCH * dpi) for side in SIZES_MM[placard.size])
    page = np.full((height, width, 3), _PAPER, dtype=np.uint8)
    drawn = _pixels(code, int(width * _SYMBOL_PART) // len(code.shapes))
    top, left = round((_MARGIN + 1.5 * _NAME_PART) * width), (width - len(drawn)) // 2
    page[top : top + len(drawn), left : left + len(drawn)] = drawn
    for line in _lines(placard):
        size = int(line.size * width)
        x = round(line.x * width - _width(line.text, size) / 2)
        cv2.putText(page, line.text, (x, round(line.y * width)), (_INK,) * 3, cv2.FontFace("sans"), size, _TEXT_WEIGHT)
    return page


_CORNERS: Final = (
    ("a.5 .5 0 0 1 .5-.5", "v-.5h.5"),
    ("a.5 .5 0 0 1 .5 .5", "h.5v.5"),
    ("a.5 .5 0 0 1-.5 .5", "v.5h-.5"),
    ("a.5 .5 0 0 1-.5-.5", "h-.5v-.5"),
)
"""From the middle of one side to that of the next, clockwise from the left: round, or square."""
_OUTLINES: Final = {
    "".join(pair[0] if corners >> bit & 1 else pair[1] for bit, pair in enumerate(_CORNERS)) + "z": corners * 2 + 1
    for corners in range(_SHAPES)
}
_OUTLINE_OF: Final = {shape: outline for outline, shape in _OUTLINES.items()}
_SVG_CODE: Final = re.compile(r'<svg x="[0-9.]+" y="[0-9.]+" width="[0-9.]+" height="[0-9.]+" viewBox="0 0 ([0-9]+) ')
_SVG_MODULES: Final = re.compile(r'<path d="([^"]*)"/>')
_SVG_MODULE: Final = re.compile(r"M([0-9]+) ([0-9]+)\.5([^M]+)")
_SVG_LOGO: Final = re.compile(r'<image [^>]*width="([0-9]+)" [^>]*href="data:image/png;base64,([^"]+)"')


def _svg(placard: Placard, code: _Code) -> str:
    """One document; measures are millimetres outside the code, and modules inside."""
    width, height = SIZES_MM[placard.size]
    side, span = len(code.shapes), width * _SYMBOL_PART
    modules = "".join(
        f"M{x} {y}.5{_OUTLINE_OF[int(code.shapes[y, x])]}" for y, x in zip(*np.nonzero(code.shapes), strict=True)
    )
    middle = ""
    if code.logo is not None:
        plate, inner = (side - code.logo_modules) // 2, code.logo_modules - 1
        data = base64.b64encode(_png(code.logo)).decode("ascii")
        at = (side - inner) / 2
        middle = (
            f'<rect x="{plate}" y="{plate}" width="{code.logo_modules}" height="{code.logo_modules}" fill="#fff"/>'
            f'<image x="{at}" y="{at}" width="{inner}" height="{inner}" href="data:image/png;base64,{data}"/>'
        )
    texts = "".join(
        f'<text x="{line.x * width:.2f}" y="{line.y * width:.2f}" font-size="{line.size * width:.2f}" '
        f'text-anchor="middle" font-family="sans-serif">{escape(line.text)}</text>'
        for line in _lines(placard)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}mm" height="{height}mm" viewBox="0 0 {width} {height}">'
        f'<rect width="{width}" height="{height}" fill="#fff"/>'
        f'<svg x="{(width - span) / 2:.2f}" y="{(_MARGIN + 1.5 * _NAME_PART) * width:.2f}" width="{span:.2f}" '
        f'height="{span:.2f}" viewBox="0 0 {side} {side}"><path d="{modules}"/>{middle}</svg>{texts}</svg>\n'
    )


def _code_of_svg(document: str) -> _Code:
    """What the document draws."""
    size, modules, logo = _SVG_CODE.search(document), _SVG_MODULES.search(document), _SVG_LOGO.search(document)
    assert size is not None, "every placard holds a code"
    assert modules is not None, "every code has dark modules"
    shapes = np.zeros((int(size[1]), int(size[1])), dtype=np.uint8)
    for x, y, outline in _SVG_MODULE.findall(modules[1]):
        shapes[int(y), int(x)] = _OUTLINES[outline]
    if logo is None:
        return _Code(shapes, None)
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(logo[2]), np.uint8), cv2.IMREAD_COLOR)
    return _Code(shapes, np.asarray(picture, dtype=np.uint8), int(logo[1]) + 1)


def _png(picture: Picture) -> bytes:
    done, data = cv2.imencode(".png", picture)
    assert done, "OpenCV writes PNG files of any picture"
    return bytes(data)


def _pdf(page: Picture, size_mm: tuple[float, float]) -> bytes:
    """One page that one picture fills."""
    height, width = page.shape[:2]
    wide, high = (side / _MM_IN_INCH * _POINTS_IN_INCH for side in size_mm)
    pixels = zlib.compress(np.ascontiguousarray(page[:, :, ::-1]).tobytes(), 6)
    drawing = f"q {wide:.3f} 0 0 {high:.3f} 0 0 cm /P Do Q".encode("ascii")
    picture = (
        f"/Type /XObject /Subtype /Image /Width {width} /Height {height} /ColorSpace /DeviceRGB /BitsPerComponent 8"
    )
    objects = (
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        f"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 {wide:.3f} {high:.3f}] /Contents 4 0 R "
        "/Resources << /XObject << /P 5 0 R >> >> >>".encode("ascii"),
        f"<< /Length {len(drawing)} >>\nstream\n".encode("ascii") + drawing + b"\nendstream",
        f"<< {picture} /Filter /FlateDecode /Length {len(pixels)} >>\nstream\n".encode("ascii")
        + pixels
        + b"\nendstream",
    )
    document = bytearray(b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n")
    starts = []
    for number, body in enumerate(objects, 1):
        starts.append(len(document))
        document += f"{number} 0 obj\n".encode("ascii") + body + b"\nendobj\n"
    table = len(document)
    document += f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode("ascii")
    document += b"".join(f"{start:010d} 00000 n \n".encode("ascii") for start in starts)
    document += f"trailer << /Size {len(objects) + 1} /Root 1 0 R >>\nstartxref\n{table}\n%%EOF\n".encode("ascii")
    return bytes(document)


_PDF_PICTURE: Final = re.compile(rb"/Width ([0-9]+) /Height ([0-9]+) [^>]*/Length ([0-9]+) >>\nstream\n")


def _page_of_pdf(document: bytes) -> Picture:
    head = _PDF_PICTURE.search(document)
    assert head is not None, "the picture that was just written"
    width, height, length = (int(part) for part in head.groups())
    pixels = zlib.decompress(document[head.end() : head.end() + length])
    return np.frombuffer(pixels, dtype=np.uint8).reshape(height, width, 3)[:, :, ::-1]


def _prove(picture: Picture, text: str) -> None:
    if _texts(picture) != [text]:
        raise HutongError(Reason.ERROR_REASON_INTERNAL, problem="the placard does not read back as it was written")


def _texts(picture: Picture) -> list[str]:
    grey = np.asarray(cv2.cvtColor(np.ascontiguousarray(picture), cv2.COLOR_BGR2GRAY), dtype=np.uint8)
    formats = zxingcpp.BarcodeFormats([zxingcpp.BarcodeFormat.QRCode])
    return [one.text for one in zxingcpp.read_barcodes(grey, formats=formats, text_mode=zxingcpp.TextMode.Plain)]


def _invalid(name: str, problem: str) -> HutongError:
    return HutongError(Reason.ERROR_REASON_FIELD_INVALID, field=name, problem=problem)
