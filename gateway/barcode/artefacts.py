"""Removes and names what scanners add to a payload, before it is judged."""

from __future__ import annotations

from typing import Final

_PREFIXES: Final = (
    ("\\000026", "eci_prefix"),
    *((f"]{letter}{modifier}", "symbology_identifier") for letter in "QCLzd" for modifier in "0123456789"),
    ("\ufeff", "bom"),
    ("\u00ef\u00bb\u00bf", "bom"),
)
"""Texts in front of a payload: the designator of ECI 26 as scanners write it, symbology identifiers (ISO/IEC 15424) of
QR, Code 128, PDF417, Aztec and Data Matrix, and the byte order mark, also as three characters of Latin-1."""
_ROUNDS_MAX: Final = 4
"""Most rounds of removal: each kind of addition can precede another, but more than these are not an accident of
scanning."""
_SPACE: Final = "\t\n\v\f\r \u0000\u00a0\u2028\u2029\u3000"
_FRAMING: Final = "\x02\x03\x04\x1c\x1d\x1e\x1f"
"""Start and end of text and transmission, and separators, as terminals on a serial line send them."""
_INVISIBLE: Final = "\u00ad\u061c\u180e\ufeff" + "".join(
    chr(n) for first, last in ((0x200B, 0x200F), (0x202A, 0x202E), (0x2060, 0x2069)) for n in range(first, last + 1)
)
"""Invisible marks: direction of text, possible line breaks. They come from copying out of chats and pages."""
_SURROUNDING: Final = ((_SPACE, "white_space"), (_FRAMING, "framing"), (_INVISIBLE, "invisible_mark"))
_NEVER_LAST: Final = frozenset(_SPACE + _FRAMING + _INVISIBLE)


def clean(text: str) -> tuple[str, tuple[str, ...]]:
    """The payload without additions of a scanner, and the names of what was removed."""
    first = text[:1]
    if first and first in "0123456789huUHw" and text[-1] not in _NEVER_LAST:
        return text, ()  # The common case: nothing in front, nothing behind.
    names: list[str] = []
    for _ in range(_ROUNDS_MAX):
        before = text
        for prefix, name in _PREFIXES:
            if text.startswith(prefix):
                text = text[len(prefix) :]
                names.append(name)
        for signs, name in _SURROUNDING:
            stripped = text.strip(signs)
            if len(stripped) != len(text):
                text = stripped
                names.append(name)
        if text == before:
            break
    return text, tuple(dict.fromkeys(names))
