"""Passcodes: argon2id, few attempts, then a lock that lengthens."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from hutong_contract.secret import Secret

DIGITS_MIN: Final = 6
DIGITS_MAX: Final = 12
ATTEMPTS_MAX: Final = 5
"""Wrong passcodes in a row before the lock: one in 200,000 guesses at six digits."""
LOCK_US: Final = 15 * 60 * 1_000_000
"""First lock; each further one doubles it."""
LOCK_DOUBLINGS_MAX: Final = 7
"""Longest lock: 32 hours."""
HASHES_AT_ONCE_MAX: Final = 2
"""Each holds 64 MiB for a tenth of a second."""


@dataclass(frozen=True, slots=True)
class Cost:
    """argon2id's cost. The default follows RFC 9106's second recommendation."""

    time: int = 3
    memory_kib: int = 64 * 1024


class Passcodes:
    """Hashes and checks; safe from several threads."""

    def __init__(self, cost: Cost | None = None) -> None:
        cost = cost or Cost()
        self._hasher = PasswordHasher(time_cost=cost.time, memory_cost=cost.memory_kib, parallelism=1)
        self._turn = threading.BoundedSemaphore(HASHES_AT_ONCE_MAX)

    def hash(self, passcode: Secret[str]) -> str:
        """A salted hash to keep."""
        with self._turn:
            return self._hasher.hash(passcode.reveal())

    def verify(self, kept: str, passcode: Secret[str]) -> bool:
        """Whether it is the passcode."""
        with self._turn:
            try:
                return self._hasher.verify(kept, passcode.reveal())
            except (VerifyMismatchError, InvalidHashError):
                return False


def acceptable(passcode: str) -> bool:
    """Six to twelve digits, not all the same."""
    digits = passcode.isascii() and passcode.isdigit()
    return digits and DIGITS_MIN <= len(passcode) <= DIGITS_MAX and len(set(passcode)) > 1


def lock_until(failures: int, now_us: int) -> int:
    """When a subject with so many failures in a row may try again; 0 for at once."""
    if failures == 0 or failures % ATTEMPTS_MAX:
        return 0
    return now_us + (LOCK_US << min(failures // ATTEMPTS_MAX - 1, LOCK_DOUBLINGS_MAX))
