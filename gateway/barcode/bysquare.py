"""PAY by square's packing (bsqr.co, versions 1.0 to 1.2): fields separated by tabs, a CRC-32, LZMA, and base32hex.

The first two bytes have the type, version and kind of document; two more the unpacked length (little-endian). Unpacking
is bounded: a header that claims more than `UNPACKED_MAX` bytes is refused before anything is read.
"""

from __future__ import annotations

import lzma
import re
import zlib
from collections.abc import Mapping
from typing import Any, Final

UNPACKED_MAX: Final = 2_000
"""Most bytes after unpacking; a QR symbol of the standard's size holds some 550 characters."""
ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUV"
_PACKED: Final = re.compile("[0-9A-V]{20,2000}").fullmatch
_FILTERS: Final[list[dict[str, Any]]] = [
    {"id": lzma.FILTER_LZMA1, "lc": 3, "lp": 0, "pb": 2, "dict_size": 1 << 17, "preset": 6}
]
_DECODERS: Final[list[dict[str, Any]]] = [{key: value for key, value in _FILTERS[0].items() if key != "preset"}]
VERSIONS: Final = 3
_PAYMENT: Final = "1"
_HEAD: Final = (
    "options", "amount", "currency", "due_date", "variable_symbol", "constant_symbol", "specific_symbol",
    "originators_reference", "note",
)  # fmt: skip
_TAIL: Final = ("merchant_name", "street", "merchant_city")


def unpack(text: str) -> tuple[dict[str, str], str] | None:
    """The fields, and the rule that the packing breaks (empty if none); None if the text has no such packing."""
    data = _bytes(text)
    if data is None or len(data) < 6 or data[0] >> 4 or data[0] & 15 >= VERSIONS or data[1]:
        return None
    size = int.from_bytes(data[2:4], "little")
    if not 4 < size <= UNPACKED_MAX:
        return None
    try:
        unpacked = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=_DECODERS).decompress(data[4:], max_length=size)
        plain = unpacked[4:].decode("utf-8")
    except (lzma.LZMAError, EOFError, UnicodeDecodeError):
        return {}, "damaged"
    if len(unpacked) != size or zlib.crc32(unpacked[4:]) != int.from_bytes(unpacked[:4], "little"):
        return {}, "crc_mismatch"
    return _fields(plain.split("\t"))


def _fields(parts: list[str]) -> tuple[dict[str, str], str]:
    if len(parts) < 14 or not (parts[1].isascii() and parts[1].isdigit()):
        return {}, "truncated"
    if parts[1] != _PAYMENT:
        return {}, "too_many"  # Several payments in one code: which of them is meant only a person can say.
    values = {"invoice": parts[0]} | dict(zip(_HEAD, parts[2:11], strict=True))
    count = parts[11]
    # Of several accounts of the payee the first is the one to use.
    if not (count.isascii() and count.isdigit() and 1 <= int(count) <= 5) or len(parts) < 12 + 2 * int(count) + 2:
        return {}, "truncated"
    end = 12 + 2 * int(count)
    values |= {"iban": parts[12], "bic": parts[13]}
    values |= {f"tag.account_{n}": parts[n] for n in range(14, end)}
    if parts[end : end + 2] != ["0", "0"]:
        return values, "standing"  # A standing order or a direct debit: no payment now.
    tail = parts[end + 2 :]
    values |= dict(zip(_TAIL, tail, strict=False))
    return {name: value for name, value in values.items() if value}, ""


def pack(fields: Mapping[str, str]) -> str:
    """One payment order as its text."""
    head = [fields.get("invoice", ""), _PAYMENT, *(fields.get(name, "") for name in _HEAD)]
    body = [*head, "1", fields.get("iban", ""), fields.get("bic", ""), "0", "0", *(fields.get(n, "") for n in _TAIL)]
    plain = "\t".join(part.replace("\t", " ") for part in body).encode()
    data = zlib.crc32(plain).to_bytes(4, "little") + plain
    packed = lzma.compress(data, lzma.FORMAT_RAW, filters=_FILTERS)
    whole = b"\x00\x00" + len(data).to_bytes(2, "little") + packed
    bits = int.from_bytes(whole) << (-len(whole) * 8) % 5
    length = (len(whole) * 8 + 4) // 5
    return "".join(ALPHABET[bits >> 5 * place & 31] for place in reversed(range(length)))


def _bytes(text: str) -> bytes | None:
    if not _PACKED(text):
        return None
    length = len(text) * 5 // 8
    return (int(text, 32) >> len(text) * 5 - length * 8).to_bytes(length)
