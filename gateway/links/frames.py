"""Converts between legs and frames of participants' streams; and the event for a leg that was never sent."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from gateway.engine.model import LEG_ID_BYTES, NOT_SENT, Answered, LegOut
from hutong.participant.v1 import participant_pb2 as pb

CODE_CHARACTERS: Final = 2
"""Length of a response code."""
UNREADABLE_CODE: Final = "96"
"""Response code for an answer without a valid one: malfunction, as in ISO 8583."""


def not_sent(leg: LegOut) -> Answered:
    """The event that a leg was certainly not sent, so it had no effect."""
    return Answered(leg.participant, leg.leg_id, NOT_SENT, "")


def by_participant(legs: Sequence[LegOut]) -> dict[str, list[LegOut]]:
    """Groups legs by participant, in their order."""
    sent: defaultdict[str, list[LegOut]] = defaultdict(list)
    for leg in legs:
        sent[leg.participant].append(leg)
    return sent


def framed(legs: Sequence[LegOut]) -> pb.LegFrame:
    """A frame of legs for one participant."""
    frame = pb.LegFrame()
    for leg in legs:
        # An unset field costs nothing; an empty one as much as a full one.
        if leg.original_leg_id:
            frame.legs.add(
                leg_id=leg.leg_id,
                kind=leg.kind.real,
                original_leg_id=leg.original_leg_id,
                amount_minor=leg.amount_minor,
                currency=leg.currency,
            )
        else:
            frame.legs.add(
                leg_id=leg.leg_id,
                kind=leg.kind.real,
                amount_minor=leg.amount_minor,
                currency=leg.currency,
                account=leg.account,
                terminal_id=leg.terminal_id,
            )
    return frame


def answered(participant: str, frame: pb.AnswerFrame) -> list[Answered]:
    """A frame of answers as events. An invalid response code becomes UNREADABLE_CODE."""
    return [Answered(participant, _leg_id(a.leg_id), int(a.result), _code(a.response_code)) for a in frame.answers]


def _leg_id(given: bytes) -> bytes:
    """A leg's id from outside. A longer one is not ours, and is cut."""
    return given if len(given) <= LEG_ID_BYTES else given[: LEG_ID_BYTES + 1]


def _code(text: str) -> str:
    """A response code from outside. It is stored in the journal and shown to callers and operators."""
    if not text or (len(text) == CODE_CHARACTERS and text.isascii() and text.isalnum()):
        return text
    return UNREADABLE_CODE
