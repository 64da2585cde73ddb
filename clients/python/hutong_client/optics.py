"""How an emulated wallet or terminal shows and scans codes. The library that draws and reads symbols is passed in."""

from __future__ import annotations

from pathlib import Path
from typing import Final, Protocol

QR: Final = "qr"
CODE_128: Final = "code128"


class Optics(Protocol):
    """A screen and a camera: codes as image files."""

    def show(self, name: str, text: str, symbology: str = QR) -> Path:
        """Writes `text` as a symbol ("qr" or "code128") to an image file for `name`, and returns the file."""
        ...

    def scan(self, path: Path) -> str:
        """The text of the one symbol that an image file shows. Raises if it shows none, or several."""
        ...


class NoOpticsError(Exception):
    """A wallet or terminal was made without screen and camera, so it can neither show nor scan: give it optics."""


class Blind:
    """Optics of a wallet or terminal that works with digits alone."""

    def show(self, name: str, text: str, symbology: str = QR) -> Path:
        """Raises NoOpticsError."""
        raise NoOpticsError(f"nothing draws the code of {name}: give it optics")

    def scan(self, path: Path) -> str:
        """Raises NoOpticsError."""
        raise NoOpticsError(f"nothing reads {path}: give it optics")
