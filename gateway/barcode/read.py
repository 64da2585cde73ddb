"""Reads symbols from pictures: a ladder of attempts, cheap ones first, that stops at the first reading.

The first attempt is zxing-cpp on the picture as it is, and costs no more than zxing-cpp alone. What it cannot read is
mended and tried again: smoothed, by colour, smaller, sharper, set upright and unbent where a damaged symbol was
located, turned, larger, and last OpenCV's two QR detectors look at it. Every reading is one that the symbol's own error
correction or check character confirmed; weak ones (short lines, Micro QR) are confirmed by a second reading.

This runs in the caller's process and may take minutes on a hostile picture: what comes from outside goes through
`readers`, which runs the same ladder under limits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Final, cast

import numpy as np
import zxingcpp
from numpy.typing import NDArray

from gateway.barcode import files
from gateway.barcode.charsets import text_of
from gateway.barcode.found import QR_CODE, SYMBOLS_MAX, Effort, Point, Reading, Symbol
from gateway.barcode.raster import Picture
from hutong_contract.extras import needs

with needs("pictures"):
    import cv2


LADDER_CPU_S: Final = 1.5
"""No attempt begins after so much processor time."""
MENDED_PIXELS_MAX: Final = 2_500_000
"""Mended copies are at most this large: modules survive it, and the time is bounded."""
ENLARGED_PIXELS_MAX: Final = 700_000
"""Pictures up to this size are also tried at twice their size."""
SMALL_SIDE: Final = 400
"""Pictures smaller than this are enlarged for all mended copies."""
STRONG_CHARACTERS_MIN: Final = 8
"""A shorter one-dimensional reading is noise more often, and must be read twice."""

Matrix = NDArray[np.float64]
Mend = Callable[[Picture], Picture]
Detector = Callable[[], cv2.QRCodeDetector | cv2.QRCodeDetectorAruco]
Attempt = Callable[[], "list[Readout]"]

_B: Final = zxingcpp.BarcodeFormat
_FORMATS: Final = zxingcpp.BarcodeFormats([_B.QRCode, _B.MicroQRCode, _B.RMQRCode, _B.Code128])
"""What every attempt looks for."""
_ALL_FORMATS: Final = zxingcpp.BarcodeFormats(
    [_B.QRCode, _B.MicroQRCode, _B.RMQRCode, _B.Code128, _B.PDF417, _B.Aztec, _B.DataMatrix]
)
"""What one attempt looks for, since it takes four times as long."""
_LOCATED: Final = zxingcpp.BarcodeFormats([_B.QRCode, _B.RMQRCode])
_LOCATED_OTHERS: Final = zxingcpp.BarcodeFormats([_B.PDF417, _B.Aztec])
_LINEAR: Final = frozenset({"Code128"})
_WEAK: Final = frozenset({"MicroQRCode"})
_CORRECTION_LEFT_MIN: Final = 0.1
"""Part of a symbol's error correction that must be unused: what needs all of it is corrected into something else at
times, PDF417 above all."""
_SAME_AREA: Final = 0.4
_PURE_SCALE: Final = 4
_PURE_QUIET: Final = 4
_LOCATED_MAX: Final = 3
_UPRIGHT_SIDE: Final = 480
_UPRIGHT_MARGIN: Final = 0.12
_BENDS: Final = (0.5, 0.8, 1.05)
"""Halves of the angle, in radians, that a label covers on its bottle or cup."""
_MOTION: Final = 9
"""Pixels that a camera moves while it looks."""
_COLOUR_SPREAD_MIN: Final = 6.0
"""Mean difference of channels below which a picture counts as grey."""


def read_image(source: bytes | str | Path, effort: Effort = Effort.LADDER) -> list[Symbol]:
    """Every QR and Code 128 symbol of a picture of our own; one from outside is for `readers.Reader`.

    Args:
        source: the bytes of a PNG, JPEG, WebP, BMP or TIFF file, or the path of one.
        effort: how far to go.

    Raises:
        HutongError: FIELD_INVALID where the file cannot be read as a picture, or is too large.
    """
    data = source if isinstance(source, bytes) else files.read_file(Path(source))
    return _last(readings(data, effort))


def read_picture(picture: Picture, effort: Effort = Effort.LADDER) -> list[Symbol]:
    """Every symbol of grey values, or of rows of blue, green and red, as `read_image`."""
    return _last(_climb(_Seen.of(picture), effort))


def readings(data: bytes, effort: Effort) -> Iterator[Reading]:
    """What is found, again after every attempt that found more, and once at the end.

    Raises:
        HutongError: as `read_image`.
    """
    return _climb(_Seen(_load(data, cv2.IMREAD_GRAYSCALE), partial(_load_colour, data)), effort)


def alone(data: bytes, library: str) -> list[Symbol]:
    """What a library reads by itself, called once as its documentation does it: the baseline of `barcode corpus`.

    Args:
        data: the bytes of a picture file.
        library: `zxing` (all the formats of the ladder), `zxing_first` (those of its first rung), or `opencv`.

    Raises:
        HutongError: as `read_image`.
    """
    grey = _load(data, cv2.IMREAD_GRAYSCALE)
    if library == "opencv":
        return _opencv_alone(grey)
    return [one.symbol for one in _read(grey, _scaled(1.0), library, _ALL_FORMATS if library == "zxing" else _FORMATS)]


def warm_up() -> None:
    """Loads and runs what the first picture would otherwise wait for."""
    read_picture(np.full((32, 32), 255, dtype=np.uint8), Effort.THOROUGH)


def _last(steps: Iterator[Reading]) -> list[Symbol]:
    reading = Reading(())
    for reading in steps:  # noqa: B007 - the last one counts
        pass
    return list(reading.symbols)


@dataclass(frozen=True, slots=True)
class Readout:
    """A reading of one attempt."""

    symbol: Symbol
    weak: bool = False
    """Must be read in a second copy before it counts."""


class _Seen:
    """A picture in the forms in which attempts need it, each made when it is first needed."""

    def __init__(self, grey: Picture, load_colour: Callable[[], Picture | None]) -> None:
        self.grey = grey
        self._load_colour = load_colour

    @classmethod
    def of(cls, picture: Picture) -> _Seen:
        if picture.ndim == 2:
            return cls(picture, lambda: None)
        return cls(np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), dtype=np.uint8), lambda: picture)

    @cached_property
    def scale(self) -> float:
        """From the picture's size to that of its mended copies."""
        height, width = self.grey.shape
        if max(height, width) < SMALL_SIDE:
            return 3.0
        return min(1.0, math.sqrt(MENDED_PIXELS_MAX / (height * width)))

    @cached_property
    def sized(self) -> Picture:
        """Grey values at the size of mended copies."""
        return self.grey if self.scale == 1.0 else _resized(self.grey, self.scale)

    @cached_property
    def channels(self) -> tuple[Picture, ...]:
        """Red, blue and green at the same size; none where the picture is grey."""
        colour = self._load_colour()
        if colour is None:
            return ()
        height, width = self.sized.shape
        if colour.shape[:2] != (height, width):
            colour = np.asarray(cv2.resize(colour, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)
        blue, green, red = (np.ascontiguousarray(colour[:, :, number]) for number in range(3))
        if max(float(np.mean(cv2.absdiff(red, other))) for other in (blue, green)) < _COLOUR_SPREAD_MIN:
            return ()
        return red, blue, green


def _climb(seen: _Seen, effort: Effort) -> Iterator[Reading]:
    found: list[Symbol] = []
    weak: list[Symbol] = []
    started = time.process_time()
    for number, attempt in enumerate(_attempts(seen, effort, weak)):
        if time.process_time() - started > LADDER_CPU_S:
            yield Reading(tuple(found), complete=False)
            return
        try:
            more = attempt()
        except (cv2.error, ValueError, RuntimeError, MemoryError):
            continue  # OpenCV asserts on some pictures where it should answer that it found nothing.
        if merge(found, confirmed(more, weak)):
            yield Reading(tuple(found))
        if found and effort is Effort.LADDER and not (weak and number == 0):
            break
    yield Reading(tuple(found))


def confirmed(more: list[Readout], weak: list[Symbol]) -> list[Symbol]:
    """The readings that count: strong ones, and weak ones that were read before, in another copy."""
    before = list(weak)
    symbols = []
    for one in more:
        if one.weak and not any(other.text == one.symbol.text and _same_symbol(one.symbol, other) for other in before):
            weak.append(one.symbol)
        else:
            symbols.append(one.symbol)
    return symbols


def _attempts(seen: _Seen, effort: Effort, weak: list[Symbol]) -> Iterator[Attempt]:
    """The rungs of the ladder, each made when its turn comes. `weak` holds what waits for a second reading."""
    original = _scaled(1.0)
    yield partial(_read, seen.grey, original, "zxing")
    if effort is Effort.PLAIN:
        if weak:
            yield partial(_mended, _smoothed, seen.grey, original, "zxing+smoothed")
        return
    grey, back = seen.sized, _scaled(1 / seen.scale)
    yield partial(_mended, _smoothed, grey, back, "zxing+smoothed")
    if seen.scale > 1:
        yield partial(_read, grey, back, "zxing+larger")
    for channel in seen.channels:
        yield partial(_read, channel, back, "zxing+colour")
    yield partial(_mended, _halved, grey, back @ _scaled(2), "zxing+smaller")
    yield partial(_mended, _sharpened, grey, back, "zxing+sharper")
    yield from _located(grey, back)
    yield partial(_read, grey, back, "zxing", _ALL_FORMATS)
    for upright, home in _damaged(grey, back, _LOCATED_OTHERS):
        yield partial(_read, upright, home, "zxing+upright", _ALL_FORMATS)
    yield partial(_turned, grey, 45, back)
    if grey.size <= ENLARGED_PIXELS_MAX:
        yield partial(_mended, _doubled, grey, back @ _scaled(0.5), "zxing+larger")
        yield partial(_mended, _doubled_sharpened, grey, back @ _scaled(0.5), "zxing+larger")
    for mend in (_local, _stretched, _black_and_white, _softened):
        yield partial(_mended, mend, grey, back, "zxing+contrast")
    for angle in (30, 60):
        yield partial(_turned, grey, angle, back)
    if grey.size <= ENLARGED_PIXELS_MAX:
        for direction in range(0, 180, 30):
            yield partial(_mended, partial(_steadied, direction=direction), grey, back, "zxing+steadied")
    for angle in (-10, 10):
        yield partial(_turned, grey, angle, back, _ALL_FORMATS)
    for channel in seen.channels:
        yield partial(_mended, _local, channel, back, "zxing+colour")
    if grey.size <= ENLARGED_PIXELS_MAX:
        yield partial(_mended, _doubled, grey, back @ _scaled(0.5), "zxing+larger", _ALL_FORMATS)
    else:
        yield partial(_mended, _softened, grey, back, "zxing+smoothed", _ALL_FORMATS)
    for detector in (cv2.QRCodeDetectorAruco, cv2.QRCodeDetector):
        yield partial(_opencv, detector, grey, back)


def _scaled(factor: float) -> Matrix:
    return np.diag([factor, factor, 1.0])


def _smoothed(grey: Picture) -> Picture:
    return np.asarray(cv2.medianBlur(grey, 3), dtype=np.uint8)


def _softened(grey: Picture) -> Picture:
    return np.asarray(cv2.GaussianBlur(grey, (0, 0), 1.0), dtype=np.uint8)


def _stretched(grey: Picture) -> Picture:
    """Contrast stretched over the whole range."""
    low, high = np.percentile(grey[::4, ::4], (1, 99))
    table = np.clip((np.arange(256) - low) * (255.0 / max(1.0, high - low)), 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(grey, table), dtype=np.uint8)


def _local(grey: Picture) -> Picture:
    """Contrast evened out over the picture."""
    return np.asarray(cv2.createCLAHE(clipLimit=4.0, tileGridSize=(8, 8)).apply(grey), dtype=np.uint8)


def _black_and_white(grey: Picture) -> Picture:
    """Darker or lighter than around it."""
    how = cv2.ADAPTIVE_THRESH_MEAN_C
    return np.asarray(cv2.adaptiveThreshold(_softened(grey), 255, how, cv2.THRESH_BINARY, 51, 2), dtype=np.uint8)


def _sharpened(grey: Picture) -> Picture:
    soft = cv2.GaussianBlur(grey, (0, 0), 3.0)
    return np.asarray(cv2.addWeighted(grey, 2.5, soft, -1.5, 0), dtype=np.uint8)


def _halved(grey: Picture) -> Picture:
    return _resized(grey, 0.5)


def _doubled(grey: Picture) -> Picture:
    return _resized(grey, 2.0)


def _doubled_sharpened(grey: Picture) -> Picture:
    return _sharpened(_doubled(grey))


def _steadied(grey: Picture, direction: int) -> Picture:
    """Sharpened along one direction, in degrees: against a camera that moved along it."""
    reach = np.array([math.cos(math.radians(direction)), math.sin(math.radians(direction))]) * _MOTION / 2
    middle = _MOTION // 2
    start, end = ((middle + sign * reach).round().astype(int).tolist() for sign in (-1, 1))
    trail = np.zeros((_MOTION, _MOTION), dtype=np.float32)
    cv2.line(trail, (start[0], start[1]), (end[0], end[1]), (1.0,), 1)
    moved = cv2.filter2D(grey, -1, trail / trail.sum())
    return np.asarray(cv2.addWeighted(grey, 3.0, moved, -2.0, 0), dtype=np.uint8)


def _resized(grey: Picture, scale: float) -> Picture:
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(grey, None, fx=scale, fy=scale, interpolation=how), dtype=np.uint8)


def _turned(grey: Picture, angle: float, back: Matrix, formats: zxingcpp.BarcodeFormats = _FORMATS) -> list[Readout]:
    """What is read in a copy turned by `angle` degrees: lines are read along rows and columns only."""
    height, width = grey.shape
    span = math.ceil(math.hypot(height, width))
    turn = np.vstack([cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0), [0, 0, 1]])
    turn[:2, 2] += (span - width) / 2, (span - height) / 2
    copy = cv2.warpAffine(grey, turn[:2], (span, span), borderMode=cv2.BORDER_REPLICATE)
    return _read(np.asarray(copy, dtype=np.uint8), back @ np.linalg.inv(turn), "zxing+turned", formats)


def _located(grey: Picture, back: Matrix) -> Iterator[Attempt]:
    """Attempts on damaged symbols: set upright, sharpened, and unbent."""
    for upright, home in _damaged(grey, back, _LOCATED):
        yield partial(_read, upright, home, "zxing+upright")
        yield partial(_mended, _sharpened, upright, home, "zxing+upright")
        yield partial(_mended, _black_and_white, upright, home, "zxing+upright")
        for bend in _BENDS:
            for axis in (0, 1):
                yield partial(_mended, partial(_unbent, half_angle=bend, axis=axis), upright, home, "zxing+unbent")


def _damaged(grey: Picture, back: Matrix, formats: zxingcpp.BarcodeFormats) -> Iterator[tuple[Picture, Matrix]]:
    """Symbols that zxing-cpp located but could not correct, each alone and upright."""
    located = zxingcpp.read_barcodes(grey, formats=formats, return_errors=True)
    for barcode in [barcode for barcode in located if not barcode.valid][:_LOCATED_MAX]:
        try:
            upright, matrix = _upright(grey, _quad(barcode))
            home = back @ np.linalg.inv(matrix)
        except (cv2.error, ValueError):
            continue  # its corners are no quadrangle
        yield upright, home


def _mended(
    mend: Mend, grey: Picture, back: Matrix, reader: str, formats: zxingcpp.BarcodeFormats = _FORMATS
) -> list[Readout]:
    return _read(mend(grey), back, reader, formats)


def _upright(grey: Picture, corners: NDArray[np.float32]) -> tuple[Picture, Matrix]:
    """The symbol alone, straight on, and the matrix that took it there."""
    width, height = (
        float(np.hypot(*(corners[one] - corners[other])) + np.hypot(*(corners[third] - corners[fourth])))
        for one, other, third, fourth in ((0, 1, 3, 2), (0, 3, 1, 2))
    )
    size = np.array([width, height]) * (_UPRIGHT_SIDE / max(width, height, 1.0))
    margin = _UPRIGHT_SIDE * _UPRIGHT_MARGIN
    target = np.array([[0, 0], [size[0], 0], [size[0], size[1]], [0, size[1]]], dtype=np.float32) + np.float32(margin)
    matrix = np.asarray(cv2.getPerspectiveTransform(corners, target), dtype=np.float64)
    across, down = (int(side + 2 * margin) for side in size)
    seen = cv2.warpPerspective(grey, matrix, (across, down), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(seen, dtype=np.uint8), matrix


def _unbent(grey: Picture, half_angle: float, axis: int) -> Picture:
    """A copy as if peeled off a cylinder of which it covers twice `half_angle`, upright (axis 0) or lying (1)."""
    height, width = grey.shape
    length = width if axis == 0 else height
    along = np.sin(np.linspace(-half_angle, half_angle, length)) / math.sin(half_angle)
    bent = ((along + 1) * (length - 1) / 2).astype(np.float32)
    across, down = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    if axis == 0:
        across = np.tile(bent, (height, 1))
    else:
        down = np.tile(bent[:, None], (1, width))
    return np.asarray(cv2.remap(grey, across, down, cv2.INTER_LINEAR), dtype=np.uint8)


def _read(grey: Picture, back: Matrix, reader: str, formats: zxingcpp.BarcodeFormats = _FORMATS) -> list[Readout]:
    """What zxing-cpp reads in a copy; `back` takes its points to those of the picture."""
    barcodes = zxingcpp.read_barcodes(grey, formats=formats, text_mode=zxingcpp.TextMode.Plain)
    return [
        Readout(
            Symbol(text_of(barcode.bytes, barcode.text), _name(barcode), _corners(_quad(barcode), back), reader),
            _is_weak(barcode),
        )
        for barcode in barcodes
        if barcode.valid and barcode.text
    ]


def _is_weak(barcode: zxingcpp.Barcode) -> bool:
    name = barcode.format.name
    if name in _WEAK or (name in _LINEAR and len(barcode.text) < STRONG_CHARACTERS_MIN):
        return True
    extra = cast("dict[str, float]", barcode.extra or {})
    return float(extra.get("UEC", 1.0)) < _CORRECTION_LEFT_MIN


def _name(barcode: zxingcpp.Barcode) -> str:
    name = str(barcode.format.name)
    return QR_CODE if name.startswith(QR_CODE) else name


def _quad(barcode: zxingcpp.Barcode) -> NDArray[np.float32]:
    where = barcode.position
    corners = (where.top_left, where.top_right, where.bottom_right, where.bottom_left)
    return np.array([(point.x, point.y) for point in corners], dtype=np.float32)


def _corners(quad: NDArray[np.float32], back: Matrix) -> tuple[Point, Point, Point, Point]:
    moved = cv2.perspectiveTransform(quad.reshape(1, 4, 2).astype(np.float64), back)[0]
    first, second, third, fourth = ((round(float(x)), round(float(y))) for x, y in moved)
    return first, second, third, fourth


def _opencv(detector: Detector, grey: Picture, back: Matrix) -> list[Readout]:
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
        found.append(Readout(Symbol(text, QR_CODE, _corners(np.asarray(quad, dtype=np.float32), back), "opencv")))
    return found


def _opencv_alone(grey: Picture) -> list[Symbol]:
    """What OpenCV's default detector says, or its other one where that says nothing."""
    for detector in (cv2.QRCodeDetector(), cv2.QRCodeDetectorAruco()):
        try:
            _, texts, corners, _ = detector.detectAndDecodeBytesMulti(grey)
        except cv2.error:
            continue
        quads = [] if corners is None else [np.asarray(quad, dtype=np.float32) for quad in corners]
        read = [(data.decode("utf-8", "replace"), quad) for data, quad in zip(texts, quads, strict=False) if data]
        if read:
            return [Symbol(text, QR_CODE, _corners(quad, _scaled(1.0)), "opencv") for text, quad in read]
    return []


def _text_of(modules: Picture) -> str | None:
    """What a QR symbol says whose modules are the picture's pixels."""
    enlarged = np.repeat(np.repeat(modules, _PURE_SCALE, 0), _PURE_SCALE, 1)
    padded = np.pad(enlarged, _PURE_QUIET * _PURE_SCALE, constant_values=255)
    read = zxingcpp.read_barcodes(padded, formats=_FORMATS, text_mode=zxingcpp.TextMode.Plain)
    return text_of(read[0].bytes, read[0].text) if len(read) == 1 and read[0].valid else None


def merge(found: list[Symbol], more: list[Symbol]) -> bool:
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


def _load(data: bytes, how: int) -> Picture:
    files.require_readable(data)
    try:
        picture = cv2.imdecode(np.frombuffer(files.without_fill(data), dtype=np.uint8), how)
    except (cv2.error, MemoryError):
        picture = None
    if picture is None:
        raise files.refusal("not a picture: the file is damaged, and cannot be unpacked")
    return np.asarray(picture, dtype=np.uint8)


def _load_colour(data: bytes) -> Picture:
    """Blue, green and red; at half, a quarter or an eighth of the size where that is enough for a mended copy."""
    width, height = files.require_readable(data)
    for reduced, how in (
        (8, cv2.IMREAD_REDUCED_COLOR_8),
        (4, cv2.IMREAD_REDUCED_COLOR_4),
        (2, cv2.IMREAD_REDUCED_COLOR_2),
    ):
        if width * height / reduced**2 > MENDED_PIXELS_MAX:
            return _load(data, how)
    return _load(data, cv2.IMREAD_COLOR)
