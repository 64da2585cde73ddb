"""The lines of the values in a TOML file, which the standard library's parser does not report.

Reads only text that `tomllib` has accepted, and only as far as needed for lines: headers, keys, and where strings,
comments and brackets begin and end.
"""

from __future__ import annotations

import re
from typing import Final

Path = tuple[str | int, ...]
"""Keys and, in arrays of tables, positions: ("rule", 2, "points")."""

_HEADER: Final = re.compile(r"\s*(\[\[?)\s*([^\]]+?)\s*\]\]?\s*(?:#.*)?$")
_KEY: Final = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"[^"]*"|'[^']*'))*)\s*=""")
_PART: Final = re.compile(r"""[\w-]+|"[^"]*"|'[^']*'""")
_TOKEN: Final = re.compile(r'''"""|\'\'\'|"(?:\\.|[^"\\])*"|'[^']*'|#.*|[\[\]{}]''')


def lines_of(text: str) -> dict[Path, int]:
    """Line, counted from 1, of each table and key."""
    lines: dict[Path, int] = {}
    counts: dict[Path, int] = {}
    table: Path = ()
    depth, closing = 0, ""
    for number, line in enumerate(text.splitlines(), 1):
        if depth == 0 and not closing:
            if header := _HEADER.match(line):
                table = _enter(header[1] == "[[", _parts(header[2]), counts)
                lines.setdefault(table, number)
                continue
            if key := _KEY.match(line):
                lines.setdefault((*table, *_parts(key[1])), number)
        depth, closing = _follow(line, depth, closing)
    return lines


def line_at(lines: dict[Path, int], path: Path) -> int:
    """The line of a value, or of the nearest table around it; 1 where there is none."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return 1


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part.strip("\"'") for part in _PART.findall(name))


def _enter(array: bool, parts: tuple[str, ...], counts: dict[Path, int]) -> Path:
    """The path of the table that a header opens; a name that is an array's means its last table."""
    path: Path = ()
    for part in parts:
        path = (*path, part)
        if array and len(path) - sum(isinstance(one, int) for one in path) == len(parts):
            counts[path] = counts.get(path, -1) + 1
        if path in counts:
            path = (*path, counts[path])
    return path


def _follow(line: str, depth: int, closing: str) -> tuple[int, str]:
    """How many brackets are open after this line, and which long string."""
    at = 0
    while True:
        if closing:
            end = line.find(closing, at)
            if end < 0:
                return depth, closing
            at, closing = end + 3, ""
        token = _TOKEN.search(line, at)
        if token is None:
            return depth, closing
        at = token.end()
        if token[0] in ('"""', "'''"):
            closing = token[0]
        elif token[0] in "[{":
            depth += 1
        elif token[0] in "]}":
            depth -= 1
