"""Kinds of barcodes that are neither EMVCo's nor a link or a payment code: the list of their readers.

A family is recognised by how its text begins, and decodes it. A new one is an entry of `FAMILIES`; nothing else in this
package names it, except `model.Decoded.kind`, which may get a new value.
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
    """Whether a text, cleaned of a scanner's additions, begins like one. Called for texts that nothing else decodes,
    and for digits and capitals that begin with `00` but are not objects of EMVCo's; must be fast and never raise."""
    decode: Callable[[str, tuple[str, ...]], Decoded | None]
    """Decodes text and artefacts; None if it is not of this family after all. Never raises for bad input."""


FAMILIES: Final[tuple[Family, ...]] = (Family("bills and credit transfers", form_read.looks, form_read.decode),)
"""In the order in which they are asked; the first result counts."""


def decode(text: str, artefacts: tuple[str, ...]) -> Decoded | None:
    """The result of the first family that recognises the text; None if none does."""
    for family in FAMILIES:
        if family.looks(text):
            found = family.decode(text, artefacts)
            if found is not None:
                return found
    return None
