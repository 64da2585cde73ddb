"""Modules to pictures and back: PNG, SVG and terminal text of a grid of dark and light modules.

Each writer has its own reader, so that `symbols` can prove what it hands out from the output itself.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hutong_contract.extras import needs

with needs("pictures"):
    import cv2


Modules = NDArray[np.bool_]
"""Rows of modules, True where dark, quiet zone included."""
Picture = NDArray[np.uint8]
"""Rows of grey values, 0 black to 255 white."""

_LIGHT: Final = 255
_SVG_RUN: Final = re.compile(r"M([0-9]+) ([0-9]+)h([0-9]+)v1h-[0-9]+z")
_SVG_SIZE: Final = re.compile(r'viewBox="0 0 ([0-9]+) ([0-9]+)"')
_HALVES: Final = {(False, False): "█", (False, True): "▀", (True, False): "▄", (True, True): " "}
"""Upper and lower module to a character that is light where the module is: for light text on a dark terminal."""
_HALVES_OF: Final = {character: pair for pair, character in _HALVES.items()}


def picture(modules: Modules, scale: int, row_scale: int | None = None) -> Picture:
    """Grey values with `scale` pixels a module across, and `row_scale` (the same by default) down."""
    tall = np.repeat(modules, row_scale or scale, axis=0)
    return np.where(np.repeat(tall, scale, axis=1), 0, _LIGHT).astype(np.uint8)


def png(grey: Picture) -> bytes:
    """A PNG file."""
    done, data = cv2.imencode(".png", grey)
    assert done, "OpenCV writes PNG files of any grey picture"
    return bytes(data)


def svg(modules: Modules, scale: int) -> str:
    """An SVG document: one path of runs of dark modules on white."""
    height, width = modules.shape
    runs = []
    for y in range(height):
        edges = np.flatnonzero(np.diff(np.concatenate(([0], modules[y].astype(np.int8), [0]))))
        runs += [f"M{start} {y}h{end - start}v1h-{end - start}z" for start, end in edges.reshape(-1, 2).tolist()]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width * scale}" height="{height * scale}" '
        f'viewBox="0 0 {width} {height}" shape-rendering="crispEdges">'
        f'<path fill="#fff" d="M0 0h{width}v{height}h-{width}z"/><path d="{"".join(runs)}"/></svg>\n'
    )


def modules_of_svg(document: str) -> Modules:
    """The modules that a document of `svg` draws.

    Raises:
        ValueError: the document is none of those.
    """
    size = _SVG_SIZE.search(document)
    if size is None:
        raise ValueError("no size in the SVG document")
    modules = np.zeros((int(size[2]), int(size[1])), dtype=np.bool_)
    for x, y, run in _SVG_RUN.findall(document.rpartition('<path d="')[2]):
        modules[int(y), int(x) : int(x) + int(run)] = True
    return modules


def terminal(modules: Modules) -> str:
    """Lines of half blocks, two rows of modules in each, for light text on a dark ground."""
    even = modules if len(modules) % 2 == 0 else np.vstack([modules, np.zeros((1, modules.shape[1]), dtype=np.bool_)])
    pairs = zip(even[0::2].tolist(), even[1::2].tolist(), strict=True)
    return "\n".join("".join(map(_HALVES.__getitem__, zip(upper, lower, strict=True))) for upper, lower in pairs) + "\n"


def modules_of_terminal(text: str) -> Modules:
    """The modules that lines of `terminal` show.

    Raises:
        KeyError: a character is not one that `terminal` writes.
    """
    rows: list[list[bool]] = []
    for line in text.splitlines():
        pairs = [_HALVES_OF[character] for character in line]
        rows += [[upper for upper, _ in pairs], [lower for _, lower in pairs]]
    return np.array(rows, dtype=np.bool_)
