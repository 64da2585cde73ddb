"""Pictures for measuring readers: symbols as cameras see them, and pictures without any. All from a seed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.barcode.raster import Picture, picture
from gateway.barcode.symbols import modules_of
from hutong_contract.extras import needs

with needs("pictures"):
    import cv2


_GROUND: Final = 205
Generator = np.random.Generator


def _canvas(symbol: Picture, side: int, chance: Generator, angle: float = 0.0) -> Picture:
    """The symbol somewhere on a grey ground of `side` pixels, turned by `angle` degrees."""
    height, width = symbol.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), angle, 1.0)
    span = int(np.ceil(np.hypot(height, width)))
    turn[0, 2] += (span - width) / 2
    turn[1, 2] += (span - height) / 2
    turned = cv2.warpAffine(symbol, turn, (span, span), flags=cv2.INTER_AREA, borderValue=(_GROUND,))
    size = max(side, span)
    ground = np.full((size, size), _GROUND, dtype=np.uint8)
    top, left = (int(chance.integers(0, size - span + 1)) for _ in range(2))
    ground[top : top + span, left : left + span] = turned
    return ground


def _noise(grey: Picture, chance: Generator, sigma: float) -> Picture:
    return np.clip(grey + chance.normal(0, sigma, grey.shape), 0, 255).astype(np.uint8)


def _plain(symbol: Picture, chance: Generator) -> Picture:
    return _noise(_canvas(symbol, 640, chance), chance, 4)


def _rotated(symbol: Picture, chance: Generator) -> Picture:
    return _noise(_canvas(symbol, 800, chance, float(chance.uniform(0, 360))), chance, 6)


def _blurred(symbol: Picture, chance: Generator) -> Picture:
    grey = _canvas(symbol, 640, chance, float(chance.uniform(-8, 8)))
    return _noise(np.asarray(cv2.GaussianBlur(grey, (0, 0), float(chance.uniform(1.5, 4.0)))), chance, 3)


def _dark(symbol: Picture, chance: Generator) -> Picture:
    grey = _canvas(symbol, 640, chance).astype(np.float32)
    falls = np.linspace(float(chance.uniform(0.04, 0.2)), 0.35, grey.shape[1], dtype=np.float32)
    return _noise((grey * falls).astype(np.uint8), chance, float(chance.uniform(1, 5)))


def _small(symbol: Picture, chance: Generator) -> Picture:
    factor = float(chance.uniform(1.3, 2.2)) / 6  # pixels a module, from six
    little = np.asarray(cv2.resize(symbol, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), dtype=np.uint8)
    return _noise(_canvas(little, 240, chance), chance, 2)


def _large(symbol: Picture, chance: Generator) -> Picture:
    big = np.asarray(cv2.resize(symbol, None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST), dtype=np.uint8)
    return _canvas(big, 4_400, chance, float(chance.uniform(-20, 20)))


def _tilted(symbol: Picture, chance: Generator) -> Picture:
    grey = _canvas(symbol, 720, chance)
    side = grey.shape[0]
    corners = np.array([[0, 0], [side, 0], [side, side], [0, side]], dtype=np.float32)
    moved = corners + chance.uniform(-0.16, 0.16, corners.shape).astype(np.float32) * side
    seen = cv2.warpPerspective(grey, cv2.getPerspectiveTransform(corners, moved), (side, side), borderValue=(_GROUND,))
    return _noise(np.asarray(seen, dtype=np.uint8), chance, 5)


def _noisy(symbol: Picture, chance: Generator) -> Picture:
    return _noise(_canvas(symbol, 640, chance), chance, float(chance.uniform(30, 70)))


DISTORTIONS: Final[dict[str, Callable[[Picture, Generator], Picture]]] = {
    "plain": _plain,
    "rotated": _rotated,
    "blurred": _blurred,
    "dark": _dark,
    "small": _small,
    "large": _large,
    "tilted": _tilted,
    "noisy": _noisy,
}
"""What happens to a symbol between a screen and a picture."""


def seen(text: str, symbology: str, distortion: str, chance: Generator) -> Picture:
    """A picture of a symbol that says `text`."""
    return DISTORTIONS[distortion](picture(modules_of(text, symbology), 6), chance)


def empty(number: int, chance: Generator) -> Picture:
    """A picture without a symbol, of one of six sorts: noise, stripes, writing, checks, shapes, gradients."""
    return _EMPTY[number % len(_EMPTY)](chance)


def _white_noise(chance: Generator) -> Picture:
    grey = chance.integers(0, 256, (480, 640), dtype=np.uint8)
    factor = int(chance.integers(1, 12))
    return np.repeat(np.repeat(grey[: 480 // factor, : 640 // factor], factor, 0), factor, 1)


def _stripes(chance: Generator) -> Picture:
    """Bars of random widths: what a fence, a blind or a bar code of another kind looks like."""
    widths = chance.integers(1, 7, 300)
    row = np.repeat(np.arange(300) % 2 * 255, widths).astype(np.uint8)[:640]
    return _noise(np.tile(row, (480, 1)), chance, 8)


def _writing(chance: Generator) -> Picture:
    page = np.full((480, 640), 240, dtype=np.uint8)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 "
    for line in range(30, 470, 22):
        words = "".join(letters[int(i)] for i in chance.integers(0, len(letters), 48))
        cv2.putText(page, words, (8, line), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (20,), 1)
    return page


def _checks(chance: Generator) -> Picture:
    """Random modules in a quiet zone: a grid that is no code."""
    side = int(chance.integers(21, 60))
    grid: NDArray[np.bool_] = np.pad(chance.random((side, side)) < 0.5, 4)
    return picture(grid, 480 // grid.shape[0])


def _shapes(chance: Generator) -> Picture:
    """Nested squares and circles, which look like finder patterns."""
    page = np.full((480, 640), 230, dtype=np.uint8)
    for _ in range(25):
        x, y, size = int(chance.integers(0, 640)), int(chance.integers(0, 480)), int(chance.integers(8, 60))
        for part, shade in ((size, 0), (size * 5 // 7, 255), (size * 3 // 7, 0)):
            cv2.rectangle(page, (x - part // 2, y - part // 2), (x + part // 2, y + part // 2), (shade,), -1)
    return page


def _gradients(chance: Generator) -> Picture:
    coarse = chance.integers(0, 256, (6, 8)).astype(np.float32)
    smooth = cv2.resize(coarse, (640, 480), interpolation=cv2.INTER_CUBIC)
    return _noise(np.clip(smooth, 0, 255).astype(np.uint8), chance, 10)


_EMPTY: Final = (_white_noise, _stripes, _writing, _checks, _shapes, _gradients)
