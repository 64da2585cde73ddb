"""Magic amounts: the last four digits of an amount make the simulated network misbehave, as in payment sandboxes.

The table below is the whole of it. ¥90.51 (9051 fen), ¥190.51 and so on are declined for insufficient funds, for
example. 90xx speaks of the issuer's debit, or of the hold in its place, 91xx of the acquirer's credit, 92xx of
refunds, 93xx of the capture of what is held, by the amount that is captured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hutong.participant.v1 import participant_pb2 as pb
from hutong_contract.legs import Leg
from sandbox.participants.script import NORMAL, Behaviour, Plan

MODULUS: Final = 10_000
"""Magic looks at `amount_minor % MODULUS`."""
LATE_US: Final = 8_000_000
"""How late a late answer is."""
FIRST_CREDIT_LEG: Final = 2
"""Number of a payment's first credit: leg 1 is the debit, so a credit that fails over has a higher number."""
_LEG_NUMBER_AT: Final = 16


@dataclass(frozen=True, slots=True)
class Magic:
    """One line of the table."""

    kind: int
    """The leg kind that it applies to, hutong.participant.v1.LegKind."""
    plan: Plan
    text: str
    """The description for testers."""
    ends: str
    """The state that the payment, or the refund, ends in."""
    first_only: bool = False
    """Whether only the first acquirer tried misbehaves; not of payments that were held, whose legs count otherwise."""


_DEBIT, _CREDIT, _REFUND = pb.LEG_KIND_DEBIT, pb.LEG_KIND_CREDIT, pb.LEG_KIND_REFUND
_AUTHORISATION, _CAPTURE = pb.LEG_KIND_AUTHORISATION, pb.LEG_KIND_CAPTURE


def _decline(code: str) -> Plan:
    return Plan(Behaviour.DECLINE, code=code)


DECLINED, FAILED, SUCCEEDED = "DECLINED", "FAILED", "SUCCEEDED"

_LOSE_REQUEST = Plan(Behaviour.LOSE_REQUEST)
_LOSE_ANSWER = Plan(Behaviour.LOSE_ANSWER)
_LATE = Plan(Behaviour.LATE, late_us=LATE_US)
_TWICE = Plan(Behaviour.DUPLICATE)
_GARBAGE = Plan(Behaviour.GARBAGE)

MAGIC: Final[dict[int, Magic]] = {
    9005: Magic(_DEBIT, _decline("05"), "The issuer does not honour (05).", DECLINED),
    9014: Magic(_DEBIT, _decline("14"), "The issuer knows no such account (14).", DECLINED),
    9051: Magic(_DEBIT, _decline("51"), "The payer has not enough money (51).", DECLINED),
    9020: Magic(_DEBIT, _LOSE_REQUEST, "The debit never reaches the issuer: UNKNOWN, inquiry, nothing taken.", FAILED),
    9021: Magic(_DEBIT, _LOSE_ANSWER, "The debit is done and its answer lost: UNKNOWN, inquiry, completed.", SUCCEEDED),
    9022: Magic(_DEBIT, _LATE, "The issuer answers the debit 8 seconds late: UNKNOWN, inquiry, completed.", SUCCEEDED),
    9023: Magic(_DEBIT, _TWICE, "The issuer answers the debit twice: one effect.", SUCCEEDED),
    9024: Magic(_DEBIT, _GARBAGE, "The issuer answers the debit with garbage: UNKNOWN, inquiry, completed.", SUCCEEDED),
    9105: Magic(_CREDIT, _decline("05"), "Every acquirer refuses (05): the debit is reversed.", FAILED),
    9106: Magic(
        _CREDIT, _decline("05"), "The first acquirer refuses: the next one is tried.", SUCCEEDED, first_only=True
    ),
    9120: Magic(
        _CREDIT, _LOSE_REQUEST, "The credit reaches no acquirer: UNKNOWN, inquiry, the debit is reversed.", FAILED
    ),
    9121: Magic(_CREDIT, _LOSE_ANSWER, "The credit is done and its answer lost: UNKNOWN, inquiry.", SUCCEEDED),
    9122: Magic(_CREDIT, _LATE, "The acquirer answers the credit 8 seconds late: UNKNOWN, inquiry.", SUCCEEDED),
    9123: Magic(_CREDIT, _TWICE, "The acquirer answers the credit twice: one effect.", SUCCEEDED),
    9124: Magic(_CREDIT, _GARBAGE, "The acquirer answers the credit with garbage: UNKNOWN, inquiry.", SUCCEEDED),
    9205: Magic(_REFUND, _decline("05"), "The refund of this amount is refused (05).", DECLINED),
    9220: Magic(_REFUND, _LOSE_REQUEST, "The refund of this amount is lost on its way: UNKNOWN, inquiry.", FAILED),
    9221: Magic(_REFUND, _LOSE_ANSWER, "The refund is done and its answer lost: UNKNOWN, inquiry.", SUCCEEDED),
    9305: Magic(_CAPTURE, _decline("05"), "The capture of this amount is refused (05): the hold is freed.", FAILED),
    9320: Magic(
        _CAPTURE, _LOSE_REQUEST, "The capture never reaches the issuer: UNKNOWN, inquiry, the hold is freed.", FAILED
    ),
    9321: Magic(_CAPTURE, _LOSE_ANSWER, "The capture is done and its answer lost: UNKNOWN, inquiry.", SUCCEEDED),
}
"""Last four digits of the amount in minor units to what happens. The README shows this table as `table` writes it."""


def table() -> str:
    """The table in Markdown, for the README."""
    rows = (f"| {digits // 100}.{digits % 100:02d} | {one.text} | {one.ends} |" for digits, one in MAGIC.items())
    return "\n".join(("| amount ends in | what happens | ends |", "| --- | --- | --- |", *rows)) + "\n"


def plan_for(leg: Leg) -> Plan:
    """The plan for this leg by its amount: NORMAL for nearly all amounts."""
    magic = MAGIC.get(leg.amount_minor % MODULUS)
    kind = _DEBIT if leg.kind == _AUTHORISATION else leg.kind
    if magic is None or magic.kind != kind:
        return NORMAL
    if magic.first_only and leg.leg_id[_LEG_NUMBER_AT:] != bytes([FIRST_CREDIT_LEG]):
        return NORMAL
    return magic.plan
