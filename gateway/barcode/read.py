"""Reads symbols from pictures: a ladder of attempts, cheap ones first, that stops at the first reading.

The first attempt is zxing-cpp on the picture as it is. What it cannot read is mended (contrast, sharpening, scale) and
tried again, and last OpenCV's two QR detectors look at it. Every reading is one that the symbol's own error correction
or check character confirmed.

This runs in the caller's process and may take minutes on a hostile picture: what comes from outside goes through
`sandbox`, which runs the same ladder under limits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import zxingcpp

from gateway.barcode import files
from gateway.barcode.found import CODE_128, QR_CODE, SYMBOLS_MAX, Effort, Point, Reading, Symbol
from gateway.barcode.raster import Picture

LADDER_CPU_S: Final = 1.5
"""No attempt begins after so much processor time."""
SECOND_STAGE_SIDE_MAX: Final = 2_000
"""Mended copies are at most this large: QR modules survive it, and the time is bounded."""
SMALL_SIDE: Final = 400
"""Pictures smaller than this are enlarged for the mended copies."""
LINEAR_CHARACTERS_MIN: Final = 8
"""Shorter one-dimensional readings are noise far more often than they are codes."""

Mend = Callable[[Picture], Picture]
Detector = Callable[[], cv2.QRCodeDetector | cv2.QRCodeDetectorAruco]

_FORMATS: Final = zxingcpp.BarcodeFormats([zxingcpp.BarcodeFormat.QRCode, zxingcpp.BarcodeFormat.Code128])
_SAME_AREA: Final = 0.4
_PURE_SCALE: Final = 4
_PURE_QUIET: Final = 4


def read_image(source: bytes | str | Path, effort: Effort = Effort.LADDER) -> list[Symbol]:
    """Every QR and Code 128 symbol of a picture of our own; one from outside is for `sandbox.Reader`.

    Args:
        source: the bytes of a PNG, JPEG, WebP, BMP or TIFF file, or the path of one.
        effort: how far to go.

    Raises:
        HutongError: FIELD_INVALID where the file cannot be read as a picture, or is too large.
    """
    data = source if isinstance(source, bytes) else files.read_file(Path(source))
    return _last(readings(data, effort))


def read_picture(grey: Picture, effort: Effort = Effort.LADDER) -> list[Symbol]:
    """Every symbol of grey values, as `read_image`."""
    return _last(_climb(grey, effort))


def readings(data: bytes, effort: Effort) -> Iterator[Reading]:
    """What is found, again after every attempt that found more, and once at the end.

    Raises:
        HutongError: as `read_image`.
    """
    return _climb(_load(data), effort)


def warm_up() -> None:
    """Loads and runs what the first picture would otherwise wait for."""
    read_picture(np.full((32, 32), 255, dtype=np.uint8), Effort.THOROUGH)


def _last(steps: Iterator[Reading]) -> list[Symbol]:
    reading = Reading(())
    for reading in steps:  # noqa: B007 - the last one counts
        pass
    return list(reading.symbols)


def _climb(grey: Picture, effort: Effort) -> Iterator[Reading]:
    found: list[Symbol] = []
    started = time.process_time()
    for attempt in _attempts(grey, effort):
        if time.process_time() - started > LADDER_CPU_S:
            yield Reading(tuple(found), complete=False)
            return
        try:
            more = attempt()
        except (cv2.error, ValueError, RuntimeError, MemoryError):
            continue  # OpenCV asserts on some pictures where it should answer that it found nothing.
        if _merge(found, more):
            yield Reading(tuple(found))
        if found and effort is Effort.LADDER:
            break
    yield Reading(tuple(found))


def _attempts(grey: Picture, effort: Effort) -> Iterator[Callable[[], list[Symbol]]]:
    """The rungs of the ladder, each made when its turn comes."""
    yield lambda: _zxing(grey, 1.0, "zxing")
    if effort is Effort.PLAIN:
        return
    height, width = grey.shape
    scale = min(1.0, SECOND_STAGE_SIDE_MAX / max(height, width))
    if max(height, width) < SMALL_SIDE:
        scale = 3.0
    sized = grey if scale == 1.0 else _resized(grey, scale)
    for mend in _MENDS:
        yield partial(_mended, mend, sized, scale)
    for detector in (cv2.QRCodeDetectorAruco, cv2.QRCodeDetector):
        yield partial(_opencv, detector, sized, scale)


def _mended(mend: Mend, grey: Picture, scale: float) -> list[Symbol]:
    return _zxing(mend(grey), scale, "zxing+mended")


def _same(grey: Picture) -> Picture:
    return grey


def _stretched(grey: Picture) -> Picture:
    """Contrast stretched over the whole range."""
    low, high = np.percentile(grey, (1, 99))
    scale = 255.0 / max(1.0, high - low)
    table = np.clip((np.arange(256) - low) * scale, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(grey, table), dtype=np.uint8)


def _local(grey: Picture) -> Picture:
    """Contrast evened out over the picture."""
    return np.asarray(cv2.createCLAHE(clipLimit=4.0, tileGridSize=(8, 8)).apply(grey), dtype=np.uint8)


def _sharpened(sigma: float) -> Mend:
    def mend(grey: Picture) -> Picture:
        soft = cv2.GaussianBlur(grey, (0, 0), sigma)
        return np.asarray(cv2.addWeighted(grey, 2.5, soft, -1.5, 0), dtype=np.uint8)

    return mend


def _smoothed(grey: Picture) -> Picture:
    return np.asarray(cv2.medianBlur(grey, 3), dtype=np.uint8)


_MENDS: Final[tuple[Mend, ...]] = (
    _same, _stretched, _local, _sharpened(1.5), _sharpened(3.0), _smoothed,
)  # fmt: skip


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


def _opencv(detector: Detector, grey: Picture, scale: float) -> list[Symbol]:
    """What OpenCV reads. Its texts lose the symbol's character set, so zxing-cpp reads the modules that it straightened
    out; only what zxing-cpp cannot is taken as OpenCV says it, and only where that is UTF-8."""
    read, texts, corners, modules = detector().detectAndDecodeBytesMulti(grey)
    if not read or corners is None:
        return []
    found = []
    for number, (data, quad) in enumerate(zip(texts, corners, strict=True)):
        if not data:
            continue
        text = _text_of(np.asarray(modules[number], dtype=np.uint8)) if number < len(modules) else None
        if text is None:
            try:
                text = data.decode("utf-8")
            except UnicodeDecodeError:
                continue
        found.append(Symbol(text, QR_CODE, _corners(quad, scale), "opencv"))
    return found


def _text_of(modules: Picture) -> str | None:
    """What a QR symbol says whose modules are the picture's pixels."""
    enlarged = np.repeat(np.repeat(modules, _PURE_SCALE, 0), _PURE_SCALE, 1)
    padded = np.pad(enlarged, _PURE_QUIET * _PURE_SCALE, constant_values=255)
    read = zxingcpp.read_barcodes(padded, formats=_FORMATS, text_mode=zxingcpp.TextMode.Plain)
    return str(read[0].text) if len(read) == 1 and read[0].valid else None


def _corners(quad: Picture, scale: float) -> tuple[Point, Point, Point, Point]:
    first, second, third, fourth = ((round(float(x) / scale), round(float(y) / scale)) for x, y in quad)
    return first, second, third, fourth


def _merge(found: list[Symbol], more: list[Symbol]) -> bool:
    """Adds what stands where nothing was found yet: the better readers come first. Says whether it added anything."""
    before = len(found)
    for symbol in more:
        if len(found) < SYMBOLS_MAX and not any(_same_symbol(symbol, other) for other in found):
            found.append(symbol)
    return len(found) > before


def _same_symbol(one: Symbol, other: Symbol) -> bool:
    """Whether two readings are of one symbol: at one place, or close by where they say the same.

    Readings of a one-dimensional symbol are lines across it, which need not meet.
    """
    first, second = _Outline.of(one), _Outline.of(other)
    apart = float(np.hypot(*(first.centre - second.centre)))
    if one.text == other.text and one.format == other.format and apart <= max(first.side, second.side) / 2:
        return True
    if apart > first.side + second.side:
        return False
    smaller = min(first.area, second.area)
    shared, _ = cv2.intersectConvexConvex(first.corners, second.corners)
    return bool(smaller > 0 and shared / smaller > _SAME_AREA)


@dataclass(frozen=True, slots=True)
class _Outline:
    corners: np.typing.NDArray[np.float32]
    centre: np.typing.NDArray[np.float32]
    side: float
    area: float

    @classmethod
    def of(cls, symbol: Symbol) -> _Outline:
        corners = np.array(symbol.position, dtype=np.float32)
        sides = np.hypot(*(corners - np.roll(corners, 1, axis=0)).T)
        return cls(corners, corners.mean(axis=0), float(sides.max()), float(cv2.contourArea(corners)))


def _load(data: bytes) -> Picture:
    files.require_readable(data)
    try:
        grey = cv2.imdecode(np.frombuffer(files.without_fill(data), dtype=np.uint8), cv2.IMREAD_GRAYSCALE)
    except (cv2.error, MemoryError):
        grey = None
    if grey is None:
        raise files.refusal("not a picture: the file is damaged, and cannot be unpacked")
    return np.asarray(grey, dtype=np.uint8)
