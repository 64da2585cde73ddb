"""EMV merchant-presented codes as tables: what EMVCo's standard says of each object.

EMVCo QR Code Specification for Payment Systems, Merchant-Presented Mode v1.1, tables 3.1 to 3.8. `N` is digits, `ans`
printable ASCII, `S` any text. The rows read like the standard's; `mpm` is the one small engine that applies them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

FORMATS: Final = {"N": "[0-9]", "ans": "[ -~]", "S": r"[\s\S]"}
"""Format letter of the standard to the characters that it allows."""
CHARACTERS_SHOULD: Final = 512
"""The standard's recommended limit of a whole payload."""


@dataclass(frozen=True, slots=True)
class Field:
    """One row: an object's name, format, length and presence."""

    name: str
    format: str
    shortest: int
    longest: int
    mandatory: bool = False
    values: str = ""
    """A regular expression for the values allowed; empty where any value of the format is."""

    def matcher(self) -> Callable[[str], object] | None:
        """The whole row as one regular expression, for the common path; None where any text that is not empty fits."""
        if self.format == "S" and (self.shortest, self.longest) == (1, 99):
            return None
        body = self.values or f"{FORMATS[self.format]}{{{self.shortest},{self.longest}}}"
        return re.compile(body).fullmatch


_AMOUNT: Final = r"(?=.{1,13}\Z)(?=[0-9.]*[1-9])[0-9]+\.?[0-9]*"

ROOT: Final[dict[str, Field]] = {
    "00": Field("payload format indicator", "N", 2, 2, True, "01"),
    "01": Field("point of initiation method", "N", 2, 2, False, "1[12]"),
    **{f"{n:02d}": Field("merchant account", "ans", 1, 99) for n in range(2, 26)},
    **{f"{n:02d}": Field("merchant account template", "S", 1, 99) for n in range(26, 52)},
    "52": Field("merchant category code", "N", 4, 4, True),
    "53": Field("transaction currency", "N", 3, 3, True),
    "54": Field("transaction amount", "ans", 1, 13, False, _AMOUNT),
    "55": Field("tip or convenience indicator", "N", 2, 2, False, "0[123]"),
    "56": Field("convenience fee, fixed", "ans", 1, 13, False, _AMOUNT),
    "57": Field("convenience fee, percentage", "ans", 1, 5, False, r"(?=[0-9.]*[1-9])[0-9]{1,2}(\.[0-9]{0,2})?"),
    "58": Field("country code", "ans", 2, 2, True, "[A-Z]{2}"),
    "59": Field("merchant name", "ans", 1, 25, True),
    "60": Field("merchant city", "ans", 1, 15, True),
    "61": Field("postal code", "ans", 1, 10),
    "62": Field("additional data template", "S", 1, 99),
    "63": Field("CRC", "ans", 4, 4, True, "[0-9A-F]{4}"),
    "64": Field("language template", "S", 1, 99),
    **{f"{n:02d}": Field("reserved by EMVCo", "S", 1, 99) for n in range(65, 80)},
    **{f"{n:02d}": Field("unreserved template", "S", 1, 99) for n in range(80, 100)},
}
"""Table 3.2: objects under the root."""

_GUID: Final = Field("globally unique identifier", "ans", 1, 32, True)
_SPECIFIC: Final = {f"{n:02d}": Field("network specific", "S", 1, 99) for n in range(1, 100)}
ACCOUNT: Final[dict[str, Field]] = {"00": _GUID, **_SPECIFIC}
"""Tables 3.3 and 3.8: account templates 26 to 51 and unreserved templates 80 to 99."""

_LABEL: Final = (
    "bill number",
    "mobile number",
    "store label",
    "loyalty number",
    "reference label",
    "customer label",
    "terminal label",
    "purpose of transaction",
)
ADDITIONAL: Final[dict[str, Field]] = {
    **{f"{n:02d}": Field(name, "ans", 1, 25) for n, name in enumerate(_LABEL, 1)},
    "09": Field("additional consumer data request", "ans", 1, 3, False, r"(?!.*(.).*\1)[AME]{1,3}"),
    **{f"{n:02d}": Field("reserved by EMVCo", "S", 1, 99) for n in range(10, 50)},
    **{f"{n:02d}": Field("payment system template", "S", 1, 99) for n in range(50, 100)},
}
"""Table 3.7: additional data (62). `***` asks the wallet to fill a field in."""

LANGUAGE: Final[dict[str, Field]] = {
    "00": Field("language preference", "ans", 2, 2, True, "[A-Za-z]{2}"),
    "01": Field("merchant name, alternate language", "S", 1, 25, True),
    "02": Field("merchant city, alternate language", "S", 1, 15),
    **{f"{n:02d}": Field("reserved by EMVCo", "S", 1, 99) for n in range(3, 100)},
}
"""Table 3.6: merchant information in another language (64)."""

TEMPLATES: Final[dict[str, dict[str, Field]]] = {
    **{f"{n:02d}": ACCOUNT for n in range(26, 52)},
    "62": ADDITIONAL,
    "64": LANGUAGE,
    **{f"{n:02d}": ACCOUNT for n in range(80, 100)},
}
"""Root id to the table of the template that stands there."""
NESTED: Final = frozenset(f"{n:02d}" for n in range(50, 100))
"""Ids inside 62 that are templates themselves, with an identifier in 00."""
RESERVED: Final = {
    "": frozenset(f"{n:02d}" for n in range(65, 80)),
    "62": frozenset(f"{n:02d}" for n in range(10, 50)),
    "64": frozenset(f"{n:02d}" for n in range(3, 100)),
}
"""Where (empty for the root) to ids that EMVCo keeps for itself."""
ACCOUNTS: Final = frozenset(f"{n:02d}" for n in range(2, 52))
"""At least one of these stands in every code."""

MANDATORY: Final = tuple(identifier for identifier, row in ROOT.items() if row.mandatory)
"""Root objects that every code has."""
MANDATORY_IN: Final = {
    root: tuple(identifier for identifier, row in table.items() if row.mandatory) for root, table in TEMPLATES.items()
}
"""Objects that every template of a root id has."""
ACCOUNTS_BY_USE: Final = tuple(sorted(ACCOUNTS, key=lambda identifier: (identifier < "26", identifier)))
"""Account ids, the most common first."""
NESTED_FIRST: Final = "50"
"""First of the ids inside 62 that are templates themselves."""

Matchers = dict[str, Callable[[str], object] | None]
"""A matcher for each of the hundred ids, None where any text fits, so that the common path asks no more questions."""


def _never(_: str) -> None:
    """The matcher of an id that may not stand where it stands, or that EMVCo keeps for itself."""


def _matchers(table: dict[str, Field], where: str) -> Matchers:
    allowed: Matchers = {identifier: row.matcher() for identifier, row in table.items()}
    kept = RESERVED.get(where, frozenset())
    every = (f"{n:02d}" for n in range(100))
    return {identifier: _never if identifier in kept else allowed.get(identifier, _never) for identifier in every}


ROOT_MATCHERS: Final = _matchers(ROOT, "")
TEMPLATE_MATCHERS: Final = {root: _matchers(table, root) for root, table in TEMPLATES.items()}
