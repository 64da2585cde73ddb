"""Participants in this process: a function from frames to frames, called on the engine's thread."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.engine.model import Answered, LegOut
from gateway.links.interface import answered, frames, not_sent
from hutong.participant.v1 import participant_pb2 as pb


class LocalParticipants(Protocol):
    """Participants that answer by a function call."""

    def reachable(self, participant_id: str) -> bool:
        """Whether legs for this participant can be sent now."""
        ...

    def handle_many(self, frames: Mapping[str, pb.LegFrame], now_us: int) -> list[tuple[str, int, pb.AnswerFrame]]:
        """Carries out frames durably: (participant id, delay in microseconds, answers)."""
        ...


class LoopbackLink:
    """See gateway.links.interface.Link."""

    def __init__(self, participants: LocalParticipants) -> None:
        self._participants = participants
        self._arrived: list[Answered] = []
        self._later: list[tuple[int, int, str, pb.AnswerFrame]] = []
        self._order = itertools.count()

    def reachable(self, participant: str) -> bool:
        """See the interface."""
        return self._participants.reachable(participant)

    def send(self, legs: Sequence[LegOut], now_us: int) -> list[Answered]:
        """See the interface. Answers without delay are there at the next `poll`."""
        reachable = {participant: self.reachable(participant) for participant in {leg.participant for leg in legs}}
        lost = [not_sent(leg) for leg in legs if not reachable[leg.participant]]
        sent = legs if not lost else [leg for leg in legs if reachable[leg.participant]]
        if sent:
            for participant, delay_us, frame in self._participants.handle_many(frames(sent), now_us):
                if delay_us > 0:
                    heapq.heappush(self._later, (now_us + delay_us, next(self._order), participant, frame))
                else:
                    self._arrived.extend(answered(participant, frame))
        return lost

    def poll(self, now_us: int) -> list[Answered]:
        """See the interface."""
        arrived, self._arrived = self._arrived, []
        later = self._later
        while later and later[0][0] <= now_us:
            _, _, participant, frame = heapq.heappop(later)
            arrived.extend(answered(participant, frame))
        return arrived

    def next_due_us(self) -> int | None:
        """See the interface."""
        if self._arrived:
            return 0
        return self._later[0][0] if self._later else None

    def close(self) -> None:
        """See the interface."""
