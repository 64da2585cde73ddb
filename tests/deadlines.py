"""The waits of every test, in one place: generous, so that a busy machine is slow and not wrong.

A test waits for an event and ends as soon as it comes; these bounds only decide when it gives up.
`HUTONG_TEST_PATIENCE` (default 1) multiplies them, for machines that are slower still.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

PATIENCE = float(os.environ.get("HUTONG_TEST_PATIENCE", "1"))
"""Multiplies every bound below."""

CALL_S = 60.0 * PATIENCE
"""For one call, one thread's work or one event."""

START_S = 120.0 * PATIENCE
"""For a process to start, with its imports, its tables and its kernels, or to end by itself."""

LOOK_AGAIN_S = 0.01
"""Between two looks at a condition that tells nobody when it changes."""


def wait_until(condition: Callable[[], object], seconds: float = CALL_S) -> None:
    """Looks until the condition holds.

    Raises:
        AssertionError: it did not hold within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"it did not come about within {seconds:.0f} s"
        time.sleep(LOOK_AGAIN_S)
