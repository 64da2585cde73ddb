"""Pictures and files that are made to stop a reader."""

from __future__ import annotations

import cv2
import numpy as np

from gateway.barcode.raster import Picture, picture
from gateway.barcode.symbols import modules_of


def finder_patterns(side: int) -> bytes:
    """A PNG of nothing but finder patterns: a reader tries every three of them as a symbol."""
    one = np.full((9, 9), 255, dtype=np.uint8)
    for edge, shade in ((1, 0), (2, 255), (3, 0)):
        one[edge : 9 - edge, edge : 9 - edge] = shade
    return encoded(".png", np.tile(one, (side // 9, side // 9)))


def beside_finder_patterns(text: str) -> bytes:
    """A PNG with a symbol that is read at once, beside hundreds of finder patterns."""
    modules = modules_of(text)
    page = np.full((1_000, 1_000), 255, dtype=np.uint8)
    pattern, symbol = picture(modules[4:11, 4:11], 2), picture(modules, 8)
    for top in range(450, 970, 30):
        for left in range(10, 970, 30):
            page[top : top + len(pattern), left : left + len(pattern)] = pattern
    page[: len(symbol), : len(symbol)] = symbol
    return encoded(".png", page)


def encoded(extension: str, picture: Picture, *options: int) -> bytes:
    """The picture as a file of a format."""
    done, data = cv2.imencode(extension, picture, options)
    assert done
    return bytes(data)


def claiming(data: bytes, side: int) -> bytes:
    """The same file, whose header claims `side` pixels across and down."""
    changed = bytearray(data)
    if data.startswith(b"\x89PNG"):
        changed[16:24] = side.to_bytes(4) * 2
    elif data.startswith(b"\xff\xd8"):
        at = data.index(b"\xff\xc0") + 5
        changed[at : at + 4] = side.to_bytes(2) * 2
    elif data.startswith(b"BM"):
        changed[18:26] = side.to_bytes(4, "little") * 2
    elif data.startswith(b"II"):
        at = int.from_bytes(data[4:8], "little")
        for entry in range(at + 2, at + 2 + 12 * int.from_bytes(data[at : at + 2], "little"), 12):
            if int.from_bytes(data[entry : entry + 2], "little") in {256, 257}:
                changed[entry + 2 : entry + 12] = (
                    (4).to_bytes(2, "little") + (1).to_bytes(4, "little") + side.to_bytes(4, "little")
                )
    else:
        assert data[12:16] == b"VP8 "
        changed[26:30] = side.to_bytes(2, "little") * 2
    return bytes(changed)
