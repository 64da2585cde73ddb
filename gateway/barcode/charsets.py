"""The text of a symbol's bytes if the symbol names no character set."""

from __future__ import annotations

import re
from typing import Final

_HIGH: Final = re.compile(rb"[\x80-\xff]+")
_GB_2312: Final = re.compile(rb"(?:[\xa1-\xf7][\xa1-\xfe])+")
_PLAINLY_GB: Final = 4
"""Bytes: two characters beside each other. Latin letters with accents do not stand in fours."""


def text_of(data: bytes, told: str) -> str:
    """The text of a symbol's bytes.

    Args:
        data: the bytes that the symbol holds.
        told: the reader's text, which is right wherever the symbol names its character set or is UTF-8 or Shift-JIS.

    Returns:
        `told`; or, where the reader took the bytes for Latin-1 for want of anything better and they can only be
        Chinese, the text by GB 18030, which codes printed in China use without saying so.
    """
    if told.isascii() or not _is_latin(data, told):
        return told
    runs = _HIGH.findall(data)
    if max(map(len, runs), default=0) < _PLAINLY_GB or not all(map(_GB_2312.fullmatch, runs)):
        return told
    try:
        return data.decode("gb18030")
    except UnicodeDecodeError:
        return told


def _is_latin(data: bytes, told: str) -> bool:
    try:
        return told.encode("latin-1") == data
    except UnicodeEncodeError:
        return False
