"""Screens, stickers and cameras: codes as real PNG files that are written and read.

How a symbol is drawn and read, and the text of a merchant's code, are passed in: this module does not import the
gateway's barcode library, and would work with any other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from hutong_client.optics import QR


class SeenSymbol(Protocol):
    """One symbol that was found in an image."""

    @property
    def text(self) -> str:
        """The text of the symbol."""
        ...


class Symbols(Protocol):
    """Draws and reads symbols."""

    def render_png(self, text: str, symbology: str = ...) -> bytes:
        """A PNG image of a "qr" or "code128" symbol."""
        ...

    def read_image(self, source: bytes) -> Sequence[SeenSymbol]:
        """The symbols in an image."""
        ...


class UnreadableError(Exception):
    """An image does not show exactly one symbol. Present it again."""


class Optics:
    """A folder of images, shown by one party and photographed by another."""

    def __init__(self, symbols: Symbols, folder: Path) -> None:
        self._symbols = symbols
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def show(self, name: str, text: str, symbology: str = QR) -> Path:
        """Writes `text` as a symbol to `name`.png, replacing the former file, and returns the path."""
        path = self._folder / f"{name}.png"
        path.write_bytes(self._symbols.render_png(text, symbology))
        return path

    def scan(self, path: Path) -> str:
        """Reads the one symbol of an image file. Raises UnreadableError."""
        seen = self._symbols.read_image(path.read_bytes())
        if len(seen) != 1:
            raise UnreadableError(f"{path} shows {len(seen)} symbols, not one")
        return seen[0].text
