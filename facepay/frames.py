"""Decodes images from outside. Their size is checked before anything is decoded."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from facepay.embedding import Unusable
from facepay.liveness import cues
from hutong_contract.extras import needs

with needs("faces"):
    import cv2


PIXELS_MAX: Final = 25_000_000
"""Largest picture: a phone's camera. A compressed bomb of a few kilobytes can claim 65,535 x 65,535."""
BYTES_MAX: Final = 32 * 1024 * 1024
FRAMES_MAX: Final = 8
FRAME_PIXELS_MAX: Final = 1_000_000
"""Frames of a sealed capture are crops of the face."""
FILE_FORMATS: Final = ("PNG", "JPEG", "BMP", "TIFF", "PGM", "PPM", "PBM")
"""What `decode_file` takes."""
_PNM_HEADER_MAX: Final = 4_096
"""Bytes in which width and height of a PNM file must stand, comments included."""
_DIGITS_MAX: Final = 9
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


def file_size_of(data: bytes) -> tuple[int, int]:
    """Width and height of an image file of an operator's own: PNM (PBM, PGM, PPM) and TIFF as well, which captures from
    outside may not be. Raises Unusable."""
    if data[:1] == b"P" and data[1:2] in b"123456" and data[2:3].isspace():
        return _pnm_size(data)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff_size(data)
    try:
        return size_of(data)
    except Unusable as error:
        if str(error).startswith("not a "):
            raise Unusable(error.reason, f"not one of {', '.join(FILE_FORMATS)}; convert it first") from None
        raise


def _pnm_size(data: bytes) -> tuple[int, int]:
    """The first two numbers after the magic; a comment runs from # to the end of its line."""
    words = re.sub(rb"#[^\n\r]*", b" ", data[2:_PNM_HEADER_MAX]).split(maxsplit=2)
    if len(words) < 2 or not (words[0].isdigit() and words[1].isdigit()):
        raise Unusable("not_an_image", "a PNM file without width and height")
    return int(words[0][:_DIGITS_MAX]), int(words[1][:_DIGITS_MAX])


def _tiff_size(data: bytes) -> tuple[int, int]:
    """Tags 256 and 257 of the first directory, the only one that is decoded. Samples (tag 277) count as pixels where
    there are more than four, so that the bound on pixels bounds memory."""
    order = "<" if data[:2] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        (entries,) = struct.unpack_from(order + "H", data, start)
        tags = {}
        for number in range(entries):
            tag, kind, _ = struct.unpack_from(order + "HHI", data, start + 2 + 12 * number)
            if kind in (3, 4):  # SHORT and LONG
                (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, start + 10 + 12 * number)
        return tags[256] * max(1, tags.get(277, 1) // 4), tags[257]
    except (struct.error, KeyError):
        raise Unusable("not_an_image", "a TIFF without width and height in its first directory") from None


def decode_file(data: bytes) -> NDArray[Any]:
    """An image file of an operator's own, in any of FILE_FORMATS, as BGR. Raises Unusable."""
    return decode(data, size=file_size_of)


def decode(
    data: bytes,
    *,
    pixels_max: int = PIXELS_MAX,
    flags: int = cv2.IMREAD_COLOR,
    size: Callable[[bytes], tuple[int, int]] = size_of,
) -> NDArray[Any]:
    """An image from bytes, BGR unless flags say otherwise. Raises Unusable; allocates nothing for one too large, by
    `size`, which also says which formats are taken."""
    if len(data) > BYTES_MAX:
        raise Unusable("too_large", f"the file is larger than {BYTES_MAX} bytes")
    width, height = size(data)
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
