"""Issuers and acquirers after the contract (`participant.proto`), in memory, and the lies that some of them tell.

Written for the simulator alone and from the contract: it uses none of the gateway's code. A participant does what it is
asked, even if that is wrong (a second credit, a refund beyond the payment): the witness must see that.

Work is done at once and synced later; answers are sent only after the sync. A restart loses what was not synced.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.engine.model import LegKind, LegOut, Result

DONE, DECLINED, UNDONE, BARRED = "done", "declined", "undone", "barred"
APPROVED_CODE: Final = "00"
_Contents = tuple[LegKind, bytes, int, str, str]


@dataclass(slots=True)
class Line:
    """A participant's record of one leg id."""

    participant: str
    leg_id: bytes
    state: str
    contents: _Contents | None = None
    """None for a leg that was barred before it arrived."""
    lied: bool = False
    """Whether the participant broke its word about this leg."""

    @property
    def kind(self) -> LegKind:
        """Only of legs that arrived."""
        assert self.contents is not None, "asked of legs that came only"
        return self.contents[0]

    @property
    def amount_minor(self) -> int:
        """Only of legs that arrived."""
        assert self.contents is not None, "asked of legs that came only"
        return self.contents[2]

    @property
    def original(self) -> bytes:
        """Only of legs that arrived."""
        assert self.contents is not None, "asked of legs that came only"
        return self.contents[1]


Answer = tuple[bytes, int, str]
"""Leg id, Result and response code."""
Watch = Callable[[Line, str], None]
"""Receives each leg whose state changed, and its former state."""
Complain = Callable[[str, str], None]
"""Receives violations by a gateway: a rule's name and a sentence."""


class Participant:
    """One issuer or acquirer."""

    def __init__(self, name: str, watch: Watch, complain: Complain) -> None:
        self.name = name
        self.lines: dict[bytes, Line] = {}
        self.down = False
        self.known_down = False
        """Whether the link knows that it is down."""
        self.sync_us = 0
        """Time from work to sync, in microseconds; 0: at once."""
        self._watch = watch
        self._complain = complain
        self._undo: list[tuple[bytes, Line | None]] = []
        self._answers: dict[bytes, Answer] = {}

    def receive(self, leg: LegOut, *, decline: str = "") -> Answer:
        """Carries out a leg, in memory; `decline` is the code with which to decline an original leg."""
        if leg.kind is LegKind.INQUIRY:
            return leg.leg_id, *self._inquire(leg.original_leg_id)
        contents = (leg.kind, leg.original_leg_id, leg.amount_minor, leg.currency, leg.account)
        known = self.lines.get(leg.leg_id)
        if known is not None and known.contents is not None:
            if known.contents != contents:
                self._complain("leg id used once", f"{self.name} got leg {leg.leg_id.hex()} with other contents")
                return leg.leg_id, Result.DECLINED, "94"
            return self._answers[leg.leg_id]
        if leg.kind is LegKind.REVERSAL:
            self._reverse(leg)
            self._set(Line(self.name, leg.leg_id, DONE, contents))
            return self._remember(leg.leg_id, Result.APPROVED, APPROVED_CODE)
        if known is not None:
            self._set(Line(self.name, leg.leg_id, BARRED, contents))
            return self._remember(leg.leg_id, Result.DECLINED, "57")
        if leg.kind is LegKind.CAPTURE and not decline:
            decline = self._refuse_capture(leg)
        if decline:
            self._set(Line(self.name, leg.leg_id, DECLINED, contents))
            return self._remember(leg.leg_id, Result.DECLINED, decline)
        self._set(Line(self.name, leg.leg_id, DONE, contents))
        return self._remember(leg.leg_id, Result.APPROVED, APPROVED_CODE)

    def break_word(self, leg: LegOut) -> Answer:
        """Carries out a leg that it declined, or that was barred."""
        contents = (leg.kind, leg.original_leg_id, leg.amount_minor, leg.currency, leg.account)
        self._set(Line(self.name, leg.leg_id, DONE, contents, lied=True))
        return self._remember(leg.leg_id, Result.APPROVED, APPROVED_CODE)

    def has_lied(self, leg_id: bytes) -> bool:
        """Whether it broke its word about this leg."""
        line = self.lines.get(leg_id)
        return line is not None and line.lied

    def reversed(self, leg_id: bytes) -> bool:
        """Whether a reversal of this leg arrived."""
        return any(
            line.contents is not None and line.kind is LegKind.REVERSAL and line.original == leg_id
            for line in self.lines.values()
        )

    def sync(self) -> None:
        """Makes everything so far durable."""
        self._undo.clear()

    def forget_unsynced(self) -> None:
        """Restarts: unsynced work is lost."""
        for leg_id, before in reversed(self._undo):
            if before is None:
                del self.lines[leg_id]
            else:
                self.lines[leg_id] = before
        self._undo.clear()

    def _remember(self, leg_id: bytes, result: Result, code: str) -> Answer:
        answer = self._answers[leg_id] = (leg_id, result, code)
        return answer

    def _reverse(self, leg: LegOut) -> None:
        original = self.lines.get(leg.original_leg_id)
        if original is None:
            self._set(Line(self.name, leg.original_leg_id, BARRED))
        elif original.contents is not None and original.kind is LegKind.REVERSAL:
            self._complain("no reversal is reversed", f"{self.name} was asked to reverse a reversal")
        elif original.state == DONE:
            self._set(dataclasses.replace(original, state=UNDONE))
            for capture in self._captures(original.leg_id):
                if capture.state == DONE:
                    self._set(dataclasses.replace(capture, state=UNDONE))

    def _refuse_capture(self, leg: LegOut) -> str:
        """The response code if the capture is not possible; empty if it is."""
        hold = self.lines.get(leg.original_leg_id)
        if hold is None or hold.contents is None or hold.kind is not LegKind.AUTHORISATION or hold.state != DONE:
            return "25"
        if leg.amount_minor > hold.amount_minor:
            self._complain("captures never exceed the hold", f"{self.name} is to capture {leg.amount_minor}")
            return "13"
        if any(line.state == DONE for line in self._captures(leg.original_leg_id)):
            self._complain("a hold is captured once", f"{self.name} got a second capture of {leg.leg_id.hex()}")
            return "12"
        return ""

    def _captures(self, hold: bytes) -> list[Line]:
        lines = [line for line in self.lines.values() if line.contents is not None and line.original == hold]
        return [line for line in lines if line.kind is LegKind.CAPTURE]

    def held_minor(self, hold: Line) -> int:
        """The amount that an authorisation still sets aside."""
        captured = any(line.state == DONE and not line.lied for line in self._captures(hold.leg_id))
        return hold.amount_minor if hold.state == DONE and not captured else 0

    def _inquire(self, leg_id: bytes) -> tuple[int, str]:
        line = self.lines.get(leg_id)
        if line is None:
            return Result.NOT_FOUND, "25"
        if line.state in (UNDONE, BARRED):
            return Result.REVERSED, APPROVED_CODE
        if line.state == DECLINED:
            return Result.DECLINED, self._answers[leg_id][2]
        return Result.APPROVED, APPROVED_CODE

    def _set(self, line: Line) -> None:
        before = self.lines.get(line.leg_id)
        self._undo.append((line.leg_id, before))
        self.lines[line.leg_id] = line
        self._watch(line, before.state if before is not None else "")
