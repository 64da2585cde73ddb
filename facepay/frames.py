"""Images from outside: sizes are bounded before anything is decoded."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

from facepay.embedding import Unusable
from facepay.liveness import cues

PIXELS_MAX: Final = 25_000_000
"""Largest picture: a phone's camera. A compressed bomb of a few kilobytes can claim 65,535 x 65,535."""
BYTES_MAX: Final = 32 * 1024 * 1024
FRAMES_MAX: Final = 8
FRAME_PIXELS_MAX: Final = 1_000_000
"""Frames of a sealed capture are crops of the face."""
_PNG: Final = b"\x89PNG\r\n\x1a\n"


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height as a PNG, JPEG or BMP says itself. Raises Unusable for any other format."""
    if data[:8] == _PNG and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return int(width), int(height)
    if data[:2] == b"\xff\xd8":
        return _jpeg_size(data)
    if data[:2] == b"BM" and len(data) >= 26:
        width, height = struct.unpack("<ii", data[18:26])
        return abs(int(width)), abs(int(height))
    raise Unusable("not_an_image", "not a PNG, JPEG or BMP; convert it first")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    at = 2
    while at + 9 < len(data) and data[at] == 0xFF:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return int(width), int(height)
        at += 2 + length
    raise Unusable("not_an_image", "a JPEG without a frame header")


def decode(data: bytes, *, pixels_max: int = PIXELS_MAX, flags: int = cv2.IMREAD_COLOR) -> NDArray[Any]:
    """An image from bytes, BGR unless flags say otherwise. Raises Unusable; allocates nothing for one too large."""
    if len(data) > BYTES_MAX:
        raise Unusable("too_large", f"the file is larger than {BYTES_MAX} bytes")
    width, height = size_of(data)
    if width * height > pixels_max or width * height == 0:
        raise Unusable("too_large", f"{width} x {height} pixels; at most {pixels_max} are decoded")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error:
        image = None
    if image is None:
        raise Unusable("not_an_image", "the image is damaged")
    return np.asarray(image)


def measured(frames: Sequence[bytes], depth_map: bytes, challenge: str) -> dict[str, float]:
    """Liveness cues of a capture's encoded frames and depth map. Raises Unusable."""
    if len(frames) > FRAMES_MAX:
        raise Unusable("too_many_frames", f"{len(frames)} frames; at most {FRAMES_MAX}")
    pictures = [decode(frame, pixels_max=FRAME_PIXELS_MAX) for frame in frames]
    depth = None
    if depth_map:
        depth = decode(depth_map, pixels_max=FRAME_PIXELS_MAX, flags=cv2.IMREAD_UNCHANGED)
        if depth.dtype != np.uint16 or depth.ndim != 2:
            raise Unusable("not_a_depth_map", "a depth map is a grey PNG of 16 bits")
    return cues.measure(pictures, depth, challenge)
