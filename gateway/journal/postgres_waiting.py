"""Bounds of the waits for a server's answers, and how another thread ends such a wait.

libpq waits for an answer without limit, and no setting of the server helps if the server itself stands still (frozen,
its machine gone, a commit that waits for a standby). Therefore each wait at the socket has a bound: the longest time
that the server may be silent. Arriving data starts it again: a long answer is not a silent server.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, Final, TypeVar

import psycopg

SILENT_S: Final = 5.0
"""Longest silence of the server while an engine waits, in seconds: the time of a lease."""
READ_SILENT_S: Final = 3.0
"""The same while a caller waits for a few rows."""
REPORT_SILENT_S: Final = 35.0
"""The same for reads of whole tables, which the server itself ends a little earlier."""
LOOK_S: Final = 0.1
"""Seconds until a thread notices that its wait was given up."""

Value = TypeVar("Value")


class SilentServerError(psycopg.OperationalError):
    """The server did not answer in time, or the wait for it was given up. What was sent may still be carried out."""


class Patience:
    """Whether threads still wait for a journal's server; shared by its connections. For any thread."""

    def __init__(self) -> None:
        self.given_up = False

    def give_up(self) -> None:
        """Ends every wait within LOOK_S, for good; for a process that stops."""
        self.given_up = True


class PatientConnection(psycopg.Connection[tuple[Any, ...]]):
    """A connection whose waits are bounded (see the module). After SilentServerError it is closed."""

    silent_s: float = SILENT_S
    patience: Patience | None = None

    def wait(self, gen: Any, interval: float = LOOK_S, *args: Any, **kwargs: Any) -> Any:
        """As psycopg's; every exchange with the server passes through here. Raises SilentServerError."""
        return super().wait(self._bounded(gen), min(interval, LOOK_S), *args, **kwargs)

    def _bounded(self, gen: Generator[Any, Any, Value]) -> Generator[Any, Any, Value]:
        until_s = time.monotonic() + self.silent_s
        try:
            wanted = next(gen)
            while True:
                ready = yield wanted
                if ready:
                    until_s = time.monotonic() + self.silent_s
                elif (self.patience is not None and self.patience.given_up) or time.monotonic() >= until_s:
                    # At once, or leaving a pipeline would wait for the server again.
                    self.pgconn.finish()
                    raise SilentServerError(f"the database has not answered for {self.silent_s:g} s")
                wanted = gen.send(ready)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
