"""Reads the tables of a rules file, value by value. Mistakes are noted with their lines, and reading goes on."""

from __future__ import annotations

import difflib
import re
from typing import Any, Final

from gateway.risk.toml_lines import Path, line_at
from hutong_contract.currencies import EXPONENT_OF
from hutong_contract.limits import AMOUNT_MINOR_MAX

PROBLEMS_MAX: Final = 20
"""Most mistakes that are reported at once."""
REFERENCE_HEX: Final = 32
"""Hexadecimal digits of an account's or key's reference."""
LIST_MAX: Final = 100_000
"""Most entries of a blocklist."""
DAY_MAX_MINOR: Final = AMOUNT_MINOR_MAX * 1_000
_PRINTED: Final = "the reference that `hutong risk explain --payment ID` prints"
_HEX: Final = re.compile(r"[0-9a-f]+")
_DIGITS: Final = re.compile(r"\d{12,19}")


class Problems:
    """The mistakes in a file."""

    def __init__(self, name: str, lines: dict[Path, int]) -> None:
        self.found: list[str] = []
        self._name = name
        self._lines = lines

    def note(self, path: Path, sentence: str) -> None:
        """Notes a mistake at a place of the file; the first for each place counts."""
        if len(self.found) < PROBLEMS_MAX:
            self.found.append(f"{self._name}, line {line_at(self._lines, path)}: {sentence}")


class Section:
    """One table of the file. Every reader returns None (or nothing) for what is missing or wrong."""

    def __init__(self, tree: dict[str, Any], path: Path, problems: Problems) -> None:
        self._tree = tree
        self._path = path
        self._problems = problems

    def problem(self, key: str, what: str) -> None:
        """Notes a mistake; the empty key means the table itself."""
        path = (*self._path, key) if key else self._path
        self._problems.note(path, f"{_shown(path)} {what}")

    def names(self) -> list[str]:
        """The keys that are there."""
        return list(self._tree)

    def has(self, key: str) -> bool:
        """Whether the key is there."""
        return key in self._tree

    def allow(self, *keys: str) -> None:
        """Notes every key that is not among these."""
        for key in self._tree:
            if key not in keys:
                near = difflib.get_close_matches(key, keys, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; known here: {', '.join(keys)}"
                self.problem(key, f"is not known{hint}")

    def table(self, key: str) -> Section:
        """A table below; empty where there is none."""
        value = self._tree.get(key, {})
        if not isinstance(value, dict):
            self.problem(key, f"must be a table: [{_shown((*self._path, key))}]")
            value = {}
        return Section(value, (*self._path, key), self._problems)

    def tables(self, key: str, most: int) -> list[Section]:
        """The tables of an array: [[key]]."""
        value = self._tree.get(key, [])
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            self.problem(key, f"must be tables: [[{key}]]")
            return []
        if len(value) > most:
            self.problem(key, f"is there {len(value)} times; at most {most}")
        return [Section(one, (*self._path, key, index), self._problems) for index, one in enumerate(value[:most])]

    def integer(self, key: str, least: int, most: int) -> int | None:
        """A whole number within bounds."""
        if key not in self._tree:
            return None
        value = self._tree[key]
        if type(value) is not int or not least <= value <= most:
            self.problem(key, f"must be a whole number from {least} to {most}, not {_excerpt(value)}")
            return None
        return value

    def amount(self, key: str, *, required: bool = False) -> int | None:
        """An amount in minor units."""
        if required and key not in self._tree:
            self.problem("", f"needs {key}: minor units, as in {key} = 500000 for 5,000.00")
        return self.integer(key, 1, DAY_MAX_MINOR)

    def flag(self, key: str) -> bool | None:
        """True or false."""
        value = self._tree.get(key)
        if value is not None and type(value) is not bool:
            self.problem(key, f"must be true or false, not {_excerpt(value)}")
            return None
        return value

    def text(self, key: str, *, most: int = 64) -> str | None:
        """A text that is not empty."""
        value = self._tree.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not 0 < len(value) <= most or not value.isprintable():
            self.problem(key, f"must be a text of 1 to {most} printable characters, not {_excerpt(value)}")
            return None
        return value

    def choice(self, key: str, allowed: tuple[str, ...]) -> str | None:
        """One of these words."""
        value = self._tree.get(key)
        if value is not None and value not in allowed:
            self.problem(key, f"must be one of {', '.join(allowed)}, not {_excerpt(value)}")
            return None
        return value

    def texts(self, key: str, allowed: tuple[str, ...] = ()) -> tuple[str, ...] | None:
        """A list of texts that is not empty; of these words where they are given."""
        value = self._tree.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or not value or not all(isinstance(one, str) and one for one in value):
            self.problem(key, 'must be a list of texts: ["one", "two"]')
            return None
        if len(value) > LIST_MAX:
            self.problem(key, f"has {len(value)} entries; at most {LIST_MAX}")
            return None
        wrong = [one for one in value if allowed and one not in allowed]
        if wrong:
            self.problem(key, f"has {_excerpt(wrong[0])}; known: {', '.join(allowed)}")
            return None
        return tuple(value)

    def reference(self, key: str, *, required: bool = False) -> bytes | None:
        """An account's reference."""
        if required and key not in self._tree:
            self.problem("", f"needs {key}: {_PRINTED}")
        if key not in self._tree:
            return None
        found = self._references(key, [self._tree[key]], REFERENCE_HEX)
        return bytes.fromhex(found[0]) if found else None

    def references(self, key: str, *, digits_min: int = REFERENCE_HEX) -> tuple[str, ...] | None:
        """References in lower-case hexadecimal, or prefixes of at least so many digits."""
        value = self.texts(key)
        return None if value is None else self._references(key, list(value), digits_min)

    def _references(self, key: str, values: list[Any], digits_min: int) -> tuple[str, ...] | None:
        for value in values:
            if isinstance(value, str) and _DIGITS.fullmatch(value):
                # The number itself is not repeated: it may be a card's.
                self.problem(key, f"has what looks like an account number; remove it, and put {_PRINTED} there")
                return None
            right = isinstance(value, str) and _HEX.fullmatch(value) and digits_min <= len(value) <= REFERENCE_HEX
            if not right:
                size = f"{digits_min} to {REFERENCE_HEX}" if digits_min < REFERENCE_HEX else str(REFERENCE_HEX)
                wanted = f"must be {size} lower-case hexadecimal digits"
                self.problem(key, f"{wanted}, {_PRINTED}, not {_excerpt(value)}")
                return None
        return tuple(values)

    def currency(self, key: str) -> str:
        """An ISO 4217 code; CNY where none is named."""
        value = self.text(key)
        if value is not None and value not in EXPONENT_OF:
            self.problem(key, f"must be an ISO 4217 code such as CNY, not {_excerpt(value)}")
        return value or "CNY"

    def is_currency(self, key: str) -> bool:
        """Whether a key of this table is an ISO 4217 code; notes it where not."""
        if key not in EXPONENT_OF:
            self.problem(key, "is not an ISO 4217 code such as CNY")
            return False
        return True


def _shown(path: Path) -> str:
    """A place of the file in words: `rule 3 points`, counted from one."""
    return " ".join(str(part + 1) if isinstance(part, int) else part for part in path) or "the file"


def _excerpt(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"
