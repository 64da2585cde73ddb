"""Participants' streams to one engine: the real windows on a simulated transport, and the witness's account of places.

Real is `gateway.links.windows`. Simulated are the streams: they open, break, stall, and a second one takes over.
The account is kept from the contract alone (`Welcome.window` in `participant.proto`): each leg that finds no place must
have a reason, each that finds one must fit, reversals leave first, and what is said not to have left never leaves.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.engine.model import INQUIRY_NUMBER_MIN, Answered, LegKind, LegOut
from gateway.links.frames import by_participant
from gateway.links.windows import Windows
from verification.simulation.plan import PARTICIPANTS, SECOND
from verification.simulation.scene import Process, Scene

WRITE_US: Final = 50
"""Time from offering a leg until its stream's thread takes it, and from one frame to the next."""
TAKE_OVER_US: Final = 500
"""Until a stream that was armed is taken over: before an answer can come."""
STALE_US: Final = 20 * SECOND
"""How long a stream that was taken over may still be read."""
GIVEN_UP_US: Final = 60 * SECOND
"""After this time an unanswered leg no longer counts."""
OWN, ANOTHER = "own", "another"
"""Installations of a participant: the one whose streams these are, and one that must not get in beside it."""
_FIRST: Final = {LegKind.REVERSAL: 0, LegKind.INQUIRY: 1}
"""Kinds of legs in the order in which they are sent; all others follow them."""


@dataclass(slots=True)
class _Entry:
    leg: LegOut
    asked_us: int
    left: bool = False
    waits: bool = True


def _rank(leg: LegOut) -> int:
    return _FIRST.get(leg.kind, 2)


class Account:
    """The witness's account of the legs that count against each participant's window, by the contract."""

    def __init__(self, window: int, frame_legs_max: int, complain: Callable[[str, str], None]) -> None:
        self.legs: dict[str, dict[bytes, _Entry]] = {}
        """By participant whose stream is open, and leg id."""
        self._window = window
        self._frame_legs_max = frame_legs_max
        self._complain = complain

    def offered(self, legs: Sequence[LegOut], lost: Sequence[Answered], now_us: int) -> None:
        """The engine sent legs, and was told that some will not be sent."""
        said = Counter(answer.leg_id for answer in lost)
        for participant, some in by_participant(legs).items():
            self._expire(participant, now_us, said)
            for leg in some:
                self._offer(leg, now_us, said)
        self._all_said(said)

    def expired(self, lost: Sequence[Answered], now_us: int) -> None:
        """The engine looked for expired places."""
        said = Counter(answer.leg_id for answer in lost)
        for participant in self.legs:
            self._expire(participant, now_us, said)
        self._all_said(said)

    def _all_said(self, said: Counter[bytes]) -> None:
        for leg_id, times in said.items():
            if times:
                self._complain("what is said not to be sent is not", f"leg {leg_id.hex()} may have left, or still does")

    def _expire(self, participant: str, now_us: int, said: Counter[bytes]) -> None:
        legs = self.legs.get(participant, {})
        for leg_id in [key for key, entry in legs.items() if abs(now_us - entry.asked_us) >= GIVEN_UP_US]:
            if not legs.pop(leg_id).left:
                self._said(leg_id, said)

    def _said(self, leg_id: bytes, said: Counter[bytes]) -> None:
        if not said[leg_id]:
            self._complain("what never left is said so", f"leg {leg_id.hex()} is given up in silence")
        said[leg_id] -= 1

    def _offer(self, leg: LegOut, now_us: int, said: Counter[bytes]) -> None:
        legs = self.legs.get(leg.participant)
        if legs is None:
            self._said(leg.leg_id, said)
            return
        rank = _rank(leg)
        known = legs.get(leg.leg_id)
        if known is not None:
            known.asked_us, known.waits = now_us, True
            return
        about = legs.get(leg.original_leg_id) if rank < 2 else None
        if about is not None and not about.left:
            del legs[leg.original_leg_id]
            self._said(leg.original_leg_id, said)
            if rank == 1:
                self._said(leg.leg_id, said)
                return
        room = self._room(legs, rank)
        if said[leg.leg_id]:
            said[leg.leg_id] -= 1
            if room:
                text = f"{leg.kind.name} {leg.leg_id.hex()} finds no place at {leg.participant}: {len(legs)} are taken"
                self._complain("places come back", text)
            return
        if not room:
            text = f"{leg.kind.name} {leg.leg_id.hex()} is the {len(legs) + 1}th leg at {leg.participant}"
            self._complain("no participant gets more than its window", text)
        legs[leg.leg_id] = _Entry(leg, now_us)

    def _room(self, legs: dict[bytes, _Entry], rank: int) -> bool:
        """An eighth is for reversals alone, another for them and inquiries, which take at most a quarter."""
        taken = Counter(_rank(entry.leg) for entry in legs.values())
        eighth = max(1, self._window // 8)
        if len(legs) >= self._window or (rank and taken[1] + taken[2] >= self._window - eighth):
            return False
        return rank == 0 or (taken[1] < 2 * eighth if rank == 1 else taken[2] < self._window - 2 * eighth)

    def took(self, participant: str, frame: Sequence[LegOut]) -> None:
        """A frame leaves."""
        legs = self.legs.get(participant, {})
        if len(frame) > self._frame_legs_max:
            self._complain("frames are bounded", f"{len(frame)} legs at once to {participant}")
        for leg in frame:
            entry = legs.get(leg.leg_id)
            if entry is None or not entry.waits:
                self._complain(
                    "what was given up does not leave", f"{leg.kind.name} {leg.leg_id.hex()} to {participant}"
                )
            else:
                entry.left, entry.waits = True, False
        waiting = min((_rank(entry.leg) for entry in legs.values() if entry.waits), default=2)
        if any(_rank(leg) > waiting for leg in frame):
            self._complain("reversals leave first, then inquiries", f"others left before them to {participant}")

    def connected(self, participant: str) -> None:
        """A stream opens: answers to legs of the former stream are not expected on it."""
        before = self.legs.get(participant, {})
        self.legs[participant] = {leg_id: entry for leg_id, entry in before.items() if entry.waits}

    def broken(self, participant: str, lost: Sequence[Answered]) -> None:
        """The stream ended."""
        said = Counter(answer.leg_id for answer in lost)
        for leg_id, entry in self.legs.pop(participant, {}).items():
            if not entry.left:
                self._said(leg_id, said)
        self._all_said(said)

    def answered(self, participant: str, leg_id: bytes) -> None:
        """An answer came on the current stream."""
        legs = self.legs.get(participant, {})
        entry = legs.get(leg_id)
        if entry is None or not entry.left:
            return
        del legs[leg_id]
        about = entry.leg.original_leg_id
        if _rank(entry.leg) < 2:
            self._settled(legs, about)
        if _rank(entry.leg) == 0:
            self._settled(legs, about[:16] + bytes([INQUIRY_NUMBER_MIN + about[16]]))

    @staticmethod
    def _settled(legs: dict[bytes, _Entry], leg_id: bytes) -> None:
        if leg_id in legs and legs[leg_id].left:
            del legs[leg_id]


class SimulatedLink:
    """The streams that end at one engine. See gateway.engine.ports.Link."""

    def __init__(self, world: Scene, node: Process, turn: Callable[[SimulatedLink, str], None]) -> None:
        """`turn`: has the thread that writes to a participant take its turn, where it can."""
        plan = world.plan
        self.arrived: list[Answered] = []
        self._world = world
        self._node = node
        self._turn = turn
        self._windows = Windows(plan.window, frame_legs_max=plan.frame_legs_max)
        self._account = Account(plan.window, plan.frame_legs_max, world.witness.complain)
        self._epochs: dict[str, int] = {}
        """The current stream of each participant that has one."""
        self._former: dict[str, tuple[int, int]] = {}
        """The stream that it took over from, and until when that is still read."""
        self._stalled: set[str] = set()
        self._armed: set[str] = set()
        """Participants that open another stream as soon as this one has carried a question or a reversal."""
        self._writing: set[str] = set()
        """Participants for whose legs a turn of their stream's thread is planned."""

    # -- streams ---------------------------------------------------------------------------------------------

    def open(self, participant: str) -> None:
        """A stream opens, and takes over from one that is open."""
        before = self._epochs.get(participant)
        if before is not None:
            self._former[participant] = before, self._world.now_us + STALE_US
            if self._windows.connect(participant, ANOTHER) is not None:
                self._world.witness.complain("one installation at a time", f"a second one of {participant} gets in")
        epoch = self._windows.connect(participant, OWN)
        if epoch is None:
            self._world.witness.complain("who lost its line gets in again", f"{participant} is refused")
            return
        self._epochs[participant] = epoch
        self._account.connected(participant)
        self._stalled.discard(participant)
        self._world.say(f"a stream of {participant} opens at engine {self._node.number}")
        self._write_soon(participant)

    def open_all(self) -> None:
        """Every participant without a stream opens one, and none stands still."""
        for participant in PARTICIPANTS:
            if participant not in self._epochs and not self._world.network.participants[participant].known_down:
                self.open(participant)
            self.go_on(participant)

    def break_off(self, participant: str) -> None:
        """The stream ends."""
        epoch = self._epochs.pop(participant, None)
        if epoch is None:
            return
        self._world.say(f"the stream of {participant} at engine {self._node.number} ends")
        if participant in self._former:  # its end is noticed only now
            self._ended(participant, self._former.pop(participant)[0])
        self._account.broken(participant, self._ended(participant, epoch))

    def _ended(self, participant: str, epoch: int) -> list[Answered]:
        lost = self._windows.disconnect(participant, epoch)
        self._said(lost)
        self.arrived.extend(lost)
        if lost:
            self._node.wake()
        return lost

    def arm(self, participant: str) -> None:
        """Another stream takes over as soon as this one has carried a question or a reversal."""
        self._armed.add(participant)

    def former_ends(self, participant: str) -> None:
        """The stream that was taken over ends."""
        former = self._former.pop(participant, None)
        if former is not None:
            self._ended(participant, former[0])

    def stall(self, participant: str) -> None:
        """Nothing is sent on the stream any more."""
        if participant in self._epochs:
            self._world.say(f"the stream of {participant} at engine {self._node.number} stands still")
            self._stalled.add(participant)

    def take_over(self, participant: str) -> None:
        """The participant opens another stream, while the one before is still read for a while."""
        self.open(participant)
        self._world.after(STALE_US, lambda: self.former_ends(participant))

    def go_on(self, participant: str) -> None:
        """Sending goes on."""
        if participant in self._stalled:
            self._stalled.discard(participant)
            self._write_soon(participant)

    def _write_soon(self, participant: str) -> None:
        if participant not in self._writing:
            self._writing.add(participant)
            self._world.after(WRITE_US, lambda: self._turn(self, participant))

    def postpone(self, participant: str, delay_us: int) -> None:
        """The process stands still."""
        self._world.after(delay_us, lambda: self._turn(self, participant))

    def write(self, participant: str) -> None:
        """One turn of the stream's thread: one frame. The process may end between any two legs."""
        self._writing.discard(participant)
        epoch = self._epochs.get(participant)
        if epoch is None or participant in self._stalled:
            return
        frame = self._windows.take(participant, epoch)
        if frame is None:
            self._world.witness.complain("who is connected is reachable", f"{participant}'s stream counts no longer")
            return
        self._account.took(participant, frame)
        if frame:
            self._write_soon(participant)
        for leg in frame:
            self._node.step()
            self._world.network.send(leg, self._node.number, epoch)
            if leg.kind in _FIRST and participant in self._armed:
                self._armed.discard(participant)
                self._world.after(TAKE_OVER_US, lambda: self.take_over(participant))

    # -- the engine's side -----------------------------------------------------------------------------------

    def reachable(self, participant: str) -> bool:
        reachable = self._windows.connected(participant)
        if reachable != (participant in self._epochs):
            word = "reachable" if reachable else "unreachable"
            self._world.witness.complain("who is connected is reachable", f"{participant} is {word}")
        return reachable

    def send(self, legs: Sequence[LegOut], now_us: int) -> list[Answered]:
        """Sends the legs one by one; the simulated process may end between any two."""
        for leg in legs:
            self._node.step()
            self._world.witness.leaves(leg)
            self.reachable(leg.participant)
        lost, woken = self._windows.offer(legs, now_us)
        self._account.offered(legs, lost, now_us)
        self._said(lost)
        for participant in woken:
            self._write_soon(participant)
            self._agree(participant)
        return lost

    def _said(self, lost: Sequence[Answered]) -> None:
        for answer in lost:
            self._world.network.counts["not_sent"] += 1
            self._world.witness.not_sent(answer.leg_id)

    def _agree(self, participant: str) -> None:
        taken, counted = self._windows.taken(participant), len(self._account.legs.get(participant, ()))
        if taken != counted:
            text = f"{taken} places are taken at {participant}, {counted} legs count"
            self._world.witness.complain("places come back", text)

    def poll(self, now_us: int) -> list[Answered]:
        arrived, self.arrived = self.arrived, []
        for answered in arrived:
            self._world.witness.heard(answered.participant, answered.leg_id, answered.result)
        lost = self._windows.expire(now_us)
        self._account.expired(lost, now_us)
        self._said(lost)
        for participant in self._epochs:
            self._agree(participant)
        return arrived + lost

    def next_due_us(self) -> int | None:
        return 0 if self.arrived else None

    def close(self) -> None:
        pass

    # -- the participants' side ------------------------------------------------------------------------------

    def deliver(self, answered: Answered, epoch: int) -> bool:
        """An answer comes: on the stream that carried its leg, if that is still read, or on the one that counts. False
        where there is none."""
        participant = answered.participant
        current = self._epochs.get(participant)
        if current is None:
            return False
        former, until_us = self._former.get(participant, (0, 0))
        if epoch and epoch == former and self._world.now_us < until_us:
            self._world.network.counts["answer_on_former_stream"] += 1
            self._windows.answered(participant, former, [answered.leg_id])
        else:
            self._windows.answered(participant, current, [answered.leg_id])
            self._account.answered(participant, answered.leg_id)
        self._agree(participant)
        self.arrived.append(answered)
        return True

    def at_rest(self, now_us: int) -> None:
        """Nothing is under way, and all that was sent was given up long ago: every place is free."""
        self.poll(now_us)
        for participant in PARTICIPANTS:
            if taken := self._windows.taken(participant):
                self._world.witness.complain("places come back", f"{taken} are taken at {participant} in the end")
