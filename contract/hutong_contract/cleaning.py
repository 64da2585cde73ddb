"""Makes texts from outside safe for where they are shown: paper, a terminal, a log, a spreadsheet. Pure.

References, names and codes come from callers, and a merchant's code can contain any character. The stored value stays
as it came; these functions clean what is shown of it. Each character that could control the device is replaced by MARK:

- controls (C0, DEL, C1): line ends, tabs, and the ESC that begins the sequences of terminals and printers;
- marks that turn the direction of writing, and invisible ones, which make a text look like another;
- separators of lines and paragraphs, halves of surrogate pairs, and codes that are no characters.

JOINERS (U+200C and U+200D) stay: Persian, Indic scripts and emoji are written with them.
"""

from __future__ import annotations

import json
import logging
import re
from typing import Any, Final, TextIO

MARK: Final = "\ufffd"
"""Replaces a character that is not shown."""
JOINERS: Final = "\u200c\u200d"
"""Invisible characters that stay; they take no column."""
TEXT_MAX: Final = 256
"""Most characters of one text that are shown; of a longer text ELLIPSIS is the last one."""
LINE_MAX: Final = 4096
"""Most characters of one line of a log."""
ELLIPSIS: Final = "…"
_NONCHARACTERS: Final = "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
UNSAFE: Final = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"
    "\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e007f"
    "\ud800-\udfff\ufdd0-\ufdef" + _NONCHARACTERS + "]"
)
"""Characters that are replaced."""
_FORMULA: Final = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
"""Beginnings of cells that spreadsheets calculate; the last four are the wide forms."""
_TEXT_SIGN: Final = "'"
"""Tells a spreadsheet that a cell is text."""


def printable(text: str, most: int = TEXT_MAX) -> str:
    """The text as one line of at most `most` characters, without any that could control the device."""
    if len(text) > most:
        text = text[: most - 1] + ELLIPSIS
    return text if text.isascii() and text.isprintable() else UNSAFE.sub(MARK, text)


def printable_lines(text: str, most: int = LINE_MAX) -> str:
    """The same for a text of our own that has several lines: its line ends stay."""
    return "\n".join(printable(line, most) for line in text.split("\n"))


def cell(text: str, most: int = TEXT_MAX) -> str:
    """A printable text for a CSV file: never a formula. One that would be begins with an apostrophe."""
    shown = printable(text, most)
    return _TEXT_SIGN + shown if shown.lstrip().startswith(_FORMULA) else shown


def json_text(value: Any, indent: int | None = None) -> str:
    """JSON in which other scripts stay legible, and what must not reach a terminal is escaped: reading it gives the
    value back exactly."""
    return UNSAFE.sub(_escaped, json.dumps(value, ensure_ascii=False, indent=indent))


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if character == "\n":
        return character  # an indent: inside strings JSON has escaped it
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def log_to(stream: TextIO, pattern: str) -> None:
    """Writes this process's log to a stream, from INFO on, in entries of `pattern` that nobody can forge."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LogFormatter(pattern))
    logging.basicConfig(level=logging.INFO, handlers=[handler])


class LogFormatter(logging.Formatter):
    """An entry of a log begins in the first column and nothing else does: further lines, such as a traceback's, are
    indented, and what callers wrote into them is printable."""

    def format(self, record: logging.LogRecord) -> str:
        first, *rest = super().format(record).split("\n")
        return "\n".join([printable(first, LINE_MAX), *(f"    {printable(line, LINE_MAX)}" for line in rest)])
