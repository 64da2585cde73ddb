"""The window of each participant: which legs may be unanswered, in which order they are sent, and which stream is
current.

Every leg that is sent takes a place in its participant's window, by its leg id. The place is free again when

- the leg is answered on the stream that carries it;
- an inquiry about it, or its reversal, is answered: nobody waits for the leg's own answer any more;
- the participant opens another stream, or its stream ends: answers of the old stream are not expected on the new one;
- PLACE_US have passed since it was last sent: it was given up, wherever its answer went.

A leg that is sent again under its id keeps its place. Answers to legs without a place (late, repeated, never asked for)
change nothing here; the engine judges what they say.

Reversals end payments in flight, so they are sent first and always find a place: one share of the window is theirs
alone, and another is for them and inquiries only. Inquiries are sent next. The number of unanswered ones is bounded, so
that a participant that lost its answers is not flooded with questions.

Pure: the time is passed in, nothing is sent, nothing waits. `gateway.links.remote` puts gRPC around it, and the
simulator puts streams around it that break.
"""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, NamedTuple

from gateway.engine.model import INQUIRY_NUMBER_MIN, LEG_ID_BYTES, Answered, LegKind, LegOut
from gateway.links.frames import by_participant, not_sent

WINDOW: Final = 12_288
"""Places at one participant. Three quarters, the share of legs that move money, are more than the payments in flight at
a gateway by default (8,192)."""
WINDOW_MIN: Final = 4
"""Smallest window; with less, a share would be empty."""
SHARES: Final = 8
"""Number of shares in a window: one for reversals alone, one for reversals and inquiries, the rest for all."""
INQUIRY_SHARES: Final = 2
"""Most shares that unanswered inquiries may take."""
PLACE_US: Final = 60_000_000
"""Longest time that an unanswered leg keeps its place after it was last sent, in microseconds. Much longer than the
engine waits before it inquires, so that a slow participant is not sent more than its window."""
FRAME_LEGS_MAX: Final = 1000
"""Legs in one frame: some 100 KB."""

REVERSALS, INQUIRIES, MONEY = 0, 1, 2
"""Kinds of legs, in the order in which they leave."""
_KIND_OF: Final = dict.fromkeys(LegKind, MONEY) | {LegKind.REVERSAL: REVERSALS, LegKind.INQUIRY: INQUIRIES}


class Bounds(NamedTuple):
    """The limits of a window of some size."""

    total: int
    ordinary: int
    """By inquiries and legs that move money, together."""
    inquiries: int
    money: int


def bounds(window: int) -> Bounds:
    """The bounds of a window of this many places. Raises ValueError below WINDOW_MIN."""
    if window < WINDOW_MIN:
        raise ValueError(f"a participant's window has at least {WINDOW_MIN} places, not {window}")
    share = max(1, window // SHARES)
    return Bounds(window, window - share, INQUIRY_SHARES * share, window - 2 * share)


class _Place:
    """A leg's place."""

    __slots__ = ("asked_us", "kind", "leaving", "left", "leg")

    def __init__(self, leg: LegOut, kind: int, asked_us: int) -> None:
        self.leg = leg
        self.kind = kind
        self.asked_us = asked_us
        self.left = False
        """Whether the leg was ever sent on a stream."""
        self.leaving = True
        """Whether the leg waits to be sent."""


class _Window:
    """The legs of one connected participant."""

    def __init__(self, most: Bounds, installation: str) -> None:
        self.installation = installation
        """The installation of the participant; its streams take over from each other. Empty: none is known."""
        self.epoch = 0
        """Number of the current stream."""
        self.places: OrderedDict[bytes, _Place] = OrderedDict()
        """By leg id, the one sent longest ago first."""
        self.used = [0, 0, 0]
        """Places by kind."""
        self.waiting: tuple[OrderedDict[bytes, _Place], ...] = (OrderedDict(), OrderedDict(), OrderedDict())
        """Places whose leg is not sent yet, by kind and leg id."""
        self._most = most

    def offer(self, leg: LegOut, now_us: int, lost: list[Answered]) -> None:
        """Gives the leg a place, or adds it to `lost`."""
        kind = _KIND_OF[leg.kind]
        place = self.places.get(leg.leg_id)
        if place is not None:  # sent again: the former copy was given up
            place.leg, place.asked_us = leg, now_us
            self.places.move_to_end(leg.leg_id)
            self._wait(place)
            return
        if kind != MONEY:
            about = self.places.get(leg.original_leg_id)
            if about is not None and not about.left:
                self.free(about)
                lost.append(not_sent(about.leg))
                if kind == INQUIRIES:  # there is the answer
                    lost.append(not_sent(leg))
                    return
        if not self.has_room(kind):
            lost.append(not_sent(leg))
            return
        place = self.places[leg.leg_id] = _Place(leg, kind, now_us)
        self.used[kind] += 1
        self._wait(place)

    def _wait(self, place: _Place) -> None:
        place.leaving = True
        self.waiting[place.kind].setdefault(place.leg.leg_id, place)

    def has_room(self, kind: int) -> bool:
        """Whether there is a place for one more leg of this kind."""
        reversals, inquiries, money = self.used
        most = self._most
        if reversals + inquiries + money >= most.total:
            return False
        if kind == REVERSALS:
            return True
        if inquiries + money >= most.ordinary:
            return False
        return inquiries < most.inquiries if kind == INQUIRIES else money < most.money

    def free(self, place: _Place) -> None:
        """Frees the place; if its leg was not sent yet, it never is."""
        leg_id = place.leg.leg_id
        del self.places[leg_id]
        self.used[place.kind] -= 1
        if place.leaving:
            del self.waiting[place.kind][leg_id]

    def take(self, at_most: int) -> list[LegOut]:
        """Legs to send now, reversals first, then inquiries."""
        taken: list[LegOut] = []
        for waiting in self.waiting:
            while waiting and len(taken) < at_most:
                _, place = waiting.popitem(last=False)
                place.leaving, place.left = False, True
                taken.append(place.leg)
        return taken

    def answered(self, leg_id: bytes) -> bool:
        """Takes an answer to this leg id, whatever it says. Returns whether it was expected."""
        place = self.places.get(leg_id)
        if place is None or not place.left:
            return False
        self.free(place)
        if place.kind == MONEY:
            return True
        original = place.leg.original_leg_id
        self._give_up(original)
        if place.kind == REVERSALS and len(original) == LEG_ID_BYTES:
            number = original[-1] + INQUIRY_NUMBER_MIN
            if number < 256:
                self._give_up(original[:-1] + bytes([number]))
        return True

    def _give_up(self, leg_id: bytes) -> None:
        place = self.places.get(leg_id)
        if place is not None and place.left:
            self.free(place)

    def expire(self, now_us: int, lost: list[Answered]) -> None:
        """Frees expired places. The clock may jump, either way."""
        places = self.places
        while places:
            place = next(iter(places.values()))
            if abs(now_us - place.asked_us) < PLACE_US:
                return
            self.free(place)
            if not place.left:
                lost.append(not_sent(place.leg))


class Windows:
    """The windows of all participants that are connected."""

    def __init__(self, window: int = WINDOW, *, frame_legs_max: int = FRAME_LEGS_MAX) -> None:
        """`window`: places at each participant. Raises ValueError below WINDOW_MIN."""
        self.window = window
        self._most = bounds(window)
        self._frame_legs_max = frame_legs_max
        self._windows: dict[str, _Window] = {}
        self._epochs = itertools.count(1)

    def connect(self, participant: str, installation: str = "") -> int | None:
        """Opens a stream of this participant. It takes over from the former one of the same installation, with the legs
        that wait. Returns the stream's number (epoch); None, with no change, if a stream of another installation is
        open."""
        window = self._windows.get(participant)
        if window is None:
            window = self._windows[participant] = _Window(self._most, installation)
        elif not installation or installation != window.installation:
            return None
        else:
            for place in [place for place in window.places.values() if place.left and not place.leaving]:
                window.free(place)
        window.epoch = next(self._epochs)
        return window.epoch

    def disconnect(self, participant: str, epoch: int) -> list[Answered]:
        """Ends that stream. Returns the legs that were never sent on any stream, as NOT_SENT; nothing if another stream
        has taken over."""
        window = self._windows.get(participant)
        if window is None or window.epoch != epoch:
            return []
        del self._windows[participant]
        return [not_sent(place.leg) for place in window.places.values() if not place.left]

    def connected(self, participant: str) -> bool:
        """Whether a stream of this participant is open."""
        return participant in self._windows

    def offer(self, legs: Sequence[LegOut], now_us: int) -> tuple[list[Answered], list[str]]:
        """Queues legs for their participants' streams. Returns the legs that will certainly not be sent, as NOT_SENT
        (those without a stream or place, and earlier ones that still waited when these asked about them or undid them);
        and the participants for which something waits."""
        lost: list[Answered] = []
        woken: list[str] = []
        for participant, some in by_participant(legs).items():
            window = self._windows.get(participant)
            if window is None:
                lost.extend(not_sent(leg) for leg in some)
                continue
            window.expire(now_us, lost)
            for leg in some:
                window.offer(leg, now_us, lost)
            woken.append(participant)
        return lost, woken

    def take(self, participant: str, epoch: int) -> list[LegOut] | None:
        """Legs to send on that stream now, one frame at most; empty if none wait, None if the stream is no longer
        current and must end."""
        window = self._windows.get(participant)
        if window is None or window.epoch != epoch:
            return None
        return window.take(self._frame_legs_max)

    def answered(self, participant: str, epoch: int, leg_ids: Sequence[bytes]) -> int:
        """Takes answers that came on that stream. Returns how many were not expected."""
        waited_for = 0
        window = self._windows.get(participant)
        if window is not None and window.epoch == epoch:
            for leg_id in leg_ids:
                waited_for += window.answered(leg_id)
        return len(leg_ids) - waited_for

    def expire(self, now_us: int) -> list[Answered]:
        """Frees expired places. Returns those of their legs that were never sent, as NOT_SENT."""
        lost: list[Answered] = []
        for window in self._windows.values():
            window.expire(now_us, lost)
        return lost

    def taken(self, participant: str) -> int:
        """Places in use at a participant."""
        window = self._windows.get(participant)
        return 0 if window is None else sum(window.used)
