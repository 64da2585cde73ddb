"""Legs and answers as frames of participants' streams, and what a link says of a leg that never left."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from gateway.engine.model import LEG_ID_BYTES, NOT_SENT, Answered, LegOut
from hutong.participant.v1 import participant_pb2 as pb

CODE_CHARACTERS: Final = 2
"""Length of a response code."""
UNREADABLE_CODE: Final = "96"
"""Malfunction, as in ISO 8583: the participant gave something that is no response code."""


def not_sent(leg: LegOut) -> Answered:
    """The certainty that a leg had no effect."""
    return Answered(leg.participant, leg.leg_id, NOT_SENT, "")


def by_participant(legs: Sequence[LegOut]) -> dict[str, list[LegOut]]:
    """Legs with those of the same participant, in their order."""
    sent: defaultdict[str, list[LegOut]] = defaultdict(list)
    for leg in legs:
        sent[leg.participant].append(leg)
    return sent


def framed(legs: Sequence[LegOut]) -> pb.LegFrame:
    """Legs for one participant as a frame."""
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
    """A frame of answers as events; what is no response code counts as UNREADABLE_CODE."""
    return [Answered(participant, _leg_id(a.leg_id), int(a.result), _code(a.response_code)) for a in frame.answers]


def _leg_id(given: bytes) -> bytes:
    """A leg's id from outside; what is longer than one is none of ours, and is not kept whole."""
    return given if len(given) <= LEG_ID_BYTES else given[: LEG_ID_BYTES + 1]


def _code(text: str) -> str:
    """A response code from outside: it is journaled, and shown to callers and operators."""
    if not text or (len(text) == CODE_CHARACTERS and text.isascii() and text.isalnum()):
        return text
    return UNREADABLE_CODE
