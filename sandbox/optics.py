"""The gateway's barcode library, for wallets' screens, merchants' printers and cameras."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.barcode.read import read_image
from gateway.barcode.symbols import render_png
from hutong_client.optics import QR
from sandbox.cameras import SeenSymbol
from sandbox.codes import merchant_code
from sandbox.population import Merchant


class GatewaySymbols:
    """Draws and reads symbols with the gateway's barcode library."""

    def render_png(self, text: str, symbology: str = QR) -> bytes:
        """Draws a symbol. It is read back before it is returned."""
        return render_png(text, symbology)

    def read_image(self, source: bytes | Path) -> Sequence[SeenSymbol]:
        """The symbols in an image; an image in which plain reading finds none is repaired first."""
        return read_image(source)


class MerchantPrinter:
    """Writes merchants' codes with the gateway's barcode library."""

    def merchant_code(self, merchant: Merchant, terminal_id: str, amount_minor: int | None) -> str:
        """A code in the merchant's scheme: static, or dynamic for an amount."""
        return merchant_code(merchant, terminal_id, amount_minor)
