"""Checks a picture file before it is unpacked: its format and its size in pixels.

A file of a few kilobytes can claim, and unpack to, gigabytes. Therefore its claim is read from the header and refused
here; only the five formats of `FORMATS` reach a decoder.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from stat import S_ISREG
from typing import Final

from hutong_contract.errors import HutongError, Reason

FILE_BYTES_MAX: Final = 64 * 1024 * 1024
PIXELS_MAX: Final = 200_000_000
"""A camera of 200 megapixels; a file that claims more is refused before it is unpacked."""
SIDE_MAX: Final = 65_500
FORMATS: Final = "PNG, JPEG, WebP, BMP, TIFF"

_JPEG_SEGMENTS_MAX: Final = 10_000
_TIFF_ENTRIES_MAX: Final = 4_096
_HEIF_BRANDS: Final = frozenset((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"))
_OTHERS: Final[tuple[tuple[bytes, str], ...]] = (
    (b"%PDF", "a PDF document: export its page as PNG"),
    (b"<svg", "an SVG document: draw it as PNG"),
    (b"<?xml", "an XML document: draw it as PNG"),
    (b"GIF8", "a GIF picture: save it as PNG"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture: save it as PNG"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture: save it as PNG"),
)


def read_file(path: Path) -> bytes:
    """The bytes of a picture file.

    Raises:
        HutongError: FIELD_INVALID if it cannot be read, is no regular file, or is larger than `FILE_BYTES_MAX`.
    """
    try:
        told = path.stat()
        if not S_ISREG(told.st_mode):
            raise refusal(f"{path}: not a file")
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise refusal(f"{path}: {error.strerror}") from error
    except ValueError as error:  # a NUL in the name
        raise refusal("not the name of a file") from error
    return data


def without_fill(data: bytes) -> bytes:
    """The file without the fill bytes (FF) that some cameras write before a JPEG's first marker."""
    return b"\xff" + data.lstrip(b"\xff") if data.startswith(b"\xff\xff") else data


def require_readable(data: bytes) -> tuple[int, int]:
    """The width and height that the file claims.

    Raises:
        HutongError: FIELD_INVALID where the file is too large, of another format, damaged, or claims too many pixels;
            `problem` says what to do.
    """
    if len(data) > FILE_BYTES_MAX:
        raise refusal(f"the file is larger than {FILE_BYTES_MAX} bytes: send a smaller picture")
    data = without_fill(data)
    reader = next((reader for head, reader in _READERS if data.startswith(head)), None)
    if reader is None or (reader is _webp and data[8:12] != b"WEBP"):
        raise _other_format(data)
    try:
        width, height = reader(data)
    except (struct.error, IndexError) as error:
        raise refusal("not a picture: its header is cut or damaged") from error
    if width < 1 or height < 1:
        raise refusal("not a picture: it has no pixels")
    if width * height > PIXELS_MAX or max(width, height) > SIDE_MAX:
        raise refusal(f"{width} by {height} pixels, at most {PIXELS_MAX} in all and {SIDE_MAX} a side")
    return width, height


def refusal(problem: str) -> HutongError:
    """The error that refuses a picture and says why."""
    return HutongError(Reason.ERROR_REASON_FIELD_INVALID, field="image", problem=problem)


def _other_format(data: bytes) -> HutongError:
    if data[4:8] == b"ftyp":
        brands = {data[8:12], *(data[at : at + 4] for at in range(16, min(len(data), 64), 4))}
        if brands & _HEIF_BRANDS:
            return refusal(
                "a HEIC picture, which is not read here: save it as JPEG or PNG "
                "(on an iPhone: Settings, Camera, Formats, Most Compatible)"
            )
        return refusal(f"an AVIF picture or a film, which is not read here: save it as one of {FORMATS}")
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    for head, what in _OTHERS:
        if start.startswith(head):
            return refusal(f"{what}; formats that are read: {FORMATS}")
    return refusal(f"not a picture in a format that is known here ({FORMATS})")


def _png(data: bytes) -> tuple[int, int]:
    if data[12:16] != b"IHDR":
        raise IndexError
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _jpeg(data: bytes) -> tuple[int, int]:
    """The size in the start-of-frame segment. Any number of fill bytes (FF) may stand before a marker."""
    at = 2
    for _ in range(_JPEG_SEGMENTS_MAX):
        at = data.index(b"\xff", at) if data.find(b"\xff", at) >= 0 else len(data)
        while data[at] == 0xFF:
            at += 1
        marker = data[at]
        at += 1
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:
            height, width = struct.unpack_from(">HH", data, at + 3)
            return width, height
        if marker in {0x00, 0x01} or 0xD0 <= marker <= 0xD8:
            continue
        if marker in {0xD9, 0xDA}:
            raise IndexError
        at += max(2, struct.unpack_from(">H", data, at)[0])
    raise IndexError


def _webp(data: bytes) -> tuple[int, int]:
    form = data[12:16]
    if form == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if form == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if form == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    raise IndexError


def _bmp(data: bytes) -> tuple[int, int]:
    if struct.unpack_from("<I", data, 14)[0] == 12:
        width, height = struct.unpack_from("<HH", data, 18)
        return width, height
    width, height = struct.unpack_from("<ii", data, 18)
    return abs(width), abs(height)


def _tiff(data: bytes) -> tuple[int, int]:
    """The largest width and height of the first directory."""
    order = "<" if data.startswith(b"II") else ">"
    at = struct.unpack_from(order + "I", data, 4)[0]
    count = struct.unpack_from(order + "H", data, at)[0]
    size = {256: 0, 257: 0}
    for number in range(min(count, _TIFF_ENTRIES_MAX)):
        tag, form = struct.unpack_from(order + "HH", data, at + 2 + 12 * number)
        if tag in size:
            size[tag] = struct.unpack_from(order + ("H" if form == 3 else "I"), data, at + 10 + 12 * number)[0]
    return size[256], size[257]


_READERS: Final[tuple[tuple[bytes, Callable[[bytes], tuple[int, int]]], ...]] = (
    (b"\x89PNG\r\n\x1a\n", _png),
    (b"\xff\xd8", _jpeg),
    (b"RIFF", _webp),
    (b"BM", _bmp),
    (b"II*\x00", _tiff),
    (b"MM\x00*", _tiff),
)
