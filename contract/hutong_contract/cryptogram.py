"""A device token's cryptogram: proof that the device agreed to this payment, once.

The device and the token service share a key for one token on one device. The cryptogram is an HMAC over the
amount, the currency, the terminal's unpredictable number and the device's own counter, cut to 16 bytes. The counter
never repeats; the token service lets each value be spent once.
"""

from __future__ import annotations

import hmac
import struct
from typing import Final

from hutong_contract.payment_code import HASHES

CRYPTOGRAM_BYTES: Final = 16
COUNTER_MAX: Final = 2**32 - 1
AMOUNT_MAX_MINOR: Final = 2**63 - 1


def message(token: str, amount_minor: int, currency: str, counter: int, unpredictable_number: int) -> bytes:
    """The bytes that a cryptogram covers. Raises ValueError if a number or the currency is out of its range."""
    if not (0 <= counter <= COUNTER_MAX and 0 <= unpredictable_number <= COUNTER_MAX):
        raise ValueError("counter and unpredictable number are unsigned 32-bit numbers")
    if not 0 <= amount_minor <= AMOUNT_MAX_MINOR:
        raise ValueError("an amount is a number of minor units from 0 to 2^63-1")
    if len(currency) != 3 or not currency.isascii():
        raise ValueError("a currency is an ISO 4217 alphabetic code")
    head = struct.pack(">QII", amount_minor, counter, unpredictable_number)
    return b"hutong cryptogram" + head + currency.encode() + token.encode()


def cryptogram(
    token: str,
    device_key: bytes,
    amount_minor: int,
    currency: str,
    counter: int,
    unpredictable_number: int,
    suite: str = "international",
) -> bytes:
    """The 16 bytes that a device sends with its token. Raises ValueError as `message` does."""
    covered = message(token, amount_minor, currency, counter, unpredictable_number)
    return hmac.digest(device_key, covered, HASHES[suite])[:CRYPTOGRAM_BYTES]
