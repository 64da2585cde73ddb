"""Plots as PNG, drawn with OpenCV: curves in a frame, with ticks and a legend."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

WIDTH: Final = 900
HEIGHT: Final = 600
_LEFT, _RIGHT, _TOP, _BOTTOM = 90, 30, 60, 70
_COLOURS: Final = ((180, 90, 20), (40, 60, 210), (60, 150, 40))
_INK: Final = (40, 40, 40)
_FONT: Final = cv2.FONT_HERSHEY_SIMPLEX


@dataclass(frozen=True, slots=True)
class Curve:
    """One line."""

    label: str
    x: NDArray[np.float64]
    y: NDArray[np.float64]


def draw(file: Path, title: str, axes: tuple[str, str], curves: Sequence[Curve], *, log_x: bool = False) -> None:
    """Writes one plot."""
    image: Any = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    xs = [np.log10(np.maximum(curve.x, 1e-6)) if log_x else curve.x for curve in curves]
    low_x, high_x = min(float(x.min()) for x in xs), max(float(x.max()) for x in xs)
    low_y, high_y = 0.0, max(1e-9, max(float(curve.y.max()) for curve in curves))
    span_x = (high_x - low_x) or 1.0

    def place(x: float, y: float) -> tuple[int, int]:
        across = _LEFT + (x - low_x) / span_x * (WIDTH - _LEFT - _RIGHT)
        down = HEIGHT - _BOTTOM - (y - low_y) / (high_y - low_y) * (HEIGHT - _TOP - _BOTTOM)
        return round(across), round(down)

    for tick in np.linspace(low_x, high_x, 7):
        at = place(float(tick), low_y)
        cv2.line(image, at, (at[0], _TOP), (230, 230, 230), 1)
        text = f"1e{tick:.1f}" if log_x else f"{tick:.2f}"
        cv2.putText(image, text, (at[0] - 20, at[1] + 22), _FONT, 0.45, _INK, 1, cv2.LINE_AA)
    for tick in np.linspace(low_y, high_y, 6):
        at = place(low_x, float(tick))
        cv2.line(image, at, (WIDTH - _RIGHT, at[1]), (230, 230, 230), 1)
        cv2.putText(image, f"{tick:.3g}", (at[0] - 60, at[1] + 5), _FONT, 0.45, _INK, 1, cv2.LINE_AA)
    cv2.rectangle(image, (_LEFT, _TOP), (WIDTH - _RIGHT, HEIGHT - _BOTTOM), _INK, 1)
    for number, (curve, x) in enumerate(zip(curves, xs, strict=True)):
        colour = _COLOURS[number % len(_COLOURS)]
        points = np.array([place(float(a), float(b)) for a, b in zip(x, curve.y, strict=True)], np.int32)
        cv2.polylines(image, [points], False, colour, 2, cv2.LINE_AA)
        cv2.putText(image, curve.label, (WIDTH - 260, _TOP + 25 + 22 * number), _FONT, 0.5, colour, 1, cv2.LINE_AA)
    cv2.putText(image, title, (_LEFT, 35), _FONT, 0.7, _INK, 1, cv2.LINE_AA)
    cv2.putText(image, axes[0], (WIDTH // 2 - 80, HEIGHT - 20), _FONT, 0.5, _INK, 1, cv2.LINE_AA)
    cv2.putText(image, axes[1], (10, _TOP - 12), _FONT, 0.5, _INK, 1, cv2.LINE_AA)
    if not cv2.imwrite(str(file), image):
        raise OSError(f"{file} cannot be written")
