"""One-time payment codes, as a wallet shows them and as everybody else recognises them.

Two forms, both 19 digits, told apart by their prefix:

    online   66 rrrrrrrrrrrrrrrrr      17 random digits, reserved by the token service for a minute
    offline  67 aaaaaaaaa mmmmmmmm     9 digits of a daily alias, 8 digits of a MAC over the time step

An offline code needs no network on the phone: the wallet was provisioned with the day's alias and day key. The
MAC is HMAC(day key, step) mod 10^8, the step is 30 seconds long, and the verifier accepts the step before and the
step after its own. One guess at a known alias is therefore right with a chance of 3 in 10^8.
"""

from __future__ import annotations

import hmac
import struct
from collections.abc import Callable
from typing import Final

ONLINE_PREFIX: Final = "66"
OFFLINE_PREFIX: Final = "67"
CODE_DIGITS: Final = 19
ONLINE_RANDOM_DIGITS: Final = 17
ONLINE_LIFETIME_US: Final = 60_000_000
"""How long an online code may be used after it was reserved."""
ALIAS_DIGITS: Final = 9
MAC_DIGITS: Final = 8
STEP_US: Final = 30_000_000
"""Length of one time step of an offline code."""
SKEW_STEPS: Final = 1
"""Steps before and after the verifier's own that are accepted."""
DAY_US: Final = 86_400_000_000
_HEAD: Final = struct.Struct(">Q")
HASHES: Final = {"international": "sha256", "sm": "sm3"}
"""The hash under HMAC, for each crypto suite."""


def day_of(time_us: int) -> int:
    """The UTC day that an alias is issued for: days since 1970-01-01."""
    return time_us // DAY_US


def step_of(time_us: int) -> int:
    """The 30-second step that contains a moment."""
    return time_us // STEP_US


def truncate(mac: bytes, digits: int = MAC_DIGITS) -> int:
    """A MAC's first eight bytes, modulo a power of ten. The bias is below 10^8 / 2^64 and does not matter."""
    value: int = _HEAD.unpack_from(mac)[0]
    return int(value % 10**digits)


def step_message(step: int) -> bytes:
    """What the MAC covers: the step's number as eight bytes, and what it is used for."""
    return b"hutong offline code" + struct.pack(">Q", step)


def offline_code(alias: str, day_key: bytes, time_us: int, suite: str = "international") -> str:
    """The code that a phone shows at `time_us` (UTC, microseconds).

    `alias` has nine digits; `day_key` is the key that was provisioned with it. Raises ValueError for another alias
    or an unknown suite.
    """
    if len(alias) != ALIAS_DIGITS or not (alias.isascii() and alias.isdigit()):
        raise ValueError("an alias has nine digits")
    if suite not in HASHES:
        raise ValueError(f"no crypto suite {suite!r}; one of {', '.join(HASHES)}")
    mac = hmac.digest(day_key, step_message(step_of(time_us)), HASHES[suite])
    return f"{OFFLINE_PREFIX}{alias}{truncate(mac):0{MAC_DIGITS}d}"


def online_code(random_below: Callable[[int], int]) -> str:
    """A fresh online code; `random_below(n)` gives an unpredictable number in [0, n), as secrets.randbelow does."""
    return f"{ONLINE_PREFIX}{random_below(10**ONLINE_RANDOM_DIGITS):0{ONLINE_RANDOM_DIGITS}d}"


def is_payment_code(digits: str) -> bool:
    """Whether a text has the form of one of the two codes. It need not have been issued."""
    return (
        len(digits) == CODE_DIGITS
        and digits.isascii()
        and digits.isdigit()
        and digits.startswith((ONLINE_PREFIX, OFFLINE_PREFIX))
    )
