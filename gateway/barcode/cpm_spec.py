"""EMV consumer-presented codes as tables: which data objects stand where, in what format.

EMVCo QR Code Specification for Payment Systems, Consumer-Presented Mode v1.1, chapter 4. Formats: `b` binary, `cn`
digits in nibbles padded with F on the right, `n` digits in nibbles, `an` and `ans` text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PREFIX: Final = "hQVDUFY"
"""How base64 of `85 05 "CPV"` begins: every consumer code starts so."""
FORMAT_TAG: Final = "85"
FORMAT_VALUE: Final = b"CPV01"
APPLICATION: Final = "61"
COMMON: Final = "62"
APPLICATION_DATA: Final = "63"
COMMON_DATA: Final = "64"
APPLICATIONS_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class Element:
    """One row: a data object's name, format and length in bytes."""

    name: str
    format: str
    shortest: int
    longest: int
    secret: bool = False
    """Whether the value can name or move an account, and so is never shown."""


ELEMENTS: Final[dict[str, Element]] = {
    "4F": Element("application definition file name", "b", 5, 16),
    "50": Element("application label", "ans", 1, 16),
    "57": Element("track 2 equivalent data", "b", 1, 19, secret=True),
    "5A": Element("application PAN", "cn", 1, 10, secret=True),
    "5F20": Element("cardholder name", "ans", 2, 26, secret=True),
    "5F2D": Element("language preference", "an", 2, 8),
    "5F50": Element("issuer URL", "ans", 1, 255),
    "9F08": Element("application version number", "b", 2, 2),
    "9F19": Element("token requestor id", "n", 6, 6),
    "9F24": Element("payment account reference", "an", 29, 29, secret=True),
    "9F25": Element("last four digits of PAN", "n", 2, 2),
}
"""Objects of 61 and 62 that the standard lists; others are kept as they are."""
ONLY_IN_APPLICATION: Final = frozenset({"4F", APPLICATION_DATA})
ONLY_IN_COMMON: Final = frozenset({COMMON_DATA})
