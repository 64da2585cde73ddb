"""A simulated camera: frames and depth maps of live faces, and of attacks presented to it.

A face is a height field with drawn features and skin, lit and turned before the lens; an attack changes what the
lens sees: paper and its dots, a screen and its pixels, a smooth mask, an old recording, or no lens at all. The pictures
are crude; what they keep is the physics that detectors look at: planes have no parallax, grids have frequencies,
recordings do not answer a challenge, copies have no noise of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hutong_contract.extras import needs

with needs("faces"):
    import cv2


LIVE, PRINT, SCREEN, MASK, REPLAY, INJECTION = "live", "print", "screen", "mask", "replay", "injection"
ATTACKS: Final = (PRINT, SCREEN, MASK, REPLAY, INJECTION)
"""Attack species, each reported apart."""
SIDE: Final = 128
FRAMES: Final = 4
TURN_PIXELS: Final = 5.0
"""How far the nose moves in the picture when the head turns."""
_DISTANCE_MM: Final = 450
_RELIEF_MM: Final = 70

Image = NDArray[np.uint8]
Grey = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Shot:
    """One capture."""

    species: str
    frames: tuple[bytes, ...] = field(repr=False)
    """PNG, BGR, SIDE x SIDE."""
    depth_map: bytes = field(repr=False)
    """16-bit PNG of millimetres; empty where the camera has no depth sensor."""
    challenge: str
    """What the terminal says was answered."""
    liveness: Mapping[str, float]
    """What the terminal's own detector found (simulated: it is right most of the time)."""


def take(person: int, challenge: str, seed: int, species: str = LIVE, *, depth: bool = True) -> Shot:
    """Photographs a person, or an attack on that person; the same arguments give the same shot."""
    random = np.random.default_rng([person, seed, 17])
    portrait = _Portrait(person)
    asked = challenge if species in (LIVE, MASK) else _other(challenge)
    pictures = _pictures(portrait, asked, species, random)
    depth_map = _depth(portrait, species, random) if depth else b""
    frames = tuple(_png(picture) for picture in pictures)
    return Shot(species, frames, depth_map, challenge, signals(species, int(random.integers(1 << 31))))


def still_of(picture: Image, species: str, seed: int) -> Image:
    """One frame of a print or screen that shows a photograph (BGR, any size), as the sensor gives it."""
    random = np.random.default_rng([seed, 20])
    scene = cv2.resize(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return _through(np.asarray(scene, np.float32), species, random.uniform(0, 6.28, 4), random)


def signals(species: str, seed: int) -> dict[str, float]:
    """What a terminal's own detector would say: high for live, lower for attacks, with errors."""
    random = np.random.default_rng([seed, 18])
    weak = {PRINT: "texture", SCREEN: "frequency", MASK: "texture", REPLAY: "motion", INJECTION: "motion"}
    out = {name: float(random.beta(18, 3)) for name in ("texture", "frequency", "motion")}
    if species in weak:
        out[weak[species]] = float(random.beta(3, 9))
    return out


def _other(challenge: str) -> str:
    """A recording or a still answers something else, if anything."""
    return {"turn_left": "nod", "turn_right": "nod", "nod": "blink", "blink": "turn_left"}.get(challenge, "")


class _Portrait:
    """A person's look: height field, colours and skin."""

    def __init__(self, person: int) -> None:
        random = np.random.default_rng([person, 19])
        ys, xs = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
        self.xs, self.ys = xs, ys
        width, height = random.uniform(44, 50), random.uniform(56, 62)
        inside = np.clip(1 - ((xs - 64) / width) ** 2 - ((ys - 64) / height) ** 2, 0, None)
        nose = np.exp(-(((xs - 64) / 9) ** 2) - ((ys - 74) / 13) ** 2)
        self.height: Grey = (np.sqrt(inside) * 0.75 + nose * 0.35).astype(np.float32)
        tone = float(random.uniform(120, 185))
        skin = sum(_noise(random, scale) * amount for scale, amount in ((0.8, 7.0), (2.0, 4.0), (9.0, 6.0)))
        gradient_y, gradient_x = np.gradient(cv2.GaussianBlur(self.height, (0, 0), 2))
        shade = np.clip(1 - 3.0 * gradient_x - 2.0 * gradient_y, 0.6, 1.4)
        face = (tone + skin) * shade
        self.smooth: Grey = self._draw(tone * shade, inside, random, eyes_open=True)
        seed = int(random.integers(1 << 31))
        self.open: Grey = self._draw(face, inside, np.random.default_rng(seed), eyes_open=True)
        self.closed: Grey = self._draw(face, inside, np.random.default_rng(seed), eyes_open=False)

    def _draw(self, face: Any, inside: Any, random: np.random.Generator, *, eyes_open: bool) -> Grey:
        background = random.uniform(60, 110) + 10 * _noise(random, 20)
        image = np.where(inside > 0, face, background).astype(np.float32)
        tone = float(np.median(image[inside > 0]))
        for x in (46, 82):
            if eyes_open:
                cv2.ellipse(image, (x, 53), (9, 5), 0, 0, 360, min(225.0, tone + 50), -1, cv2.LINE_AA)
                cv2.circle(image, (x, 53), 4, 28.0, -1, cv2.LINE_AA)
            else:
                cv2.ellipse(image, (x, 53), (9, 5), 0, 0, 360, tone * 0.92, -1, cv2.LINE_AA)
                cv2.ellipse(image, (x, 54), (9, 3), 0, 0, 180, tone * 0.7, 1, cv2.LINE_AA)
            cv2.ellipse(image, (x, 42), (12, 4), 0, 180, 360, tone * 0.4, 2, cv2.LINE_AA)
        cv2.ellipse(image, (64, 96), (15, 5), 0, 0, 180, tone * 0.55, 2, cv2.LINE_AA)
        return np.asarray(cv2.GaussianBlur(image, (0, 0), 0.5), np.float32)

    def seen(self, base: Grey, turn: tuple[float, float], sway: tuple[float, float]) -> Grey:
        """The face turned (pixels that the nose moves) and moved as a whole."""
        xs = self.xs - turn[0] * self.height - sway[0]
        ys = self.ys - turn[1] * self.height - sway[1]
        seen = cv2.remap(base, xs, ys, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return np.asarray(seen, np.float32)


_TURNS: Final = {"turn_left": (-1.0, 0.0), "turn_right": (1.0, 0.0), "nod": (0.0, 1.0)}


def _noise(random: np.random.Generator, scale: float) -> Grey:
    raw = cv2.GaussianBlur(random.standard_normal((SIDE, SIDE)).astype(np.float32), (0, 0), scale)
    return np.asarray(raw / raw.std(), np.float32)


def _pictures(portrait: _Portrait, answer: str, species: str, random: np.random.Generator) -> list[Image]:
    """Frames as the sensor gives them."""
    if species == INJECTION:  # One picture from a file, repeated: no lens, no sensor.
        still = _colour(portrait.open, random, noise=0.0)
        return [still] * FRAMES
    out = []
    phase = random.uniform(0, 6.28, 4)
    for number in range(FRAMES):
        share = number / (FRAMES - 1)
        sway = tuple(random.normal(0, 0.5, 2))
        if species in (PRINT, SCREEN):
            scene = _plane(portrait.open, share, random)
        else:
            direction = _TURNS.get(answer, (0.0, 0.0))
            turn = (direction[0] * TURN_PIXELS * share, direction[1] * TURN_PIXELS * share)
            shut = answer == "blink" and number == FRAMES - 2 and species != MASK
            base = portrait.smooth if species == MASK else portrait.closed if shut else portrait.open
            scene = portrait.seen(base, turn, (float(sway[0]), float(sway[1])))
        out.append(_through(scene, species, phase, random))
    return out


def _plane(still: Grey, share: float, random: np.random.Generator) -> Grey:
    """A flat picture held before the lens: it shifts, turns and stretches as a whole."""
    shift, angle = random.normal(0, 1.0, 2) + share, random.normal(0, 0.6) + share
    matrix = cv2.getRotationMatrix2D((64, 64), float(angle), float(1 + 0.01 * share))
    matrix[0, 2] += float(shift[0])
    matrix[1, 2] += float(shift[1])
    return np.asarray(cv2.warpAffine(still, matrix, (SIDE, SIDE), borderMode=cv2.BORDER_REPLICATE), np.float32)


def _through(scene: Grey, species: str, phase: NDArray[np.float64], random: np.random.Generator) -> Image:
    """What paper, glass or silicone do to the light, and then the sensor."""
    ys, xs = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)
    if species == PRINT:
        scene = 128 + (cv2.GaussianBlur(scene, (0, 0), 1.0) - 128) * 0.7
        dots = np.sin(xs * 2.30 + ys * 0.9 + phase[0]) * np.sin(ys * 2.30 - xs * 0.9 + phase[1])
        scene = scene + 9 * dots
    if species in (SCREEN, REPLAY):
        pixels = np.sin(xs * 2.75 + phase[0]) + np.sin(ys * 2.75 + phase[1])
        moire = np.sin(xs * 0.95 + ys * 0.42 + phase[2])
        strength = 1.0 if species == SCREEN else 0.7
        scene = scene * 1.05 + strength * (5 * pixels + 7 * moire)
    if species in (SCREEN, MASK):
        centre = (int(40 + 40 * random.random()), int(25 + 10 * random.random()))
        cv2.ellipse(scene, centre, (11, 9) if species == SCREEN else (8, 7), 20, 0, 360, 300.0, -1, cv2.LINE_AA)
    return _colour(scene, random, noise=1.6)


def _colour(scene: Grey, random: np.random.Generator, noise: float) -> Image:
    tint: Grey = np.array([0.86, 0.95, 1.08], np.float32)
    clean = scene[:, :, None] * tint
    image = clean + random.normal(0, noise, clean.shape) if noise else clean
    return np.asarray(np.clip(image, 0, 255), np.uint8)


def _depth(portrait: _Portrait, species: str, random: np.random.Generator) -> bytes:
    """Millimetres: a face's relief, or the tilted plane of a sheet or screen."""
    if species in (LIVE, MASK):
        clean = _DISTANCE_MM + _RELIEF_MM * (1 - portrait.height.astype(np.float64))
    else:
        tilt = random.normal(0, 0.15, 2)
        clean = _DISTANCE_MM + tilt[0] * (portrait.xs - 64) + tilt[1] * (portrait.ys - 64)
    depth = clean + random.normal(0, 1.5, clean.shape)
    return _encode(np.clip(depth, 0, 65535).astype(np.uint16))


def _png(image: Image) -> bytes:
    return _encode(image)


def _encode(image: NDArray[Any]) -> bytes:
    done, data = cv2.imencode(".png", image, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    assert done
    return bytes(data.tobytes())
