"""Codes as people photograph them, for `hutong barcode corpus`: screens, paper, bottles, bad light. All from a seed.

Each scene takes a symbol's modules and a source of chance, and gives a colour picture (rows of blue, green, red).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import zxingcpp
from numpy.typing import NDArray

from gateway.barcode.raster import Modules, Picture, picture
from gateway.barcode.symbols import modules_of
from hutong_contract.extras import needs
from loadtest import pictures as plain

with needs("pictures"):
    import cv2


Generator = np.random.Generator
Scene = Callable[[Modules, Generator], Picture]
QUALITY_MAX: Final = 95

_MODULE: Final = 6
_Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Sample:
    """One picture of a corpus."""

    kind: str
    image: Picture
    texts: tuple[str, ...]
    """What it shows; empty where it shows no code."""
    quality: int = 0
    """JPEG quality; 0 for PNG."""


def _bgr(grey: Picture) -> Picture:
    return np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR), dtype=np.uint8)


def _clipped(values: NDArray[Any]) -> Picture:
    return np.asarray(np.clip(values, 0, 255), dtype=np.uint8)


def _noisy(image: Picture, chance: Generator, sigma: float) -> Picture:
    return _clipped(image + chance.normal(0, sigma, image.shape))


def _page(modules: Modules, chance: Generator, side: int = 640, scale: int = _MODULE) -> Picture:
    """A symbol on paper, somewhere in a square picture, lit from one side."""
    symbol = picture(modules, scale)
    height, width = symbol.shape
    side = max(side, height + 40, width + 40)
    page = np.full((side, side), 225, dtype=np.uint8)
    top, left = int(chance.integers(10, side - height - 9)), int(chance.integers(10, side - width - 9))
    page[top : top + height, left : left + width] = np.where(symbol == 0, 30, 225)
    light = np.linspace(1.0, float(chance.uniform(0.6, 0.95)), side, dtype=np.float32)
    return _bgr(_clipped(page * light))


def _warped(image: Picture, moved: NDArray[Any], border: int) -> Picture:
    """The picture with its corners moved inwards, in parts of its side."""
    side = image.shape[0]
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], dtype=np.float32)
    matrix = cv2.getPerspectiveTransform(
        corners * side, ((corners + moved * (1 - 2 * corners)) * side).astype(np.float32)
    )
    seen = cv2.warpPerspective(image, matrix, (side, side), flags=cv2.INTER_AREA, borderValue=(border,) * 3)
    return np.asarray(seen, dtype=np.uint8)


def _remapped(image: Picture, across: _Floats, down: _Floats) -> Picture:
    seen = cv2.remap(image, across, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(seen, dtype=np.uint8)


def _grid(image: Picture) -> tuple[_Floats, _Floats]:
    down, across = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    return across, down


def screen(modules: Modules, chance: Generator) -> Picture:
    """Another telephone's screen: red, green and blue stripes that beat with the camera's pixels."""
    lit = _page(modules, chance, 520).astype(np.float32)
    big = cv2.resize(lit, None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST)
    stripes = np.full((3, 3, 3), 0.12, dtype=np.float32)
    for column in range(3):
        stripes[:2, column, column] = 1.0  # blue, green and red stand beside each other; a dark row between
    big *= np.tile(stripes, (big.shape[0] // 3, big.shape[1] // 3, 1))
    factor = float(chance.uniform(0.30, 0.52))
    turn = cv2.getRotationMatrix2D((big.shape[1] / 2, big.shape[0] / 2), float(chance.uniform(-12, 12)), factor)
    span = int(big.shape[0] * factor * 1.15)
    turn[:, 2] += (span - big.shape[1]) / 2, (span - big.shape[0]) / 2
    soft = cv2.GaussianBlur(big, (0, 0), float(chance.uniform(0.5, 0.9)))
    seen = cv2.warpAffine(soft, turn, (span, span), flags=cv2.INTER_LINEAR)
    return _noisy(_clipped(seen * float(chance.uniform(1.8, 2.8))), chance, 6)


def glare(modules: Modules, chance: Generator) -> Picture:
    """A lamp mirrored in a laminated label."""
    image = _page(modules, chance).astype(np.float32)
    across, down = _grid(_clipped(image))
    for _ in range(int(chance.integers(1, 4))):
        x, y = chance.uniform(0.2, 0.8, 2) * image.shape[0]
        size = chance.uniform(0.04, 0.13, 2) * image.shape[0]
        spot = np.exp(-(((across - x) / size[0]) ** 2) - ((down - y) / size[1]) ** 2)
        image += (260 * spot[..., None]).astype(np.float32)
    return _noisy(_clipped(image), chance, 4)


def shaken(modules: Modules, chance: Generator) -> Picture:
    """A camera that moves."""
    image = _page(modules, chance)
    length = int(chance.integers(4, 13))
    kernel = np.zeros((15, 15), dtype=np.float32)
    angle = float(chance.uniform(0, np.pi))
    reach = np.array([np.cos(angle), np.sin(angle)]) * length / 2
    start, end = (7 - reach).round().astype(int), (7 + reach).round().astype(int)
    cv2.line(kernel, (int(start[0]), int(start[1])), (int(end[0]), int(end[1])), (1.0,), 1)
    return _noisy(np.asarray(cv2.filter2D(image, -1, kernel / kernel.sum()), dtype=np.uint8), chance, 3)


def unfocused(modules: Modules, chance: Generator) -> Picture:
    """A camera that is out of focus."""
    image = _page(modules, chance)
    return _noisy(np.asarray(cv2.GaussianBlur(image, (0, 0), float(chance.uniform(2, 4.5))), np.uint8), chance, 3)


def perspective(modules: Modules, chance: Generator) -> Picture:
    """A label seen from the side."""
    moved = chance.uniform(0, 0.33, (4, 2))
    return _noisy(_warped(_page(modules, chance), moved, 120), chance, 5)


def folded(modules: Modules, chance: Generator) -> Picture:
    """Paper that was folded twice: shades change at the folds, and lines break there."""
    image = _page(modules, chance)
    across, down = _grid(image)
    shade = np.ones(image.shape[:2], dtype=np.float32)
    side = image.shape[0]
    for _ in range(2):
        angle = float(chance.uniform(0, np.pi))
        distance = (across - side * chance.uniform(0.35, 0.65)) * np.cos(angle)
        distance = distance + (down - side * chance.uniform(0.35, 0.65)) * np.sin(angle)
        slope = float(chance.uniform(-0.09, 0.09))
        across = across + np.abs(distance) * slope * np.cos(angle)
        down = down + np.abs(distance) * slope * np.sin(angle)
        shade *= np.where(distance > 0, 1.0, float(chance.uniform(0.5, 0.85))).astype(np.float32)
        shade *= 1 - 0.35 * np.exp(-((distance / 3) ** 2)).astype(np.float32)
    folds = _remapped(image, across.astype(np.float32), down.astype(np.float32))
    return _noisy(_clipped(folds * shade[..., None]), chance, 5)


def curved(modules: Modules, chance: Generator) -> Picture:
    """A label around a bottle or a cup."""
    symbol = _bgr(np.where(picture(modules, _MODULE) == 0, 30, 225).astype(np.uint8))
    margin = 20
    label = cv2.copyMakeBorder(symbol, margin, margin, margin, margin, cv2.BORDER_CONSTANT, value=(225,) * 3)
    height, width = label.shape[:2]
    half_angle = float(chance.uniform(0.6, 1.15))
    radius = width / 2 / half_angle
    seen_width = int(2 * radius * np.sin(half_angle))
    across, down = np.meshgrid(np.arange(seen_width, dtype=np.float32), np.arange(height + 60, dtype=np.float32))
    angle = np.arcsin(np.clip((across - seen_width / 2) / radius, -1, 1))
    bend = float(chance.uniform(-30, 30)) * (np.cos(angle) - np.cos(half_angle))
    seen = cv2.remap(
        np.asarray(label), (angle * radius + width / 2).astype(np.float32), (down - 30 + bend).astype(np.float32),
        cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(110, 110, 110),
    )  # fmt: skip
    lit = seen * np.cos(angle * float(chance.uniform(0.5, 1.0)))[..., None]
    return _noisy(np.asarray(cv2.copyMakeBorder(_clipped(lit), 30, 30, 60, 60, cv2.BORDER_REPLICATE)), chance, 4)


def coloured(modules: Modules, chance: Generator) -> Picture:
    """Two colours that are almost equally bright: a brand's idea of a code."""
    symbol = picture(modules, _MODULE)
    hue = float(chance.uniform(0, 1))
    dark, light = _equally_bright(hue, float(chance.uniform(95, 135)), chance)
    image = np.where(symbol[..., None] == 0, dark, light)
    padded = np.pad(image, ((40, 40), (40, 40), (0, 0)), mode="edge")
    return _noisy(_clipped(padded), chance, 3)


def _equally_bright(hue: float, luminance: float, chance: Generator) -> tuple[_Floats, _Floats]:
    """Opposite colours; the second is a little brighter."""
    weights = np.array([0.114, 0.587, 0.299])
    colours = []
    for turn, more in ((0.0, 0.0), (0.5, float(chance.uniform(2, 14)))):
        wheel = np.array([[[(hue + turn) % 1 * 179, 230, 220]]], dtype=np.uint8)
        colour = cv2.cvtColor(wheel, cv2.COLOR_HSV2BGR)[0, 0].astype(np.float32)
        for _ in range(8):
            colour = np.clip(colour + (luminance + more - colour @ weights), 0, 255)
        colours.append(colour.astype(np.float32))
    return colours[0], colours[1]


def busy(modules: Modules, chance: Generator) -> Picture:
    """A small code in a dark and busy shop window."""
    coarse = chance.integers(10, 120, (40, 60, 3)).astype(np.float32)
    scene = _clipped(np.asarray(cv2.resize(coarse, (1_200, 800), interpolation=cv2.INTER_CUBIC)))
    for _ in range(60):
        corner, size = chance.integers(0, 1_100, 2), chance.integers(10, 200, 2)
        shade = tuple(float(v) for v in chance.integers(0, 150, 3))
        end = (int(corner[0] + size[0]), int(corner[1] + size[1]))
        cv2.rectangle(scene, (int(corner[0]), int(corner[1])), end, shade, int(chance.integers(-1, 4)))
        cv2.putText(scene, "SALE 50%", end, cv2.FONT_HERSHEY_SIMPLEX, float(chance.uniform(0.4, 1.5)), shade[::-1], 2)
    symbol = _bgr(np.where(picture(modules, 3) == 0, 12, 90).astype(np.uint8))
    height, width = symbol.shape[:2]
    top, left = int(chance.integers(0, 800 - height)), int(chance.integers(0, 1_200 - width))
    scene[top : top + height, left : left + width] = symbol
    return _noisy(_clipped(scene * float(chance.uniform(0.35, 0.9))), chance, 5)


def covered(modules: Modules, chance: Generator) -> Picture:
    """A thumb or a sticker over a part of one corner."""
    symbol = picture(modules, _MODULE)
    side = symbol.shape[0]
    quiet = 4 * _MODULE
    seen = _bgr(np.where(symbol == 0, 30, 225).astype(np.uint8))
    corner = np.array([(quiet, quiet), (side - quiet, quiet), (quiet, side - quiet)][int(chance.integers(0, 3))])
    inward = np.sign(side / 2 - corner)
    middle = corner + inward * float(chance.uniform(-0.5, 1.5)) * _MODULE
    colour = tuple(float(v) for v in chance.integers(60, 200, 3))
    cv2.circle(seen, (int(middle[0]), int(middle[1])), int(chance.uniform(1.5, 3.2) * _MODULE), colour, -1)
    padded = cv2.copyMakeBorder(seen, 60, 60, 60, 60, cv2.BORDER_CONSTANT, value=(225,) * 3)
    return _noisy(np.asarray(padded, dtype=np.uint8), chance, 4)


def turned(modules: Modules, chance: Generator) -> Picture:
    """Any angle but a straight one."""
    symbol = _bgr(np.where(picture(modules, 3) == 0, 30, 225).astype(np.uint8))
    height, width = symbol.shape[:2]
    angle = float(chance.uniform(30, 60)) * (1 if chance.random() < 0.5 else -1)
    span = int(np.hypot(height, width)) + 40
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    turn[:, 2] += (span - width) / 2, (span - height) / 2
    seen = cv2.warpAffine(symbol, turn, (span, span), flags=cv2.INTER_LINEAR, borderValue=(225,) * 3)
    return _noisy(np.asarray(seen, dtype=np.uint8), chance, 5)


def paper(modules: Modules, chance: Generator) -> Picture:
    """Straight on, well lit."""
    return _noisy(_page(modules, chance), chance, 5)


def inverted(modules: Modules, chance: Generator) -> Picture:
    """Light modules on a dark ground."""
    return _noisy(np.asarray(255 - _page(modules, chance), dtype=np.uint8), chance, 5)


SCENES: Final[dict[str, Scene]] = {
    "paper": paper,
    "screen": screen,
    "glare": glare,
    "shaken": shaken,
    "unfocused": unfocused,
    "perspective": perspective,
    "folded": folded,
    "curved": curved,
    "coloured": coloured,
    "busy": busy,
    "covered": covered,
    "inverted": inverted,
}
"""What happens to QR symbols."""
LINEAR: Final[dict[str, Scene]] = {"linear": paper, "linear turned": turned, "linear short": paper}
"""What happens to Code 128."""
OTHERS: Final = {
    "Micro QR": zxingcpp.BarcodeFormat.MicroQRCode,
    "rMQR": zxingcpp.BarcodeFormat.RMQRCode,
    "PDF417": zxingcpp.BarcodeFormat.PDF417,
    "Aztec": zxingcpp.BarcodeFormat.Aztec,
    "Data Matrix": zxingcpp.BarcodeFormat.DataMatrix,
}
"""Symbols of other kinds, on paper and in perspective."""
NOTHING: Final = "none"
KINDS: Final = (*SCENES, *LINEAR, *OTHERS, NOTHING)


def sample(kind: str, number: int, text: str, chance: Generator) -> Sample:
    """One picture: `text` is a merchant code, of which symbols that hold less take a part."""
    if kind == NOTHING:
        return Sample(kind, _bgr(plain.empty(number, chance)), ())
    if kind in LINEAR:
        digits = f"66{chance.integers(0, 10**17):017d}"
        if kind == "linear short":
            digits = "".join("ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"[i] for i in chance.integers(0, 34, 4 + number % 4))
        return Sample(kind, LINEAR[kind](modules_of(digits, "code128"), chance), (digits,))
    if kind in OTHERS:
        short = f"{chance.integers(0, 10**10):010d}" if kind == "Micro QR" else text[:60]
        drawn = zxingcpp.create_barcode(short, OTHERS[kind]).to_image(scale=1, add_quiet_zones=True)
        modules = np.asarray(drawn) == 0
        scene = paper if number % 2 else perspective
        return Sample(kind, scene(modules, chance), (short,))
    image = SCENES[kind](modules_of(text), chance)
    return Sample(kind, image, (text,), quality=int(chance.integers(35, QUALITY_MAX)) if number % 3 == 0 else 0)
