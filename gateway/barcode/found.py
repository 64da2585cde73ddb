"""Request and result of a reader of pictures. Imports none of the libraries that read."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

SYMBOLS_MAX: Final = 64
QR_CODE: Final = "QRCode"
CODE_128: Final = "Code128"

Point = tuple[int, int]


class Effort(enum.Enum):
    """How much to try."""

    PLAIN = "plain"
    """One attempt: zxing-cpp on the picture as it is."""
    LADDER = "ladder"
    """Attempt after attempt, cheap ones first, until one reads something."""
    THOROUGH = "thorough"
    """Every attempt: a picture that may show several codes, some of them badly."""
    ZXING = "zxing"
    """zxing-cpp alone, for comparison."""
    ZXING_FIRST = "zxing_first"
    """zxing-cpp alone with the formats of the first attempt, for comparison."""
    OPENCV = "opencv"
    """OpenCV alone, for comparison."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """One symbol that was found."""

    text: str
    format: str
    """`QRCode`, `Code128`, or another name of zxing-cpp's."""
    position: tuple[Point, Point, Point, Point]
    """Corners in pixels of the picture, from the symbol's top left, clockwise."""
    reader: str
    """`zxing` or `opencv`, and after a `+` the mended copy in which it was read."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found in a picture."""

    symbols: tuple[Symbol, ...]
    complete: bool = True
    """False where a limit ended the search, so that there may be more."""
    cpu_s: float = 0.0
    """Processor time from the file's bytes to the last symbol; 0 where it was not measured."""
