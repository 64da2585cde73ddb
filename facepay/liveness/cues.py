"""What frames and a depth map say about presentation attacks: physical cues, each 0 (attack) to 1 (live).

Frames are BGR uint8 crops of the face, all of one size, in the order of capture. Each measure is a physical
quantity, and a logistic curve turns it into a score; the curve's middle and width are in one table, fitted on
simulated captures, and will not fit a real camera without being fitted again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from hutong_contract.extras import needs

with needs("faces"):
    import cv2


Image = NDArray[np.uint8]
Grey = NDArray[np.float32]

SIDE: Final = 128
"""Frames are measured at this size."""
TEXTURE_SIDE_MIN: Final = 115
"""Pixels of the smaller side of a frame; pores are no larger than a hundredth of a face."""
GRID_SIDE_MIN: Final = 64
GREY_SPREAD_MAX: Final = 6
"""Largest difference of the channels in a grey picture, which JPEG does not keep quite equal."""
_CURVES: Final[dict[str, tuple[float, float]]] = {
    # cue: (middle, width); a negative width falls.
    "texture": (2.6, 0.3),
    "frequency": (20.0, -3.0),
    "specular": (0.006, -0.002),
    "moire": (8.0, -0.7),
    "motion": (0.7, 0.15),
    "challenge": (1.6, 0.25),
    "depth": (8.0, 1.5),
}
"""Where each measure turns from attack to live."""


def measure(frames: Sequence[Image], depth_map: NDArray[np.uint16] | None, challenge: str) -> dict[str, float]:
    """All cues that this much material allows. Needs no depth map and no second frame, but says less without. A picture
    smaller than SIDE shows no pores, and its grids are looked for at its own size: enlarging makes grids of its own."""
    if not frames:
        return {}
    own = min(min(frame.shape[:2]) for frame in frames)
    small = [_sized(frame, SIDE) for frame in frames]
    grey = [_grey(frame) for frame in small]
    values = {"specular": specular(small[0])}
    if own >= TEXTURE_SIDE_MIN:
        values["texture"] = texture(grey[0])
    if own >= GRID_SIDE_MIN:
        native = grey if own >= SIDE else [_grey(_sized(frame, own)) for frame in frames]
        values["frequency"] = max(peak(one, 0.28, 0.71) for one in native)
        values["moire"] = max(peak(one, 0.10, 0.28) for one in native)
    if len(grey) > 1:
        values["motion"] = motion(grey)
        if challenge:
            values["challenge"] = answered(grey, challenge)
    if depth_map is not None:
        values["depth"] = relief(depth_map)
    return {name: _score(name, value) for name, value in values.items()}


def is_grey(picture: Image) -> bool:
    """Whether a BGR picture has no colour; a classifier that was trained on colour then says nothing."""
    spread = picture.max(axis=2).astype(np.int16) - picture.min(axis=2)
    return float(np.quantile(spread, 0.99)) <= GREY_SPREAD_MAX


def _sized(frame: Image, side: int) -> Image:
    how = cv2.INTER_AREA if min(frame.shape[:2]) >= side else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame, (side, side), interpolation=how), np.uint8)


def _grey(frame: Image) -> Grey:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), np.float32)


def _score(name: str, value: float) -> float:
    middle, width = _CURVES[name]
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, (value - middle) / width))))


def texture(grey: Grey) -> float:
    """Fine structure of the cheeks and forehead, in grey levels: skin has pores, a mask or a blurred print has none."""
    fine = grey - cv2.GaussianBlur(grey, (0, 0), 1.5)
    patches = [fine[66:84, 30:46], fine[66:84, 82:98], fine[18:32, 52:76]]
    return float(np.median([patch.std() for patch in patches]))


def peak(grey: Grey, low: float, high: float) -> float:
    """The strongest single frequency between two radii (in cycles a pixel), over the median of its ring: grids of
    dots or pixels, and their beat with the sensor (moire), are single frequencies; skin has none."""
    side = len(grey)
    window = np.outer(np.hanning(side), np.hanning(side)).astype(np.float32)
    spectrum = np.abs(np.fft.fftshift(np.fft.fft2((grey - grey.mean()) * window)))
    axis = np.fft.fftshift(np.fft.fftfreq(side))
    radius = np.hypot(axis[:, None], axis[None, :])
    best = 0.0
    for start in np.arange(low, high, 0.03):
        ring = spectrum[(radius >= start) & (radius < start + 0.03)]
        if ring.size:
            best = max(best, float(ring.max() / (np.median(ring) + 1e-6)))
    return best


def specular(frame: Image) -> float:
    """Share of the frame in one saturated spot: glass and gloss mirror the light as one patch."""
    bright = (frame.min(axis=2) >= 245).astype(np.uint8)
    count, _, stats, _ = cv2.connectedComponentsWithStats(bright)
    return float(stats[1:, cv2.CC_STAT_AREA].max() / bright.size) if count > 1 else 0.0


def motion(grey: Sequence[Grey]) -> float:
    """How much moves beyond what a plane could, in grey levels over the noise: a live face turns and blinks, a sheet
    or a screen moves as a whole, and frames that are copies do not even differ in noise."""
    first = grey[0]
    noise = min(float((second - first).std()) for second in grey[1:])
    if noise < 0.2:
        return 0.0
    residuals = []
    for second in grey[1:]:
        aligned = _align(first, second)
        difference = cv2.GaussianBlur(aligned - first, (0, 0), 2)[16:112, 16:112]
        residuals.append(float(np.abs(difference).mean()))
    return max(residuals)


def _align(first: Grey, second: Grey) -> Grey:
    """The second frame under the affine map that fits it best to the first."""
    identity = np.eye(2, 3, dtype=np.float32)
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 40, 1e-4)
    try:
        _, warp = cv2.findTransformECC(first, second, identity, cv2.MOTION_AFFINE, criteria)
    except cv2.error:  # Nothing in common: no plane explains it.
        return second
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(second, warp, (SIDE, SIDE), flags=flags, borderMode=cv2.BORDER_REPLICATE))


def _shift(first: Grey, second: Grey, where: tuple[slice, slice]) -> tuple[float, float]:
    one, two = np.ascontiguousarray(first[where]), np.ascontiguousarray(second[where])
    window = cv2.createHanningWindow((one.shape[1], one.shape[0]), cv2.CV_32F)
    (dx, dy), _ = cv2.phaseCorrelate(one, two, window)
    return float(dx), float(dy)


_NOSE: Final = (slice(48, 96), slice(44, 84))
_EYES: Final = (slice(44, 62), slice(34, 94))


def _turn(grey: Sequence[Grey], axis: int, sign: int) -> float:
    """How far the nose moved against the whole face, in pixels, in the direction asked for."""
    best = 0.0
    for second in grey[1:]:
        whole = _shift(grey[0], second, (slice(0, SIDE), slice(0, SIDE)))
        nose = _shift(grey[0], second, _NOSE)
        best = max(best, sign * nose[axis], sign * (nose[axis] - whole[axis]))
    return best


def _blink(grey: Sequence[Grey]) -> float:
    """How much brighter the eyes became than the rest: lids are lighter than pupils."""

    def eyes(one: Grey) -> float:
        return float(np.quantile(one[_EYES], 0.04) - np.quantile(one, 0.5))

    return max(abs(eyes(second) - eyes(grey[0])) for second in grey[1:]) / 20


_ANSWERS: Final[dict[str, Callable[[Sequence[Any]], float]]] = {
    "turn_left": lambda grey: _turn(grey, 0, -1),
    "turn_right": lambda grey: _turn(grey, 0, 1),
    "nod": lambda grey: _turn(grey, 1, 1),
    "blink": _blink,
}


def answered(grey: Sequence[Grey], challenge: str) -> float:
    """How clearly the frames show what was asked for; 0 for a challenge that is not known."""
    answer = _ANSWERS.get(challenge)
    return answer(grey) if answer else 0.0


def relief(depth_map: NDArray[np.uint16]) -> float:
    """How far the face departs from a plane, in millimetres (root mean square): sheets and screens are planes. A face
    also has its nose nearer than its rim; where it has not, the answer is 0."""
    small = cv2.resize(depth_map, (32, 32), interpolation=cv2.INTER_AREA).astype(np.float64)
    valid = (small > 100) & (small < 3000)
    if valid.mean() < 0.5:
        return 0.0
    ys, xs = np.nonzero(valid)
    matrix = np.column_stack([xs, ys, np.ones_like(xs)])
    plane, *_ = np.linalg.lstsq(matrix, small[valid], rcond=None)
    residual = small[valid] - matrix @ plane
    centre = np.hypot(xs - 15.5, ys - 16) < 5
    if not centre.any() or residual[centre].mean() > -2:
        return 0.0
    return float(np.sqrt((residual**2).mean()))
