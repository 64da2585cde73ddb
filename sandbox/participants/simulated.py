"""Simulated issuers and acquirers: a function from legs to answers over a ledger, with faults where asked for."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from hutong.participant.v1 import participant_pb2 as pb
from hutong_contract.legs import Answer, Leg
from sandbox.participants import magic
from sandbox.participants.books import Books, BooksError
from sandbox.participants.ledger import Ledger, Role
from sandbox.participants.script import MONEY_KINDS, NORMAL, Behaviour, Plan, Script

Answers = list[tuple[int, list[Answer]]]
"""Answers, each with its delay in microseconds."""
_OK: Final = int(pb.ANSWER_RESULT_APPROVED)
_NONSENSE: Final = int(pb.ANSWER_RESULT_UNSPECIFIED)

PLANNED_MAX: Final = 10_000
"""Behaviours that may wait for coming legs."""


class SimulatedParticipant:
    """An issuer or acquirer. One thread handles legs; `script` and `plan_next` may be used from any other."""

    def __init__(
        self, participant_id: str, role: Role, books: Books, *, seed: int = 0, magic_amounts: bool = True
    ) -> None:
        self.id = participant_id
        self.role = role
        self.script = Script()
        """How it behaves; assign another at any time."""
        self.magic_amounts = magic_amounts
        self.ledger = Ledger(participant_id, role, books)
        self._books = books
        self._rng = random.Random(f"{seed}/{participant_id}")
        self._planned: deque[Plan] = deque(maxlen=PLANNED_MAX)

    @property
    def down(self) -> bool:
        """Whether a link must report legs for this participant as not sent."""
        return self.script.down

    def plan_next(self, plan: Plan) -> None:
        """The next leg of MONEY_KINDS gets this plan, before anything that the script says."""
        self._planned.append(plan)

    def handle(self, legs: Sequence[Leg], now_us: int) -> Answers:
        """Carries out legs durably and returns the answers. Raises BooksError, with nothing done."""
        answers = self.work(legs, now_us)
        commit(self._books, (self,))
        return answers

    def work(self, legs: Sequence[Leg], now_us: int) -> Answers:
        """As `handle`, but without the commit: the answers must not leave before `commit`."""
        script = self.script
        faulty = bool(self._planned) or not script.faultless
        latency = script.latency if script.latency.median_us else None
        magical = magic.MAGIC if self.magic_amounts else {}
        apply = self.ledger.apply
        by_delay: dict[int, list[Answer]] = {}
        self.ledger.foresee(legs)
        for leg in legs:
            if faulty or leg.amount_minor % magic.MODULUS in magical:
                self._work_by_plan(leg, now_us, script, by_delay)
                continue
            result, code = apply(leg, now_us)
            delay = latency.draw_us(self._rng) if latency else 0
            answers = by_delay.get(delay)
            if answers is None:
                answers = by_delay[delay] = []
            answers.append(Answer(leg.leg_id, result, code))
        return list(by_delay.items())

    def _work_by_plan(self, leg: Leg, now_us: int, script: Script, by_delay: dict[int, list[Answer]]) -> None:
        """One leg with its behaviour; adds its answers to those of their delay."""
        plan = self._plan(leg, script)
        behaviour = plan.behaviour
        if behaviour is Behaviour.LOSE_REQUEST:
            return
        result, code = self.ledger.apply(leg, now_us, plan.code if behaviour is Behaviour.DECLINE else "")
        if behaviour is Behaviour.LOSE_ANSWER:
            return
        delay = script.latency.draw_us(self._rng)
        if behaviour is Behaviour.LATE:
            delay += plan.late_us
        answers = by_delay.setdefault(delay, [])
        if behaviour is Behaviour.GARBAGE:
            answers.append(Answer(self._rng.randbytes(17), _OK, "00"))
            answers.append(Answer(leg.leg_id, _NONSENSE, "ZZ"))
            return
        answers.extend([Answer(leg.leg_id, result, code)] * (2 if behaviour is Behaviour.DUPLICATE else 1))

    def _plan(self, leg: Leg, script: Script) -> Plan:
        """What is planned for this leg: by hand, by its amount, or by the script, in this order."""
        kind = leg.kind
        if self._planned and kind in MONEY_KINDS:
            return self._planned.popleft()
        if self.magic_amounts:
            plan = magic.plan_for(leg)
            if plan is not NORMAL:
                return plan
        return script.draw(kind, self._rng)


class SimulatedIssuer(SimulatedParticipant):
    """Holds payers' accounts, by token."""

    def __init__(self, participant_id: str, books: Books, *, seed: int = 0, magic_amounts: bool = True) -> None:
        super().__init__(participant_id, Role.ISSUER, books, seed=seed, magic_amounts=magic_amounts)


class SimulatedAcquirer(SimulatedParticipant):
    """Holds merchants' accounts, by merchant id."""

    def __init__(self, participant_id: str, books: Books, *, seed: int = 0, magic_amounts: bool = True) -> None:
        super().__init__(participant_id, Role.ACQUIRER, books, seed=seed, magic_amounts=magic_amounts)


class Participants(Mapping[str, SimulatedParticipant]):
    """All participants of one data folder, on the same books: what a loopback link talks to."""

    def __init__(self, books: Books, participants: Iterable[SimulatedParticipant]) -> None:
        self.books = books
        self.failed_commits = 0
        """Batches that were not done and not answered because the books could not be written."""
        self._by_id = {participant.id: participant for participant in participants}

    def __getitem__(self, participant_id: str) -> SimulatedParticipant:
        return self._by_id[participant_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_id)

    def __len__(self) -> int:
        return len(self._by_id)

    def handle_many(self, legs: Mapping[str, Sequence[Leg]], now_us: int) -> list[tuple[str, int, list[Answer]]]:
        """Carries out the legs of several participants in one durable commit.

        Returns (participant id, delay in microseconds, answers). Where the books cannot be written nothing is done and
        nobody is answered, as with a real participant whose disk is full: the gateway inquires later. Legs for a
        participant that is down or not here are not answered either; ask `reachable` first.
        """
        answers = [
            (participant_id, delay_us, some)
            for participant_id, its in legs.items()
            if self.reachable(participant_id)
            for delay_us, some in self._by_id[participant_id].work(its, now_us)
        ]
        try:
            commit(self.books, self._by_id.values())
        except BooksError:
            self.failed_commits += 1
            return []
        return answers

    def reachable(self, participant_id: str) -> bool:
        """Whether legs for this participant can be sent now."""
        participant = self._by_id.get(participant_id)
        return participant is not None and not participant.down


def commit(books: Books, participants: Iterable[SimulatedParticipant]) -> None:
    """Commits what participants appended to their books. Raises BooksError with everything put back."""
    try:
        books.commit()
    except BooksError:
        lines = books.take_pending()
        for participant in participants:
            participant.ledger.undo(lines)
        raise
    for participant in participants:
        participant.ledger.committed()
