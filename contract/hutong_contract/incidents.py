"""Defects: an unexpected exception becomes one typed error for the caller and one entry of the log.

The caller gets INTERNAL with the incident's number and nothing of the exception, whose text may contain a path, a
statement or a secret. The log has the same number and the whole exception, so that a report of one leads to the other.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from typing import Final

from hutong_contract.errors import HutongError, Reason

NUMBER_BYTES: Final = 6
LOGGED_PER_S_MAX: Final = 20
"""Most incidents logged in full per second; further ones are only counted."""


class _Pace:
    """Counts the incidents logged in the current second. For any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._second = 0
        self._written = 0
        self._left_out = 0

    def take(self) -> tuple[bool, int]:
        """Whether one more may be written, and how many were left out before it."""
        with self._lock:
            second = int(time.monotonic())
            if second != self._second:
                self._second, self._written = second, 0
            if self._written >= LOGGED_PER_S_MAX:
                self._left_out += 1
                return False, 0
            self._written += 1
            left_out, self._left_out = self._left_out, 0
            return True, left_out


_pace = _Pace()


def incident(log: logging.Logger, where: str, error: BaseException) -> HutongError:
    """Logs a defect and returns the error for the caller: INTERNAL, with the number of the log's entry in the field
    `incident`. `where` names the call, such as its method's path; it contains nothing that a caller wrote."""
    number = secrets.token_hex(NUMBER_BYTES)
    written, left_out = _pace.take()
    if left_out:
        log.error("%d incidents were not written, there were too many at once", left_out)
    if written:
        log.error("incident %s in %s", number, where, exc_info=error)
    return HutongError(Reason.ERROR_REASON_INTERNAL, incident=number)


def too_large(most_bytes: int) -> HutongError:
    """The error for a message above a service's limit, which it names."""
    return HutongError(Reason.ERROR_REASON_MESSAGE_TOO_LARGE, most_bytes=str(most_bytes))
