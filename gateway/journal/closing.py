"""Closing settlement windows: the statements of a tick that closes one, in SQL for every journal.

A window is a range of `events.sequence`, and holds the payments and refunds whose SUCCEEDED lies in it. Windows follow
each other without a gap, so each success lies in exactly one window, or in the open one after the last. That is exact
because sequence numbers are assigned in the order of commits: whatever is committed later has a higher number than the
end of a window that is committed now. SQLite has one writer at a time; on PostgreSQL the tick locks the numbering.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from gateway.engine.states import RESTING

_RESTING: Final = ", ".join(str(int(state)) for state in sorted(RESTING))
_IS_NEXT: Final = "CAST(? AS BIGINT) = COALESCE((SELECT max(number) FROM windows), 0) + 1"
"""Only the next window is made: of two requests for the same one, the second changes nothing."""
_CARRY: Final = (
    "INSERT INTO carried (number, currency, payments, amount_minor) "
    "SELECT CAST(? AS BIGINT), currency, count(*), sum(amount_minor) FROM payments "
    f"WHERE open = 1 AND state NOT IN ({_RESTING}) AND {_IS_NEXT} GROUP BY currency"
)
"""Parameters: window, window. What is in flight when the window closes, and will lie in a later one, or in none."""
_CLOSE: Final = (
    "INSERT INTO windows (number, after_sequence, last_sequence, closed_us) "
    "SELECT n.number, COALESCE(w.last_sequence, 0), (SELECT COALESCE(max(sequence), 0) FROM events), "
    "CASE WHEN w.closed_us > n.now_us THEN w.closed_us ELSE n.now_us END "
    "FROM (SELECT CAST(? AS BIGINT) AS number, CAST(? AS BIGINT) AS now_us) n "
    f"LEFT JOIN windows w ON w.number = n.number - 1 WHERE {_IS_NEXT}"
)
"""Parameters: window, microseconds, window. If the clock was set back, a window does not end before the previous
one."""


def closing_statements(closings: Iterable[tuple[int, int]]) -> Iterator[tuple[str, Sequence[int]]]:
    """The last statements, with `?` for their values, of a transaction with these closings, (window, microseconds);
    they follow its events."""
    for number, now_us in closings:
        yield _CARRY, (number, number)
        yield _CLOSE, (number, now_us, number)
