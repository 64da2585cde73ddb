"""Kinds of barcodes that are neither EMVCo's nor a link or a payment code: the one list of their readers.

A family is told by how its text begins, and reads it. A new one is an entry of `FAMILIES`; nothing else in this package
names it, but for `model.Decoded.kind`, which may get a new value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.barcode import form_read
from gateway.barcode.model import Decoded


@dataclass(frozen=True, slots=True)
class Family:
    """One kind of barcode."""

    name: str
    looks: Callable[[str], object]
    """Whether a text, cleaned of what scanners add, begins like one. Called for texts that nothing else reads, and for
    digits and capitals that begin with `00` but are not objects of EMVCo's; must be fast and never raise."""
    decode: Callable[[str, tuple[str, ...]], Decoded | None]
    """Text and artefacts to what it says; None where it is none after all. Never raises for bad input."""


FAMILIES: Final[tuple[Family, ...]] = (Family("bills and credit transfers", form_read.looks, form_read.decode),)
"""In the order in which they are asked; the first that answers is believed."""


def decode(text: str, artefacts: tuple[str, ...]) -> Decoded | None:
    """What the first family that knows the text makes of it; None where none does."""
    for family in FAMILIES:
        if family.looks(text):
            found = family.decode(text, artefacts)
            if found is not None:
                return found
    return None
