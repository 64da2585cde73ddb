"""What both fronts let connections do."""

from __future__ import annotations

from typing import Final

KEEPALIVE_MS: Final = 20_000
"""A connection that has said nothing for so long is pinged."""
KEEPALIVE_TIMEOUT_MS: Final = 10_000
"""And ended where it does not answer within this: a participant whose line was cut gets in again after both."""
HANDSHAKE_MS: Final = 10_000
"""How long a connection may take for TLS and its first frames."""
IDLE_MS: Final = 600_000
"""A connection without a call is ended after this; clients open another one with their next call."""
CONNECTIONS_MAX: Final = 20_000
"""Connections at once, where the process may have as many files open; see `connections_within`."""
_OF_FILES: Final = 2


def connections_within(open_files: int) -> int:
    """How many connections leave a process files for its journal, its books and its children."""
    return min(CONNECTIONS_MAX, open_files // _OF_FILES)
