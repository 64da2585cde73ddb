"""The fate of messages after a stream has taken them, as the plan says; and lies of participants."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final, Protocol

from gateway.engine.model import INQUIRY_NUMBER_MIN, Answered, LegKind, LegOut, Result
from verification.simulation.participants import BARRED, DECLINED, DONE, Answer, Participant
from verification.simulation.plan import PARTICIPANTS, SECOND, Fate, Plan
from verification.simulation.witness import Witness

INSIST_US: Final = 600 * SECOND
"""How often a participant that broke its word repeats its approval, in microseconds."""
INSIST_MAX: Final = 50
_OF_INQUIRY: Final = 16
_Way = tuple[int, int]
"""An engine, and its stream."""
_NOWHERE: Final = (-1, 0)


class Scheduler(Protocol):
    """Virtual time."""

    now_us: int

    def after(self, delay_us: int, do: Callable[[], None]) -> None:
        """Runs something later."""
        ...


class Network:
    """Carries messages to participants and answers to whichever engine sent the leg."""

    def __init__(
        self,
        plan: Plan,
        witness: Witness,
        time: Scheduler,
        deliver: Callable[[Answered, int, int], None],
        say: Callable[[str], None],
        notice: Callable[[str], None],
    ) -> None:
        """`deliver` receives an answer, its engine, and the number of the stream that carried the leg (0: unknown, or
        another engine's); `notice` receives the kind of each message that is sent, and of lies."""
        self.participants: Mapping[str, Participant] = {
            name: Participant(name, witness.effect, witness.complain) for name in PARTICIPANTS
        }
        witness.participants = self.participants
        self.fates: dict[str, Fate] = {}
        """The unusual fates of messages."""
        self.counts: Counter[str] = Counter()
        self._plan = plan
        self._witness = witness
        self._time = time
        self._deliver = deliver
        self._say = say
        self._notice = notice
        self._sent: Counter[str] = Counter()
        self._sender: dict[bytes, int] = {}
        self._returned: Counter[bytes] = Counter()
        self._leaving: dict[str, list[tuple[Answer, Fate, _Way]]] = {name: [] for name in PARTICIPANTS}
        self.answered: list[tuple[str, Answer]] = []
        """Every answer that ever left a participant."""

    def send(self, leg: LegOut, node: int, epoch: int) -> None:
        """An engine sends a leg, on the stream of this epoch."""
        way = (node, epoch)
        self._witness.sent(leg)
        self._sender[leg.leg_id[:16]] = node
        name = f"{self._witness.labels[leg.leg_id[:16]]}/{leg.leg_id[16]}"
        self._sent[name] += 1
        name = f"{name}/{self._sent[name]}"
        fate = self._plan.fate(name, leg.kind, leg.participant, self._time.now_us)
        if fate.kind:
            self.fates[name] = fate
            self.counts[fate.kind] += 1
        self._say(f"{leg.kind.name} {name} to {leg.participant}{': ' + fate.kind if fate.kind else ''}")
        self._notice(leg.kind.name.lower())
        if leg.kind is LegKind.REVERSAL and self.participants[leg.participant].has_lied(leg.original_leg_id):
            self._notice("undoing")
        for delay_us in fate.requests:
            self._time.after(delay_us, lambda: self._arrive(leg, fate, name, way))

    def _arrive(self, leg: LegOut, fate: Fate, name: str, way: _Way) -> None:
        participant = self.participants[leg.participant]
        if participant.down:
            self._say(f"{name} finds {leg.participant} down")
            self.counts["lost_at_down_participant"] += 1
            return
        if fate.kind == "lie_refused_reversal":
            self._answer(leg.participant, (leg.leg_id, Result.DECLINED, "12"), fate, way)
            return
        line = participant.lines.get(leg.leg_id)
        if fate.kind == "lie_no_tombstone" and line is not None and line.state == BARRED and line.contents is None:
            self._break_word(participant, leg, name)
            return
        change_of_mind = fate.kind == "lie_change_of_mind" and line is None
        answer = participant.receive(
            leg, decline="05" if fate.kind in ("declined", "declined_late") or change_of_mind else ""
        )
        now = participant.lines.get(leg.leg_id)
        self._say(f"{name} at {leg.participant}: {Result(answer[1]).name}")
        if change_of_mind and now is not None and now.state == DECLINED:
            self._time.after(fate.late_us, lambda: self._break_word(participant, leg, name))
        self._leaving[leg.participant].append((answer, fate, way))
        if fate.kind == "lie_unasked":
            unasked = leg.leg_id[:_OF_INQUIRY] + bytes([INQUIRY_NUMBER_MIN + leg.leg_id[_OF_INQUIRY]])
            given = (unasked, Result.NOT_FOUND, "25"), Fate("", (), fate.answers), way
            self._leaving[leg.participant].insert(-1, given)
        if participant.sync_us:
            self._time.after(participant.sync_us, lambda: self.sync(leg.participant))
        else:
            self.sync(leg.participant)

    def sync(self, name: str) -> None:
        """Makes a participant's work durable, and sends its answers."""
        self.participants[name].sync()
        leaving, self._leaving[name] = self._leaving[name], []
        for answer, fate, way in leaving:
            self._answer(name, answer, fate, way)

    def restart(self, name: str) -> None:
        """Ends a participant's process: unsynced work and its answers are lost."""
        participant = self.participants[name]
        self._leaving[name] = []
        participant.forget_unsynced()
        participant.down = True

    def _answer(self, participant: str, answer: Answer, fate: Fate, way: _Way) -> None:
        self.answered.append((participant, answer))
        leg_id, result, code = answer
        if fate.kind == "lie_garbage":
            for garbage in (Answered(participant, leg_id, 0, "ZZ"), Answered(participant, bytes(17), result, code)):
                self._later(garbage, fate, way)
        elif fate.kind == "lie_stranger":
            stranger = PARTICIPANTS[PARTICIPANTS.index(participant) - 1]
            self._later(Answered(stranger, leg_id, Result.APPROVED, code), fate, _NOWHERE)
        else:
            self._later(Answered(participant, leg_id, result, code), fate, way)

    def _later(self, answered: Answered, fate: Fate, way: _Way) -> None:
        for delay_us in fate.answers:
            self._time.after(delay_us, lambda: self._return(answered, way))

    def _return(self, answered: Answered, way: _Way = _NOWHERE) -> None:
        """Delivers to the engine that last sent the leg, or to a wrong one."""
        payment_id = answered.leg_id[:_OF_INQUIRY]
        node = self.sender(payment_id)
        if self._plan.strays:
            self._returned[answered.leg_id] += 1
            name = f"{self._witness.labels.get(payment_id)}/{answered.leg_id[-1]}/{self._returned[answered.leg_id]}"
            if by := self._plan.strays_to(name, self._plan.nodes):
                self.counts["answer_astray"] += 1
                node = (node + by) % self._plan.nodes
        self._deliver(answered, node, way[1] if way[0] == node else 0)

    def sender(self, payment_id: bytes) -> int:
        """The engine that sent legs of a payment; the first engine if none did."""
        return self._sender.get(payment_id, 0)

    def _break_word(self, participant: Participant, leg: LegOut, name: str) -> None:
        """Carries out what was refused or barred, after the gateway has relied on it. An approval that crosses the
        answer to a reversal cannot be told from one that the reversal undid."""
        line = participant.lines.get(leg.leg_id)
        if line is None or line.state not in (DECLINED, BARRED):
            return
        refused = line.state == DECLINED and not participant.reversed(leg.leg_id)
        if not (self._witness.recorded_declined if refused else self._witness.recorded_reversed)(leg.leg_id):
            return
        answer = participant.break_word(leg)
        participant.sync()
        self._notice("lie")
        self._say(f"{participant.name} breaks its word and does {name}")
        self._insist(participant, answer, INSIST_MAX)

    def _insist(self, participant: Participant, answer: Answer, times: int) -> None:
        """Repeats an approval until it is reversed."""
        leg_id, result, code = answer
        if times and participant.lines[leg_id].state == DONE:
            self._return(Answered(participant.name, leg_id, result, code))
            self._time.after(INSIST_US, lambda: self._insist(participant, answer, times - 1))

    def repeat_answers(self) -> None:
        """Delivers every answer once more, in another order."""
        for participant, (leg_id, result, code) in reversed(self.answered):
            self._return(Answered(participant, leg_id, result, code))
