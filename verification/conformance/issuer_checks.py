"""Checks of issuers alone: money that is not there, authorisations and captures."""

from __future__ import annotations

from typing import Final

from hutong_contract.limits import AMOUNT_MINOR_MAX
from sandbox.participants.ledger import Role
from verification.conformance.check import Check, check
from verification.conformance.session import (
    APPROVED,
    DECLINED,
    NOT_FOUND,
    REVERSED,
    UNSTEADY,
    Inapplicable,
    Session,
)


@check("funds", "A DEBIT of all that the account has is approved, one of more is declined with 51.", Role.ISSUER)
def funds(session: Session) -> None:
    """To the last minor unit."""
    before = session.money()
    if before is None:
        raise Inapplicable(session.unseen)
    session.expect(session.begin(before + 1), DECLINED, "DEBIT of 1 more than there is", "51")
    for much in (2**32 + 1, AMOUNT_MINOR_MAX):  # one that 32 bits do not hold, and the most that a gateway asks for
        if much > before:
            session.expect(session.begin(much), DECLINED, f"DEBIT of {much}")
    everything = session.approved(session.begin(before), "DEBIT of all that there is")
    session.expect(session.begin(1), DECLINED, "DEBIT of 1 where nothing is left", "51")
    session.expect(session.authorisation(1), DECLINED, "AUTHORISATION of 1 where nothing is left", "51")
    session.approved(session.reversal(everything), "REVERSAL of the DEBIT of everything")
    session.has(before, 0, "after its REVERSAL")


@check("authorisation", "An AUTHORISATION sets its amount aside until a CAPTURE or a REVERSAL.", Role.ISSUER)
def authorisation(session: Session) -> None:
    """Set aside once, freed once, barred by a reversal that came first."""
    before, amount = session.money(), session.subject.amount_minor
    if session.unsteady:
        session.say(UNSTEADY)
    hold = session.approved(session.authorisation(), "AUTHORISATION")
    session.approved(hold, "the same AUTHORISATION again")
    session.inquired(hold, APPROVED, "about an AUTHORISATION")
    session.has(before, -amount, "after the same AUTHORISATION twice")
    session.approved(session.reversal(hold), "REVERSAL of an AUTHORISATION")
    session.approved(session.reversal(hold), "a second REVERSAL of it")
    session.inquired(hold, REVERSED, "about an AUTHORISATION that was undone")
    session.has(before, 0, "after its REVERSAL, twice")
    late = session.authorisation()
    session.approved(session.reversal(late), "REVERSAL of an AUTHORISATION that has not come")
    session.expect(late, DECLINED, "that AUTHORISATION when it comes")
    session.has(before, 0, "after an AUTHORISATION that was barred")


@check("capture", "A CAPTURE takes up to what its AUTHORISATION set aside, once, and frees the rest.", Role.ISSUER)
def capture(session: Session) -> None:
    """A part; too much, a second one, and ones of nothing."""
    before, amount = session.money(), session.subject.amount_minor
    hold = session.approved(session.authorisation(), "AUTHORISATION")
    session.expect(session.capture(hold, amount + 1), DECLINED, "CAPTURE of more than is held")
    session.expect(session.capture(hold, 0), DECLINED, "CAPTURE of 0")
    session.has(before, -amount, "after CAPTUREs that were declined")
    part = amount // 2
    taken = session.approved(session.capture(hold, part), "CAPTURE of a part")
    session.approved(taken, "the same CAPTURE again")
    session.inquired(taken, APPROVED, "about a CAPTURE")
    session.has(before, -part, "after a CAPTURE of a part, sent twice")
    session.expect(session.capture(hold, 1), DECLINED, "a second CAPTURE of the same AUTHORISATION")
    session.has(before, -part, "after a second CAPTURE")
    never = session.authorisation()
    session.expect(session.capture(never), DECLINED, "CAPTURE of an AUTHORISATION that never came")
    debit = session.approved(session.begin(), "DEBIT")
    session.expect(session.capture(debit), DECLINED, "CAPTURE of a DEBIT")
    session.approved(session.reversal(debit), "its REVERSAL")
    session.approved(session.refund(taken, part), "REFUND of a CAPTURE")
    session.expect(session.refund(taken, 1), DECLINED, "REFUND of more than the CAPTURE took")
    session.has(before, 0, "after the REFUND of the CAPTURE")


@check(
    "undone capture",
    "A REVERSAL of an AUTHORISATION undoes its CAPTURE too, and a CAPTURE that comes later is declined.",
    Role.ISSUER,
)
def undone_capture(session: Session) -> None:
    """Reversed after the capture, and before it."""
    before, amount = session.money(), session.subject.amount_minor
    hold = session.approved(session.authorisation(), "AUTHORISATION")
    taken = session.approved(session.capture(hold, amount // 2), "CAPTURE of a part")
    session.approved(session.reversal(hold), "REVERSAL of an AUTHORISATION that was captured")
    session.has(before, 0, "after it")
    session.approved(session.reversal(hold), "a second REVERSAL of it")
    session.has(before, 0, "after a second one")
    session.expect(session.refund(taken, 1), DECLINED, "REFUND of a CAPTURE that was undone")
    hold = session.approved(session.authorisation(), "AUTHORISATION")
    late = session.capture(hold)
    session.approved(session.reversal(hold), "REVERSAL of an AUTHORISATION")
    session.expect(late, DECLINED, "CAPTURE after the REVERSAL of its AUTHORISATION")
    if session.ask(session.inquiry(late)).result == APPROVED:
        session.say("INQUIRY about that CAPTURE: APPROVED, although it was declined")
    session.has(before, 0, "after a CAPTURE that came too late")


@check("freed in one frame", "AUTHORISATION, CAPTURE and REVERSAL in one frame leave nothing behind.", Role.ISSUER)
def freed_in_one_frame(session: Session) -> None:
    """Whatever order the participant takes them in."""
    before = session.money()
    hold = session.authorisation()
    taken = session.capture(hold)
    answers = session.ask_all([hold, taken, session.reversal(hold)])
    session.judge(answers[2], APPROVED, "00", "REVERSAL in the frame of its AUTHORISATION")
    session.inquired(hold, REVERSED, "about the AUTHORISATION of that frame")
    session.has(before, 0, "after that frame")
    found = session.ask(session.inquiry(session.authorisation()))
    session.judge(found, NOT_FOUND, "", "INQUIRY about an AUTHORISATION that never came")


CHECKS: Final[tuple[Check, ...]] = (funds, authorisation, capture, undone_capture, freed_in_one_frame)
