"""Writes symbols: QR by EMVCo's rules, and Code 128. Nothing is handed out that was not read back first.

EMVCo MPM v1.1, 3.7 and CPM v1.1, 3.6: byte mode only, ECI 26 where a character needs it (and only then, unless asked
otherwise), a quiet zone of four modules, an error correction level that the caller may raise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import segno
import zxingcpp
from segno.encoder import DataOverflowError

from gateway.barcode.raster import Modules, Picture, modules_of_svg, modules_of_terminal, picture, png, svg, terminal
from hutong_contract.errors import HutongError, Reason

QR: Final = "qr"
CODE_128: Final = "code128"
QR_QUIET_MODULES: Final = 4
CODE_128_QUIET_MODULES: Final = 10
CODE_128_ROWS: Final = 50
"""Height of a bar in modules: the standard asks for at least 15 % of the width, some 30 for 19 digits."""
CODE_128_CHARACTERS_MAX: Final = 80
LEVELS: Final = ("L", "M", "Q", "H")
SCALE_MAX: Final = 64
SIDE_PIXELS_MAX: Final = 12_000
"""Largest side of a picture that is drawn: 12,000 squared is 144 MB of memory."""


@dataclass(frozen=True, slots=True)
class Style:
    """How a symbol is drawn."""

    scale: int = 6
    """Pixels a module."""
    level: str = "M"
    """QR error correction: L 7 %, M 15 %, Q 25 %, H 30 %."""
    eci: bool | None = None
    """Whether ECI 26 stands in front of the text; None: where a character is outside ASCII."""


DEFAULT_STYLE: Final = Style()


def modules_of(text: str, symbology: str = QR, style: Style = DEFAULT_STYLE) -> Modules:
    """The symbol's modules, quiet zone included.

    Raises:
        HutongError: FIELD_INVALID where the text does not fit the symbology or an argument is unknown.
    """
    if not text:
        raise _invalid("text", "nothing to encode")
    if symbology == QR:
        return _qr(text, style)
    if symbology == CODE_128:
        return _code_128(text)
    raise _invalid("symbology", f"{symbology} is unknown; use {QR} or {CODE_128}")


def _qr(text: str, style: Style) -> Modules:
    if style.level not in LEVELS:
        raise _invalid("level", f"{style.level} is unknown; use one of {', '.join(LEVELS)}")
    eci = not text.isascii() if style.eci is None else style.eci
    try:
        symbol = segno.make(
            text, error=style.level, mode="byte", encoding="utf-8", eci=eci, boost_error=False, micro=False
        )
    except (DataOverflowError, ValueError) as error:
        raise _invalid("text", f"{len(text)} characters do not fit a QR symbol") from error
    dark = np.array([[bool(module) for module in row] for row in symbol.matrix], dtype=np.bool_)
    return np.pad(dark, QR_QUIET_MODULES)


def _code_128(text: str) -> Modules:
    if not text.isascii() or len(text) > CODE_128_CHARACTERS_MAX:
        raise _invalid("text", f"Code 128 takes at most {CODE_128_CHARACTERS_MAX} ASCII characters")
    try:
        barcode = zxingcpp.create_barcode(text, zxingcpp.BarcodeFormat.Code128)
        row = np.array(barcode.to_image(scale=1, add_quiet_zones=False))[0] == 0
    except ValueError as error:
        raise _invalid("text", "cannot be written as Code 128") from error
    return np.tile(np.pad(row, CODE_128_QUIET_MODULES), (CODE_128_ROWS, 1))


def render_png(text: str, symbology: str = QR, style: Style = DEFAULT_STYLE) -> bytes:
    """The symbol as a PNG file, read back before it is handed out.

    Raises:
        HutongError: FIELD_INVALID where the text or an argument does not fit.
    """
    modules = modules_of(text, symbology, style)
    _require_size(modules, style)
    grey = picture(modules, style.scale)
    _prove(grey, text, symbology)
    return png(grey)


def render_svg(text: str, symbology: str = QR, style: Style = DEFAULT_STYLE) -> str:
    """The symbol as an SVG document; what is read back is what the document draws.

    Raises:
        HutongError: FIELD_INVALID where the text or an argument does not fit.
    """
    document = svg(modules_of(text, symbology, style), style.scale)
    _prove(picture(modules_of_svg(document), _PROOF_SCALE), text, symbology)
    return document


def render_terminal(text: str, symbology: str = QR, style: Style = DEFAULT_STYLE) -> str:
    """The symbol as lines of half blocks for a dark terminal; what is read back is what the lines show.

    Raises:
        HutongError: FIELD_INVALID where the text or an argument does not fit.
    """
    modules = modules_of(text, symbology, style)
    if symbology == CODE_128:
        modules = modules[: CODE_128_ROWS // 4]
    lines = terminal(modules)
    rows = _PROOF_SCALE * (4 if symbology == CODE_128 else 1)
    _prove(picture(modules_of_terminal(lines), _PROOF_SCALE, rows), text, symbology)
    return lines


_PROOF_SCALE: Final = 4


def _require_size(modules: Modules, style: Style) -> None:
    if not 1 <= style.scale <= SCALE_MAX or max(modules.shape) * style.scale > SIDE_PIXELS_MAX:
        raise _invalid("scale", f"1 to {SCALE_MAX}, and at most {SIDE_PIXELS_MAX} pixels a side")


def _prove(grey: Picture, text: str, symbology: str) -> None:
    """Reads the picture and compares: a symbol that says something else is a defect and never leaves here."""
    form = zxingcpp.BarcodeFormat.QRCode if symbology == QR else zxingcpp.BarcodeFormat.Code128
    read = zxingcpp.read_barcodes(grey, formats=zxingcpp.BarcodeFormats([form]), text_mode=zxingcpp.TextMode.Plain)
    if [barcode.text for barcode in read] != [text] and [barcode.bytes for barcode in read] != [text.encode("utf-8")]:
        raise HutongError(Reason.ERROR_REASON_INTERNAL, problem="the symbol does not read back as it was written")


def _invalid(field: str, problem: str) -> HutongError:
    return HutongError(Reason.ERROR_REASON_FIELD_INVALID, field=field, problem=problem)
