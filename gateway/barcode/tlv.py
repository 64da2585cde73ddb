"""The grammar of EMV merchant codes: two digits of id, two of length, a value; and its checksum.

EMVCo QR Code Specification for Payment Systems, Merchant-Presented Mode v1.1, chapter 3. Lengths count characters;
writers exist that count UTF-8 bytes instead, so both readings are here.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable
from typing import Final

from gateway.barcode.model import Pair, Violation, excerpt

OBJECTS_MAX: Final = 100
"""Most objects on one level: as many as there are ids."""
LENGTHS: Final = {f"{n:02d}": n for n in range(100)}
_CRC_START: Final = 0xFFFF


def split(text: str) -> tuple[list[Pair], Violation | None]:
    """Splits one level into its objects, lengths counting characters; the violation says why it stopped early.

    The violation's path is the id at which the text cannot be read on.
    """
    pairs: list[Pair] = []
    position, size = 0, len(text)
    lengths = LENGTHS
    while position < size:
        start = position + 4
        identifier = text[position : position + 2]
        length = lengths.get(text[position + 2 : start])
        if length is None or identifier not in lengths:
            return pairs, _unreadable(text, position)
        position = start + length
        if position > size:
            return pairs, Violation(identifier, "truncated", f"length {length:02d}, {size - start} characters left")
        if len(pairs) == OBJECTS_MAX:
            return pairs, Violation("", "too_many_objects", f"more than {OBJECTS_MAX}")
        pairs.append((identifier, text[start:position]))
    return pairs, None


def _unreadable(text: str, position: int) -> Violation:
    identifier, length = text[position : position + 2], text[position + 2 : position + 4]
    if identifier not in LENGTHS:
        return Violation("", "id_format", excerpt(text[position : position + 4]))
    return Violation(identifier, "length_format", excerpt(length) or "nothing")


def split_bytes(text: str) -> tuple[list[Pair], Violation | None]:
    """As `split`, lengths counting UTF-8 bytes. A length that cuts a character in two is a violation."""
    # Latin-1 gives one character for each byte, so the same reader serves both readings.
    pairs, problem = split(text.encode("utf-8", "surrogatepass").decode("latin-1"))
    decoded: list[Pair] = []
    for identifier, value in pairs:
        try:
            decoded.append((identifier, value.encode("latin-1").decode("utf-8", "surrogatepass")))
        except UnicodeDecodeError:
            return decoded, Violation(identifier, "length_cuts_character", f"length {len(value):02d}")
    return decoded, problem


def join(pairs: Iterable[Pair], *, count_bytes: bool = False) -> str:
    """Writes objects in their order.

    Raises:
        ValueError: an id is not two digits, or a value is longer than a length can say.
    """
    parts = []
    for identifier, value in pairs:
        length = len(value.encode("utf-8", "surrogatepass")) if count_bytes else len(value)
        if length > 99 or identifier not in LENGTHS:
            raise ValueError(f"object {identifier} does not fit: {length} of at most 99")
        parts.append(f"{identifier}{length:02d}{value}")
    return "".join(parts)


def crc(text: str) -> str:
    """CRC-16/CCITT-FALSE of a text's UTF-8 bytes as four upper-case hex digits (ISO/IEC 13239, start FFFF)."""
    return f"{binascii.crc_hqx(text.encode('utf-8', 'surrogatepass'), _CRC_START):04X}"


def seal(pairs: Iterable[Pair]) -> str:
    """Writes objects and closes them with the checksum (object 63)."""
    body = join(pairs) + "6304"
    return body + crc(body)
