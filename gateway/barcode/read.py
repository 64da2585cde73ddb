"""Reads symbols from pictures: zxing-cpp first, then OpenCV and mended copies for what it could not read.

`read_image` returns what zxing-cpp reads, plus what the second stage adds: pictures that are dark, blurred, small or
tilted are mended (contrast, sharpening, scale) and read again, and OpenCV's two QR detectors look at the original.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import zxingcpp

from contract.errors import HutongError, Reason
from gateway.barcode.raster import Picture

FILE_BYTES_MAX: Final = 64 * 1024 * 1024
PIXELS_MAX: Final = 200_000_000
"""A camera of 200 megapixels; a file that claims more is refused before it is unpacked."""
SYMBOLS_MAX: Final = 64
SECOND_STAGE_SIDE_MAX: Final = 2_000
"""Mended copies are at most this large: QR modules survive it, and the time is bounded."""
SMALL_SIDE: Final = 400
"""Pictures smaller than this are enlarged for the second stage."""
LINEAR_CHARACTERS_MIN: Final = 8
"""Shorter one-dimensional readings are noise far more often than they are codes."""
QR_CODE: Final = "QRCode"
CODE_128: Final = "Code128"
_FORMATS: Final = zxingcpp.BarcodeFormats([zxingcpp.BarcodeFormat.QRCode, zxingcpp.BarcodeFormat.Code128])
_PNG_HEAD: Final = b"\x89PNG\r\n\x1a\n"

Point = tuple[int, int]


class Effort(enum.Enum):
    """How far to go."""

    FIRST = "first"
    """zxing-cpp alone."""
    SECOND = "second"
    """The second stage where the first found nothing: a terminal that scans one code."""
    BOTH = "both"
    """The second stage always: a picture that may show several codes, some of them badly."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """One symbol that was found."""

    text: str
    format: str
    """`QRCode` or `Code128`."""
    position: tuple[Point, Point, Point, Point]
    """Corners in pixels of the picture, from the symbol's top left, clockwise."""
    reader: str
    """`zxing` or `opencv`, with `+mended` where a mended copy was read."""


def read_image(source: bytes | str | Path, effort: Effort = Effort.SECOND) -> list[Symbol]:
    """Every QR and Code 128 symbol of a picture.

    Args:
        source: the bytes of a PNG, JPEG, WebP, BMP or TIFF file, or the path of one.
        effort: how far to go.

    Raises:
        HutongError: FIELD_INVALID where the file cannot be read as a picture, or is too large.
    """
    return read_picture(_load(source), effort)


def read_picture(grey: Picture, effort: Effort = Effort.SECOND) -> list[Symbol]:
    """Every symbol of grey values, as `read_image`."""
    found = _zxing(grey, 1.0, "zxing")
    if effort is Effort.BOTH or (effort is Effort.SECOND and not found):
        seen = {symbol.text for symbol in found}
        for symbol in _second_stage(grey, first_only=effort is Effort.SECOND):
            if symbol.text not in seen:
                seen.add(symbol.text)
                found.append(symbol)
    return found[:SYMBOLS_MAX]


def _second_stage(grey: Picture, *, first_only: bool) -> list[Symbol]:
    """What mended copies and OpenCV's detectors read; `first_only` stops at the first that reads something."""
    height, width = grey.shape
    scale = min(1.0, SECOND_STAGE_SIDE_MAX / max(height, width))
    if max(height, width) < SMALL_SIDE:
        scale = 3.0
    sized = grey if scale == 1.0 else _resized(grey, scale)
    found: list[Symbol] = []
    for mended in _mended(sized):
        found += _zxing(mended, scale, "zxing+mended")
        if found and first_only:
            return found
    return found + _opencv(sized, scale)


def _mended(grey: Picture) -> Iterator[Picture]:
    """Copies in which a symbol may show better: stretched contrast, local contrast, sharpened, smoothed."""
    yield grey
    low, high = np.percentile(grey, (1, 99))
    if high > low:
        stretched = np.clip((grey.astype(np.float32) - low) * (255.0 / (high - low)), 0, 255).astype(np.uint8)
        yield stretched
    local = cv2.createCLAHE(clipLimit=4.0, tileGridSize=(8, 8)).apply(grey)
    yield np.asarray(local, dtype=np.uint8)
    for sigma in (1.5, 3.0):
        soft = cv2.GaussianBlur(grey, (0, 0), sigma)
        yield np.asarray(cv2.addWeighted(grey, 2.5, soft, -1.5, 0), dtype=np.uint8)
    yield np.asarray(cv2.medianBlur(grey, 3), dtype=np.uint8)


def _resized(grey: Picture, scale: float) -> Picture:
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=how), dtype=np.uint8)


def _zxing(grey: Picture, scale: float, reader: str) -> list[Symbol]:
    barcodes = zxingcpp.read_barcodes(grey, formats=_FORMATS, text_mode=zxingcpp.TextMode.Plain)
    return [
        _symbol(barcode, scale, reader)
        for barcode in barcodes
        if barcode.valid and (QR_CODE in barcode.format.name or len(barcode.text) >= LINEAR_CHARACTERS_MIN)
    ]


def _symbol(barcode: zxingcpp.Barcode, scale: float, reader: str) -> Symbol:
    where = barcode.position
    corners = (where.top_left, where.top_right, where.bottom_right, where.bottom_left)
    first, second, third, fourth = ((round(p.x / scale), round(p.y / scale)) for p in corners)
    name = QR_CODE if QR_CODE in barcode.format.name else CODE_128
    return Symbol(barcode.text, name, (first, second, third, fourth), reader)


def _opencv(grey: Picture, scale: float) -> list[Symbol]:
    for detector in (cv2.QRCodeDetectorAruco(), cv2.QRCodeDetector()):
        try:
            read, texts, corners, _ = detector.detectAndDecodeMulti(grey)
        except cv2.error:
            continue  # OpenCV asserts on some pictures where it should answer that it found nothing.
        if read and corners is not None:
            found = [
                Symbol(text, QR_CODE, _corners(quad, scale), "opencv")
                for text, quad in zip(texts, corners, strict=True)
                if text
            ]
            if found:
                return found
    return []


def _corners(quad: Picture, scale: float) -> tuple[Point, Point, Point, Point]:
    first, second, third, fourth = ((round(float(x) / scale), round(float(y) / scale)) for x, y in quad)
    return first, second, third, fourth


def _load(source: bytes | str | Path) -> Picture:
    data = source if isinstance(source, bytes) else _read_file(Path(source))
    if len(data) > FILE_BYTES_MAX:
        raise _invalid(f"larger than {FILE_BYTES_MAX} bytes")
    if data.startswith(_PNG_HEAD) and len(data) >= 24:
        width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
        if width * height > PIXELS_MAX:
            raise _invalid(f"{width} by {height} pixels, at most {PIXELS_MAX} in all")
    try:
        grey = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_GRAYSCALE) if data else None
    except cv2.error as error:
        raise _invalid("the file cannot be unpacked") from error
    if grey is None:
        raise _invalid("not a picture in a format that is known here (PNG, JPEG, WebP, BMP, TIFF)")
    return np.asarray(grey, dtype=np.uint8)


def _read_file(path: Path) -> bytes:
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise _invalid(f"larger than {FILE_BYTES_MAX} bytes")
        return path.read_bytes()
    except OSError as error:
        raise _invalid(f"{path}: {error.strerror}") from error


def _invalid(problem: str) -> HutongError:
    return HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="image", problem=problem)
