"""How long a process's busiest thread was ready to run and had no core (Linux, /proc/PID/task/*/schedstat).

Without it a p99 describes the neighbours: a server that waits for a core is late and cannot help it.
"""

from __future__ import annotations

import time
from pathlib import Path


class RunQueue:
    """Looks at a process from when it is made."""

    def __init__(self, pid: int) -> None:
        """`pid` 0 for a process that is not here: nothing is known then."""
        self._folder = Path(f"/proc/{pid}/task")
        self._begin_s = time.perf_counter()
        self._before = self._read() if pid else {}

    def share(self) -> float | None:
        """Waits of the thread that used most CPU since, as a share of the time; None where nothing can be seen."""
        after, seconds = self._read(), time.perf_counter() - self._begin_s
        used = {
            thread: (ran - self._before[thread][0], waited - self._before[thread][1])
            for thread, (ran, waited) in after.items()
            if thread in self._before
        }
        if not used or seconds <= 0:
            return None
        _, waited = max(used.values())
        return round(waited / 1e9 / seconds, 4)

    def _read(self) -> dict[str, tuple[int, int]]:
        """Nanoseconds run and waited, by thread."""
        found = {}
        try:
            for thread in self._folder.iterdir():
                ran, waited, _ = (thread / "schedstat").read_text().split()
                found[thread.name] = (int(ran), int(waited))
        except (OSError, ValueError):
            return found  # a thread ended meanwhile, or this is no Linux
        return found
