"""A leg and its answer as participants in the gateway's own process see them: what `participant.proto` says, unpacked.

A `pb.Leg` of a frame is such a leg too.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol


class Leg(Protocol):
    """A leg: one request to a participant. The fields are those of hutong.participant.v1.Leg."""

    @property
    def leg_id(self) -> bytes:
        """The 16 bytes of the payment id, and one that numbers the leg."""
        ...

    @property
    def kind(self) -> int:
        """A LegKind."""
        ...

    @property
    def original_leg_id(self) -> bytes:
        """The leg that this one speaks of; empty where there is none."""
        ...

    @property
    def amount_minor(self) -> int:
        """In minor units of the currency."""
        ...

    @property
    def currency(self) -> str:
        """ISO 4217."""
        ...

    @property
    def account(self) -> str:
        """Token or merchant id; empty where the original says it."""
        ...

    @property
    def terminal_id(self) -> str:
        """Where the merchant has one."""
        ...


class Answer(NamedTuple):
    """A participant's answer to a leg. The fields are those of hutong.participant.v1.Answer."""

    leg_id: bytes
    result: int
    """hutong.participant.v1.AnswerResult"""
    response_code: str
