"""What scanners add to a payload, named and taken away before it is judged."""

from __future__ import annotations

from typing import Final

_PREFIXES: Final = (
    ("\\000026", "eci_prefix"),
    ("]Q0", "symbology_identifier"),
    ("]Q1", "symbology_identifier"),
    ("]Q2", "symbology_identifier"),
    ("]C0", "symbology_identifier"),
    ("\ufeff", "bom"),
    ("\u00ef\u00bb\u00bf", "bom"),
)
"""Texts in front of a payload: the designator of ECI 26 as scanners spell it, AIM symbology identifiers (ISO/IEC
15424), and the byte order mark, also as three characters of Latin-1."""
_ROUNDS_MAX: Final = 4
"""Each kind can stand before another; more than these are not an accident of scanning."""
_SURROUNDING: Final = "\t\n\v\f\r \u0000\u00a0\u200b\u2028\u2029\u3000"


def clean(text: str) -> tuple[str, tuple[str, ...]]:
    """The payload without what a scanner added, and the names of what was taken away."""
    first = text[:1]
    if first and first in "0123456789huUHw" and text[-1] not in _SURROUNDING:
        return text, ()  # The common case: nothing in front, nothing behind.
    names: list[str] = []
    for _ in range(_ROUNDS_MAX):
        before = text
        text = text.strip(_SURROUNDING)
        if len(text) != len(before):
            names.append("white_space")
        for prefix, name in _PREFIXES:
            if text.startswith(prefix):
                text = text[len(prefix) :]
                names.append(name)
        if text == before:
            break
    return text, tuple(dict.fromkeys(names))
