"""Participants in a process that no test kills: engines of other processes reach them through pipes."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from gateway.engine.model import Answered, LegOut
from gateway.links.loopback import LoopbackLink
from sandbox.participants.books import Books
from tests.gateway.journal.shared import CLOCK, open_participants


class PipeLink:
    """An engine's end: sends legs, and wakes the engine when answers come. See gateway.engine.ports.Link."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._arrived: deque[Answered] = deque()
        self.wake: Callable[[], None] = lambda: None
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        while True:
            try:
                self._arrived.extend(Answered(*answer) for answer in self._pipe.recv())
            except (EOFError, OSError):
                return
            self.wake()

    def reachable(self, participant: str) -> bool:
        return True

    def send(self, legs: Sequence[LegOut], now_us: int) -> list[Answered]:
        self._pipe.send([tuple(leg) for leg in legs])
        return []

    def poll(self, now_us: int) -> list[Answered]:
        return [self._arrived.popleft() for _ in range(len(self._arrived))]

    def next_due_us(self) -> int | None:
        return None

    def close(self) -> None: ...


class ParticipantHost:
    """The participants' end: durable books, one frame at a time, whichever engine it came from."""

    def __init__(self, folder: Path) -> None:
        self.books: Books
        self.books, participants = open_participants(folder)
        self._link = LoopbackLink(participants)
        self._lock = threading.Lock()

    def serve(self, pipe: Connection) -> None:
        """Answers an engine until it is gone."""
        threading.Thread(target=self._serve, args=(pipe,), daemon=True).start()

    def _serve(self, pipe: Connection) -> None:
        while True:
            try:
                legs = [LegOut(*leg) for leg in pipe.recv()]
                with self._lock:
                    answers = self._link.send(legs, CLOCK.now_us()) + self._link.poll(CLOCK.now_us())
                pipe.send([tuple(answer) for answer in answers])
            except (EOFError, OSError):
                return  # the engine was killed; what it did not hear, the next one asks for
