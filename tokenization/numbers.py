"""Numbers that name things: tokens and their check digit, payment account references (PAR), requestor ids (TRID).

EMV Payment Tokenisation: a token has 13 to 19 digits, passes the Luhn check and comes from a token BIN, a range without
live account numbers. A PAR has 29 upper-case letters and digits: 4 for the controller, 25 for the account.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

_DOUBLED: Final = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PAR_CONTROLLER: Final = "HT01"
PAR_LENGTH: Final = 29
TRID_DIGITS: Final = 11
TOKEN_DIGITS_MIN: Final = 13
TOKEN_DIGITS_MAX: Final = 19
PAN_DIGITS_MIN: Final = 13
PAN_DIGITS_MAX: Final = 19
"""Lengths of card numbers that a token can stand for (EMV Payment Tokenisation); longer and shorter account numbers may
have check digits of their own, which are not known here."""
ACCOUNT_DIGITS_MIN: Final = 8
ACCOUNT_DIGITS_MAX: Final = 30

ACCOUNT_RULE: Final = (
    f"{ACCOUNT_DIGITS_MIN} to {ACCOUNT_DIGITS_MAX} digits, outside the ranges of tokens; with {PAN_DIGITS_MIN} to "
    f"{PAN_DIGITS_MAX} the last is the check digit of the others (Luhn)"
)
"""The rule of `is_account_number` and `is_mistyped` in words, for refusals."""

RandomBelow = Callable[[int], int]
"""Maps n to an unpredictable number in [0, n), as secrets.randbelow does."""


@dataclass(frozen=True, slots=True)
class TokenRange:
    """A token BIN and the length of tokens in it."""

    bin: str
    digits: int

    def __post_init__(self) -> None:
        if not TOKEN_DIGITS_MIN <= self.digits <= TOKEN_DIGITS_MAX:
            raise ValueError("a token has 13 to 19 digits")
        if not self.bin.isdigit() or self.bin.startswith("0") or len(self.bin) > self.digits - 5:
            raise ValueError("a token BIN has digits, no leading zero, and leaves room for a number")


# ISO/IEC 7812: major industry 9 is for national use, 156 is China. 19 digits leave 10^12 numbers in each range, so
# that a million tokens are met by a random guess once in a million. Three ranges make numbers unique across tables.
ACCOUNT_RANGE: Final = TokenRange("915610", 19)
DEVICE_RANGE: Final = TokenRange("915620", 19)
BARCODE_RANGE: Final = TokenRange("915630", 19)
TOKEN_BINS: Final = (ACCOUNT_RANGE.bin, DEVICE_RANGE.bin, BARCODE_RANGE.bin)


def check_digit(digits: str) -> str:
    """The Luhn digit (ISO/IEC 7812-1 annex B) that follows `digits`."""
    total = 0
    for position, character in enumerate(reversed(digits)):
        digit = ord(character) - 48
        total += digit if position % 2 else _DOUBLED[digit]
    return str(-total % 10)


def passes_luhn(digits: str) -> bool:
    """Whether the last digit is the check digit of the others."""
    return len(digits) > 1 and digits.isascii() and digits.isdigit() and check_digit(digits[:-1]) == digits[-1]


def is_token(digits: str) -> bool:
    """Whether a text has the form of a token: 13 to 19 digits, Luhn-valid."""
    return TOKEN_DIGITS_MIN <= len(digits) <= TOKEN_DIGITS_MAX and passes_luhn(digits)


def is_requestor_id(text: str) -> bool:
    """Whether a text has the form of a TRID: 11 digits."""
    return len(text) == TRID_DIGITS and text.isascii() and text.isdigit()


def is_account_number(text: str) -> bool:
    """Whether a text can be an account number: 8 to 30 digits, outside the token BINs."""
    fits = ACCOUNT_DIGITS_MIN <= len(text) <= ACCOUNT_DIGITS_MAX and text.isascii() and text.isdigit()
    return fits and not text.startswith(TOKEN_BINS)


def is_mistyped(number: str) -> bool:
    """Whether an account number has the length of a card number (PAN), but a wrong check digit."""
    return PAN_DIGITS_MIN <= len(number) <= PAN_DIGITS_MAX and not passes_luhn(number)


def new_token(source: TokenRange, random_below: RandomBelow) -> str:
    """A random token of a range. It may exist already; the vault finds out when it inserts it."""
    width = source.digits - len(source.bin) - 1
    body = f"{source.bin}{random_below(10**width):0{width}d}"
    return body + check_digit(body)


def par_of(mac: bytes) -> str:
    """A PAR from a keyed MAC (at least 17 bytes) of the account: the same account has the same PAR."""
    value = int.from_bytes(mac, "big")
    characters = []
    for _ in range(PAR_LENGTH - len(PAR_CONTROLLER)):
        value, digit = divmod(value, 36)
        characters.append(_ALPHABET[digit])
    return PAR_CONTROLLER + "".join(characters)
