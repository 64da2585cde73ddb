"""Checks of issuers and acquirers alike. "The original" is a DEBIT at an issuer and a CREDIT at an acquirer."""

from __future__ import annotations

from typing import Final

import grpc

from hutong.participant.v1 import participant_pb2 as pb
from hutong_contract.limits import AMOUNT_MINOR_MAX
from sandbox.participants.ledger import Role
from verification.conformance.check import Check, check
from verification.conformance.session import (
    APPROVED,
    DECLINED,
    NOT_FOUND,
    REVERSED,
    UNKNOWN_CURRENCY,
    Inapplicable,
    Session,
    Unanswered,
    name_of,
    result_name,
)

BATCH: Final = 200
"""Legs of one frame."""
ACCOUNT_TIMES: Final = 20
"""An issuer's account needs so many times the amount of most legs."""
MALFORMED_ID: Final = b"abc"


def _taken(session: Session) -> int:
    """What the original does to the account."""
    return session.subject.role.sign * session.subject.amount_minor


@check("original", "A DEBIT (CREDIT) on an account that has the money is approved with 00, and moves its amount.")
def original(session: Session) -> None:
    """One leg, and back."""
    before = session.money()
    needed = max(BATCH, ACCOUNT_TIMES * session.subject.amount_minor)
    if before is not None and before < needed:
        session.say(f"the account has {before}, too little for these checks: it needs {needed}")
    leg = session.approved(session.begin(), "the original")
    session.has(before, _taken(session), "after the original")
    session.approved(session.reversal(leg), "its REVERSAL")
    session.has(before, 0, "after its REVERSAL")


@check("repeat", "The same leg again, in the same frame or later, gets the same answer and has no second effect.")
def repeat(session: Session) -> None:
    """A leg five times, and one that was declined twice."""
    before = session.money()
    leg = session.begin()
    for answer in session.ask_all([leg, leg, leg]):
        session.judge(answer, APPROVED, "00", "the original three times in one frame")
    session.approved(leg, "the original again")
    session.has(before, _taken(session), "after five times the same original")
    session.approved(leg, "the original once more")
    undo = session.approved(session.reversal(leg), "its REVERSAL")
    session.approved(undo, "the same REVERSAL again")
    session.has(before, 0, "after its REVERSAL, twice")
    refused = session.begin(account="no such account")
    session.expect(refused, DECLINED, "the original on an unknown account")
    session.expect(refused, DECLINED, "the same again")


@check("other contents", "A leg_id that comes again with other contents is declined with 94; the first leg stands.")
def other_contents(session: Session) -> None:
    """Another amount under the same id."""
    before = session.money()
    leg = session.approved(session.begin(), "the original")
    other = pb.Leg()
    other.CopyFrom(leg)
    other.amount_minor += 1
    session.conflicts.add(leg.leg_id)
    session.expect(other, DECLINED, "the same leg_id with another amount", "94")
    session.inquired(leg, APPROVED, "about the first leg")
    session.has(before, _taken(session), "after the same leg_id with another amount")
    session.approved(session.reversal(leg), "REVERSAL of the first leg")
    session.has(before, 0, "after the REVERSAL of the first leg")


@check("inquiry", "An INQUIRY says what became of its original, changes nothing, and is answered afresh each time.")
def inquiry(session: Session) -> None:
    """The same inquiry before its original, after it, and after its reversal."""
    before = session.money()
    leg = session.begin()
    asked = session.inquiry(leg)
    session.expect(asked, NOT_FOUND, "INQUIRY about a leg that never came", "25")
    session.approved(leg, "the original after an INQUIRY about it")
    session.expect(asked, APPROVED, "the same INQUIRY after the original")
    session.inquired(leg, APPROVED, "about it under another leg_id")
    session.has(before, _taken(session), "after INQUIRYs")
    session.approved(session.reversal(leg), "its REVERSAL")
    session.expect(asked, REVERSED, "the same INQUIRY after the REVERSAL")
    refused = session.begin(account="no such account")
    session.expect(refused, DECLINED, "the original on an unknown account")
    session.inquired(refused, DECLINED, "about a leg that was declined")
    session.has(before, 0, "after INQUIRYs about a leg that was undone")


@check("reversal", "A REVERSAL undoes its original once, and is approved as often as it comes, whatever became of it.")
def reversal(session: Session) -> None:
    """Two reversals of one leg, and one of a leg that was declined."""
    before = session.money()
    leg = session.approved(session.begin(), "the original")
    for which in ("a REVERSAL", "a second REVERSAL under another leg_id"):
        session.approved(session.reversal(leg), which)
        session.has(before, 0, f"after {which}")
    session.inquired(leg, REVERSED, "about a leg that was undone")
    refused = session.begin(account="no such account")
    session.expect(refused, DECLINED, "the original on an unknown account")
    session.approved(session.reversal(refused), "REVERSAL of a leg that was declined")
    session.has(before, 0, "after the REVERSAL of a leg that was declined")


@check(
    "tombstone", "A REVERSAL that comes before its original is approved, and the original is declined when it comes."
)
def tombstone(session: Session) -> None:
    """The reversal overtakes."""
    before = session.money()
    leg = session.begin()
    undo = session.approved(session.reversal(leg), "REVERSAL of a leg that has not come")
    session.inquired(leg, REVERSED, "about a leg that was barred")
    session.expect(leg, DECLINED, "the original after its REVERSAL")
    session.expect(leg, DECLINED, "the same again")
    session.approved(undo, "the same REVERSAL again")
    session.inquired(leg, REVERSED, "about a leg that came after it was barred")
    session.has(before, 0, "after a leg that was barred")


@check("one frame", "A leg and its REVERSAL in one frame, in either order, leave nothing behind.")
def one_frame(session: Session) -> None:
    """What a gateway sends whose deadline passed before its frame left."""
    before = session.money()
    for backwards in (False, True):
        leg = session.begin()
        legs = [leg, session.reversal(leg)]
        answers = session.ask_all(legs[::-1] if backwards else legs)
        session.judge(answers[0 if backwards else 1], APPROVED, "00", "REVERSAL in the frame of its original")
        session.inquired(leg, REVERSED, "about the original of that frame")
        session.has(before, 0, f"after a frame with the REVERSAL {'first' if backwards else 'last'}")


@check("refunds", "REFUNDs move parts of the original back, together never more than it moved; each is done once.")
def refunds(session: Session) -> None:
    """Two parts, too much, and what must be declined."""
    before, amount = session.money(), session.subject.amount_minor
    sign = session.subject.role.sign
    leg = session.approved(session.begin(), "the original")
    part = amount // 2
    first = session.approved(session.refund(leg, part), "REFUND of a part")
    session.approved(first, "the same REFUND again")
    session.has(before, sign * (amount - part), "after one REFUND, sent twice")
    session.expect(session.refund(leg, amount - part + 1), DECLINED, "REFUND of more than is left")
    session.expect(session.refund(leg, amount - part, UNKNOWN_CURRENCY), DECLINED, "REFUND in another currency")
    session.approved(session.refund(leg, amount - part), "REFUND of all that is left")
    session.expect(session.refund(leg, 1), DECLINED, "REFUND of what was given back in full")
    session.has(before, 0, "after REFUNDs of everything")
    session.inquired(first, APPROVED, "about a REFUND")
    session.approved(session.reversal(first), "REVERSAL of a REFUND")
    session.has(before, sign * part, "after the REVERSAL of a REFUND")
    session.approved(session.refund(leg, part), "REFUND of what a reversed REFUND has set free")
    session.has(before, 0, "after REFUNDs of everything again")
    session.expect(session.refund(session.begin(), part), DECLINED, "REFUND of a leg that never came")
    undone = session.approved(session.begin(), "another original")
    session.approved(session.reversal(undone), "its REVERSAL")
    session.expect(session.refund(undone, part), DECLINED, "REFUND of a leg that was undone")
    barred = session.refund(leg, part)
    session.approved(session.reversal(barred), "REVERSAL of a REFUND that has not come")
    session.expect(barred, DECLINED, "that REFUND when it comes")
    session.has(before, 0, "after REFUNDs that were declined")


@check("unknown account", "A leg on an account or in a currency that is not there is declined, the account with 14.")
def unknown_account(session: Session) -> None:
    """Neither an account nor a currency comes about by being named."""
    before = session.money()
    stranger = session.begin(account="no such account")
    session.expect(stranger, DECLINED, "the original on an unknown account", "14")
    session.inquired(stranger, DECLINED, "about it")
    session.expect(session.begin(currency=UNKNOWN_CURRENCY), DECLINED, f"the original in {UNKNOWN_CURRENCY}")
    session.has(before, 0, "after legs on unknown accounts")


@check("amounts", "Amounts of zero and below are declined; amounts up to 999,999,999,999 are exact.")
def amounts(session: Session) -> None:
    """Nothing, less than nothing, and the most."""
    before = session.money()
    for amount in (0, -1, -AMOUNT_MINOR_MAX):
        session.expect(session.begin(amount), DECLINED, f"the original of {amount}")
    leg = session.approved(session.begin(), "the original")
    session.expect(session.refund(leg, 0), DECLINED, "REFUND of 0")
    session.expect(session.refund(leg, -1), DECLINED, "REFUND of -1")
    session.approved(session.reversal(leg), "its REVERSAL")
    session.has(before, 0, "after amounts that were declined")
    if session.subject.role is Role.ACQUIRER:
        most = session.approved(session.begin(AMOUNT_MINOR_MAX), f"CREDIT of {AMOUNT_MINOR_MAX}")
        session.approved(session.refund(most, AMOUNT_MINOR_MAX - 1), f"REFUND of {AMOUNT_MINOR_MAX - 1} of them")
        session.expect(session.refund(most, 2), DECLINED, "REFUND of 2 where 1 is left")
        session.approved(session.refund(most, 1), "REFUND of 1 where 1 is left")


@check("nonsense", "What is no leg for this role is not approved, and the stream goes on.")
def nonsense(session: Session) -> None:
    """Kinds of the other role, kinds that are none, ids that are none."""
    before = session.money()
    issuer = session.subject.role is Role.ISSUER
    strange: list[pb.Leg] = [session.leg(pb.LEG_KIND_UNSPECIFIED), session.leg(99)]  # type: ignore[arg-type]
    strange.append(session.leg(pb.LEG_KIND_CREDIT if issuer else pb.LEG_KIND_DEBIT))
    if not issuer:
        strange.append(session.authorisation())
    strange.append(session.refund(MALFORMED_ID, session.subject.amount_minor))
    malformed = session.begin()
    malformed.leg_id = MALFORMED_ID
    session.conflicts.add(MALFORMED_ID)
    strange.append(malformed)
    for leg in strange:
        said = name_of(leg.kind) if leg is not malformed else f"a leg_id of {len(MALFORMED_ID)} bytes"
        session.post([leg])
        _still_there(session, said)
        for answer in session.peer.answers(leg.leg_id):
            if answer.result != DECLINED:
                session.say(f"{said}: {result_name(answer.result)} ({answer.response_code}), where DECLINED is right")
    undone = session.approved(session.begin(), "the original")
    undo = session.approved(session.reversal(undone), "its REVERSAL")
    session.expect(session.reversal(undo), DECLINED, "REVERSAL of a REVERSAL, which would pay again")
    session.has(before, 0, "after nonsense")


def _still_there(session: Session, after: str) -> None:
    try:
        session.inquired(session.begin(), NOT_FOUND, f"after {after}")
    except Unanswered:
        raise Unanswered(f"it answers nothing any more after {after}") from None


@check("batch", f"All of {BATCH} legs of one frame are answered, and each is done once.")
def batch(session: Session) -> None:
    """Small legs, and their reversals in one frame."""
    before = session.money()
    legs = [session.begin(1) for _ in range(BATCH)]
    for answer in session.ask_all(legs):
        session.judge(answer, APPROVED, "00", f"one of {BATCH} originals in one frame")
    session.has(before, session.subject.role.sign * BATCH, f"after {BATCH} originals of 1")
    for answer in session.ask_all([session.reversal(leg) for leg in legs]):
        session.judge(answer, APPROVED, "00", f"one of {BATCH} REVERSALs in one frame")
    session.has(before, 0, "after their REVERSALs")


@check("reconnect", "When a stream ends, cleanly or not, the participant connects again and remembers everything.")
def reconnect(session: Session) -> None:
    """As a gateway stops, and as one breaks."""
    before = session.money()
    leg, barred = session.approved(session.begin(), "the original"), session.begin()
    session.approved(session.reversal(barred), "REVERSAL of a leg that has not come")
    for status in (None, grpc.StatusCode.UNAVAILABLE):
        stream = session.stream()
        stream.end(status)
        session.reconnected(stream)
        session.inquired(leg, APPROVED, "on another stream, about a leg of an earlier one")
        session.inquired(barred, REVERSED, "on another stream, about a leg that was barred on an earlier one")
        session.approved(leg, "the same original on another stream")
    session.has(before, _taken(session), "after the same original on three streams")
    session.approved(session.reversal(leg), "its REVERSAL")
    session.has(before, 0, "after its REVERSAL")


@check("lost answer", "What was asked as the stream ended is done or not, once, and the participant says which.")
def lost_answer(session: Session) -> None:
    """Legs on a stream that ends at once: inquired about on the next one, then repeated, then reversed."""
    before = session.money()
    for _ in range(3):
        leg = session.begin()
        stream = session.stream()
        session.post([leg])
        stream.end(grpc.StatusCode.UNAVAILABLE)
        session.reconnected(stream)
        found = session.ask(session.inquiry(leg))
        if found.result not in (APPROVED, NOT_FOUND):
            session.say(f"INQUIRY about a leg whose stream ended: {result_name(found.result)} ({found.response_code})")
        session.approved(leg, "the same leg again on the next stream")
        session.has(before, _taken(session), "after the same leg on two streams")
        session.approved(session.reversal(leg), "its REVERSAL")
    session.has(before, 0, "after their REVERSALs")


@check("restart", "A participant that is killed and started again knows everything that it has answered.")
def restart(session: Session) -> None:
    """Killed right after an answer."""
    if session.subject.restart is None:
        raise Inapplicable("give --start, so that the participant can be killed and started again")
    before = session.money()
    legs = [session.begin(1) for _ in range(BATCH)]
    barred = session.begin()
    session.ask_all([*legs, session.reversal(barred)])
    stream = session.stream()
    session.subject.restart()
    session.reconnected(stream)
    for leg, answer in zip(legs, session.ask_all([session.inquiry(leg) for leg in legs]), strict=True):
        if answer.result != APPROVED:
            session.say(f"INQUIRY after a restart, about {name_of(leg.kind)}: {result_name(answer.result)}")
            break
    session.expect(barred, DECLINED, "the original after its REVERSAL and a restart")
    for answer in session.ask_all(legs):
        session.judge(answer, APPROVED, "00", "the same leg again after a restart")
    session.has(before, session.subject.role.sign * BATCH, "after the same legs before and after a restart")
    session.ask_all([session.reversal(leg) for leg in legs])
    session.has(before, 0, "after their REVERSALs")


CHECKS: Final[tuple[Check, ...]] = (
    original,
    repeat,
    other_contents,
    inquiry,
    reversal,
    tombstone,
    one_frame,
    refunds,
    unknown_account,
    amounts,
    nonsense,
    batch,
    reconnect,
    lost_answer,
    restart,
)
