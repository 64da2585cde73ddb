"""A parsed merchant code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.barcode.model import Pair
from gateway.barcode.tlv import join

CHARACTERS: Final = "characters"
"""Lengths count characters, as the standard says."""
UTF8_BYTES: Final = "utf8_bytes"
"""Lengths count UTF-8 bytes, as some writers do."""


@dataclass(frozen=True, slots=True)
class Payload:
    """A parsed merchant code: enough to write it again byte for byte."""

    objects: tuple[Pair, ...]
    """Root objects in their order."""
    values: dict[str, str]
    """Root id to value; of an id that stands twice, the first."""
    templates: dict[str, dict[str, str]]
    """Root id of a template that could be read to the values inside it."""
    reading: str | None
    """The reading of lengths that held; None where neither did."""
    currency: str | None
    """Alphabetic code of object 53, where it is one of ISO 4217."""
    amount_minor: int | None
    """Object 54 in minor units, where amount and currency are certain."""

    def text(self) -> str:
        """The payload again, byte for byte."""
        return join(self.objects, count_bytes=self.reading == UTF8_BYTES)
