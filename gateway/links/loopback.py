"""The link to participants in this process: a function from legs to answers, called on the engine's thread."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from typing import Protocol

from gateway.engine.model import Answered, LegOut
from gateway.links.frames import by_participant, not_sent
from hutong_contract.legs import Answer, Leg


class LocalParticipants(Protocol):
    """Participants that answer by a function call."""

    def reachable(self, participant_id: str) -> bool:
        """Whether legs for this participant can be sent now."""
        ...

    def handle_many(self, legs: Mapping[str, Sequence[Leg]], now_us: int) -> list[tuple[str, int, list[Answer]]]:
        """Carries out legs, durably, and returns for each participant (participant id, delay in microseconds,
        answers)."""
        ...


class LoopbackLink:
    """The link to simulated participants in this process."""

    def __init__(self, participants: LocalParticipants) -> None:
        self._participants = participants
        self._arrived: list[Answered] = []
        self._later: list[tuple[int, int, str, list[Answer]]] = []
        self._order = itertools.count()

    def reachable(self, participant: str) -> bool:
        return self._participants.reachable(participant)

    def send(self, legs: Sequence[LegOut], now_us: int) -> list[Answered]:
        """Hands the legs to the participants. Answers without a delay are there at the next `poll`."""
        sent = by_participant(legs)
        lost: list[Answered] = []
        for participant in list(sent):
            if not self.reachable(participant):
                lost.extend(not_sent(leg) for leg in sent.pop(participant))
        if sent:
            for participant, delay_us, answers in self._participants.handle_many(sent, now_us):
                if delay_us > 0:
                    heapq.heappush(self._later, (now_us + delay_us, next(self._order), participant, answers))
                else:
                    self._arrived.extend(_answered(participant, answers))
        return lost

    def poll(self, now_us: int) -> list[Answered]:
        arrived, self._arrived = self._arrived, []
        later = self._later
        while later and later[0][0] <= now_us:
            _, _, participant, answers = heapq.heappop(later)
            arrived.extend(_answered(participant, answers))
        return arrived

    def next_due_us(self) -> int | None:
        if self._arrived:
            return 0
        return self._later[0][0] if self._later else None

    def close(self) -> None:
        pass


def _answered(participant: str, answers: Sequence[Answer]) -> list[Answered]:
    return [Answered(participant, leg_id, result, code) for leg_id, result, code in answers]
