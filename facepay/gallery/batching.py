"""Micro-batching: callers on many threads, one search at a time over whatever waits.

A search of 64 queries costs a fifth of 64 searches, because the sketches pass through the processor once. Nobody is
held back to fill a batch: a lone query goes at once, and those that arrive meanwhile go together next.
"""

from __future__ import annotations

import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from facepay.gallery.engine import BATCH_MAX, Batch, Candidate, Engine, Vectors

WAITING_MAX: Final = 4_096
"""Queries that may wait: at 3,000 a second, more than a second of work; beyond it callers are refused at once."""
_STOP: Final = None


class QueueFull(Exception):  # noqa: N818 - it is what happened
    """More queries wait than allowed. Try again later."""


@dataclass(slots=True)
class _Waiting:
    vector: Vectors
    floor: float
    region: int
    margin: float
    answer: Future[tuple[Candidate, ...]] = field(default_factory=Future)


class SearchQueue:
    """Searches for many callers at once."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._searching = threading.Lock()
        self.batches = 0
        self.queries = 0
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue(WAITING_MAX)
        self._thread = threading.Thread(target=self._run, name="face-search", daemon=True)
        self._thread.start()

    def submit(
        self, vector: Vectors, floor: float, *, region: int = 0, margin: float = 0.05
    ) -> Future[tuple[Candidate, ...]]:
        """Queues one query [D]. Raises QueueFull."""
        item = _Waiting(vector, floor, region, margin)
        try:
            self._waiting.put_nowait(item)
        except queue.Full:
            raise QueueFull from None
        return item.answer

    def replace(self, engine: Engine) -> None:
        """Searches another gallery from now on; nothing searches the old one any more when it returns."""
        with self._searching:
            self._engine = engine

    def close(self) -> None:
        """Answers what waits, then ends the thread."""
        self._waiting.put(_STOP)
        self._thread.join()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            first = self._waiting.get()
            if first is _STOP:
                return
            items = [first]
            while len(items) < BATCH_MAX:
                try:
                    item = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if item is _STOP:
                    stopping = True
                    break
                items.append(item)
            self._answer(items)

    def _answer(self, items: list[_Waiting]) -> None:
        self.batches += 1
        self.queries += len(items)
        batch = Batch(
            np.stack([item.vector for item in items]),
            np.array([item.floor for item in items], np.float32),
            np.array([item.region for item in items], np.uint32),
            max(item.margin for item in items),
        )
        try:
            with self._searching:
                found = self._engine.search(batch)
        except Exception as error:  # noqa: BLE001 - goes to the callers, whose failure it is
            for item in items:
                item.answer.set_exception(error)
            return
        for item, candidates in zip(items, found, strict=True):
            item.answer.set_result(candidates)
