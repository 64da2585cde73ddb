"""Measures recovery: from a restart to the first new payment that succeeds, and until all payments in flight ended."""

from __future__ import annotations

import sqlite3
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sandbox.journals import SQLITE_FILE
from verification.torture.faults import Hurt
from verification.torture.record import Answer, Asked

POLL_S: Final = 0.25
_OPEN: Final = "SELECT payment_id FROM payments WHERE open = 1"
_STATES: Final = "SELECT payment_id, state FROM payments"


class JournalView:
    """Reads a journal from outside, in use or not."""

    def __init__(self, folder: Path, url: str) -> None:
        self._folder = folder
        self._url = url

    def open_payments(self) -> set[bytes] | None:
        """Ids of what is in flight; None while that cannot be read."""
        try:
            return {bytes(row[0]) for row in self._rows(_OPEN)}
        except OSError:
            return None

    def states(self) -> dict[bytes, int]:
        """Every payment's state. Raises OSError."""
        return {bytes(row[0]): int(row[1]) for row in self._rows(_STATES)}

    def _rows(self, query: str) -> list[Any]:
        if self._url:
            import psycopg

            try:
                with psycopg.connect(self._url, connect_timeout=5) as connection:
                    return connection.execute(query.encode()).fetchall()
            except psycopg.Error as error:
                raise OSError(str(error)) from error
        try:
            database = sqlite3.connect(f"file:{self._folder / SQLITE_FILE}?mode=ro", uri=True, timeout=1)
            try:
                return database.execute(query).fetchall()
            finally:
                database.close()
        except sqlite3.Error as error:
            raise OSError(str(error)) from error


@dataclass(slots=True)
class _Unsettled:
    kind: str
    since_ns: int
    payments: set[bytes]


@dataclass(slots=True)
class Recovery:
    """Measures by polling in a thread of its own; `first` is called by whoever reads the record."""

    view: JournalView
    first_s: dict[str, list[float]] = field(default_factory=dict)
    settled_s: dict[str, list[float]] = field(default_factory=dict)
    _waiting: list[Hurt] = field(default_factory=list)
    _unsettled: list[_Unsettled] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begins to poll."""
        self._thread = threading.Thread(target=self._run, name="recovery", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends polling."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def began(self, hurts: Sequence[Hurt]) -> None:
        """A process was started again: the time begins. If it is hurt again before it has recovered, the time begins
        again."""
        anew = {(hurt.gateway, hurt.participant) for hurt in hurts}
        self._waiting = [hurt for hurt in self._waiting if (hurt.gateway, hurt.participant) not in anew]
        self._waiting.extend(hurts)
        kinds = {hurt.kind: hurt.since_ns for hurt in hurts}
        with self._lock:
            self._unsettled.extend(_Unsettled(kind, since_ns, set()) for kind, since_ns in kinds.items())

    def told(self, answers: Sequence[Answer], asked: Mapping[str, Asked]) -> None:
        """New lines of the record."""
        still: list[Hurt] = []
        for hurt in self._waiting:
            found = next((one for one in answers if _proves(one, asked[one.key], hurt)), None)
            if found is None:
                still.append(hurt)
            else:
                self.first_s.setdefault(hurt.kind, []).append((found.told_ns - hurt.since_ns) / 1e9)
        self._waiting = still

    @property
    def waiting(self) -> bool:
        """Whether something has not recovered yet."""
        return bool(self._waiting)

    def late(self, before_ns: int) -> list[str]:
        """Kinds of faults that were repaired before that time and have not recovered; they are waited for no longer."""
        late = [hurt for hurt in self._waiting if hurt.since_ns < before_ns]
        self._waiting = [hurt for hurt in self._waiting if hurt.since_ns >= before_ns]
        return [hurt.kind for hurt in late]

    def _run(self) -> None:
        while not self._stop.wait(POLL_S):
            with self._lock:
                if not self._unsettled:
                    continue
            still_open = self.view.open_payments()
            if still_open is not None:
                self._settle(still_open, time.monotonic_ns())

    def _settle(self, still_open: set[bytes], now_ns: int) -> None:
        with self._lock:
            left: list[_Unsettled] = []
            for one in self._unsettled:
                # The first look finds what was in flight; what comes after is not this restart's.
                one.payments = one.payments & still_open if one.payments else set(still_open)
                if one.payments:
                    left.append(one)
                else:
                    self.settled_s.setdefault(one.kind, []).append((now_ns - one.since_ns) / 1e9)
            self._unsettled = left

    def as_json(self) -> dict[str, Any]:
        """p50 and max in seconds, in all and by kind of fault."""
        return {
            "first_payment": _spread(self.first_s),
            "settled": _spread(self.settled_s),
        }


def _proves(answer: Answer, asked: Asked, hurt: Hurt) -> bool:
    """Whether this is a new payment that began after the restart, passed through what was hurt, and succeeded."""
    return (
        answer.first
        and answer.asked_ns >= hurt.since_ns
        and answer.state == "SUCCEEDED"
        and hurt.matches(asked, answer)
    )


def _spread(by_kind: Mapping[str, list[float]]) -> dict[str, Any]:
    everything = [value for values in by_kind.values() for value in values]
    return {**_summary(everything), "by_kind": {kind: _summary(values) for kind, values in sorted(by_kind.items())}}


def _summary(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {"count": 0}
    return {"count": len(values), "p50": round(statistics.median(values), 2), "max": round(max(values), 2)}
