"""Legs to the participant under test, and what is said of its answers."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from hutong.participant.v1 import participant_pb2 as pb
from hutong_contract.limits import AMOUNT_MINOR_MAX
from sandbox.participants.ledger import Role
from verification.conformance.peer import Peer, Stream

APPROVED: Final = pb.ANSWER_RESULT_APPROVED
DECLINED: Final = pb.ANSWER_RESULT_DECLINED
NOT_FOUND: Final = pb.ANSWER_RESULT_NOT_FOUND
REVERSED: Final = pb.ANSWER_RESULT_REVERSED
UNKNOWN_CURRENCY: Final = "XTS"
"""ISO 4217 keeps it for tests: nobody has an account in it."""
AMOUNT_MINOR_MIN: Final = 4
"""Less has no parts that could be refunded and captured."""
UNSTEADY: Final = "AUTHORISATIONs that are reversed at once change what the account has"
SETTLE_S: Final = 0.5
"""How long answers that should not come are waited for."""


class Unanswered(Exception):  # noqa: N818 - a condition
    """The participant did not answer, or is not connected: the check cannot go on. The text is the finding."""


class Unsteady(Exception):  # noqa: N818 - a condition
    """AUTHORISATIONs that are reversed at once do not leave an issuer's account as it was."""


class Inapplicable(Exception):  # noqa: N818 - a condition
    """The check cannot be made of this participant. The text says why."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The participant under test."""

    id: str
    role: Role
    account: str
    """A token of the issuer's, or a merchant of the acquirer's, that nobody else uses during the run."""
    currency: str = "CNY"
    amount_minor: int = 100
    """Of most legs, at least AMOUNT_MINOR_MIN. An issuer's account needs 20 times as much."""
    answer_s: float = 5.0
    """How long it may take to answer: as long as the gateway waits before it inquires."""
    connect_s: float = 60.0
    """How long it may take to connect, at first and after a stream ended."""
    restart: Callable[[], None] | None = None
    """Kills it without warning and starts it again; None: that is not checked."""


def name_of(kind: int) -> str:
    """A LegKind as people read it."""
    return pb.LegKind.Name(kind).removeprefix("LEG_KIND_") if kind in pb.LegKind.values() else f"kind {kind}"  # type: ignore[arg-type]


def result_name(result: int) -> str:
    """An AnswerResult as people read it."""
    known = result in pb.AnswerResult.values()
    return pb.AnswerResult.Name(result).removeprefix("ANSWER_RESULT_") if known else f"result {result}"  # type: ignore[arg-type]


class Session:
    """One check's view of the participant: it makes legs, sends them and collects findings."""

    def __init__(self, subject: Subject, peer: Peer) -> None:
        self.subject = subject
        self.peer = peer
        self.findings: list[str] = []
        self.sent: Counter[bytes] = Counter()
        """Leg id to the times it was sent, over all checks."""
        self.inquiries: set[bytes] = set()
        self.conflicts: set[bytes] = set()
        """Leg ids that were sent with several contents: their answers differ by design."""
        self.overdue: dict[bytes, int] = {}
        """Leg ids that were not answered in time, with the number of answers that there should have been."""
        self.unseen = ""
        """Why an issuer's money cannot be seen; empty where it can."""
        self.unsteady = False
        """Whether that is the participant's fault."""
        self._known: int | None = None

    # -- legs --------------------------------------------------------------------------------------------------

    def payment(self) -> bytes:
        """The id of a new payment, 16 bytes of the form of UUIDv7."""
        milliseconds = (time.time_ns() // 1_000_000).to_bytes(6, "big")
        rest = bytearray(os.urandom(10))
        rest[0] = rest[0] & 0x0F | 0x70
        rest[2] = rest[2] & 0x3F | 0x80
        return milliseconds + bytes(rest)

    def leg(
        self,
        kind: pb.LegKind.ValueType,
        *,
        original: pb.Leg | bytes | None = None,
        amount: int | None = None,
        account: str | None = None,
        currency: str = "",
        number: int = 1,
    ) -> pb.Leg:
        """A new leg as a gateway writes it. One that speaks of another belongs to the same payment, except a refund,
        which is a payment of its own."""
        original_id = original.leg_id if isinstance(original, pb.Leg) else original or b""
        same = original_id and kind != pb.LEG_KIND_REFUND
        payment = original_id[:16] if same else self.payment()
        if same:
            number = 2 + os.urandom(1)[0] % 250
            while payment + bytes([number]) in self.sent:
                number = 2 + os.urandom(1)[0] % 250
        begins = kind in (pb.LEG_KIND_DEBIT, pb.LEG_KIND_CREDIT, pb.LEG_KIND_AUTHORISATION)
        leg = pb.Leg(
            leg_id=payment + bytes([number]),
            kind=kind,
            original_leg_id=original_id,
            amount_minor=self.subject.amount_minor if amount is None else amount,
            currency=currency or self.subject.currency,
            account=(self.subject.account if account is None else account) if begins else "",
        )
        self.sent[leg.leg_id] += 0
        return leg

    def begin(self, amount: int | None = None, *, account: str | None = None, currency: str = "") -> pb.Leg:
        """A DEBIT for an issuer, a CREDIT for an acquirer."""
        kind = pb.LegKind.ValueType(self.subject.role.original_kind)
        return self.leg(kind, amount=amount, account=account, currency=currency)

    def authorisation(self, amount: int | None = None) -> pb.Leg:
        """An AUTHORISATION."""
        return self.leg(pb.LEG_KIND_AUTHORISATION, amount=amount)

    def capture(self, hold: pb.Leg | bytes, amount: int | None = None) -> pb.Leg:
        """A CAPTURE of an authorisation."""
        return self.leg(pb.LEG_KIND_CAPTURE, original=hold, amount=amount)

    def reversal(self, original: pb.Leg | bytes) -> pb.Leg:
        """A REVERSAL of any leg."""
        amount = original.amount_minor if isinstance(original, pb.Leg) else None
        return self.leg(pb.LEG_KIND_REVERSAL, original=original, amount=amount)

    def refund(self, original: pb.Leg | bytes, amount: int, currency: str = "") -> pb.Leg:
        """A REFUND."""
        return self.leg(pb.LEG_KIND_REFUND, original=original, amount=amount, currency=currency)

    def inquiry(self, original: pb.Leg | bytes) -> pb.Leg:
        """An INQUIRY."""
        amount = original.amount_minor if isinstance(original, pb.Leg) else None
        leg = self.leg(pb.LEG_KIND_INQUIRY, original=original, amount=amount)
        self.inquiries.add(leg.leg_id)
        return leg

    # -- sending -----------------------------------------------------------------------------------------------

    def stream(self) -> Stream:
        """The stream. Raises Unanswered where the participant does not connect."""
        stream = self.peer.stream(self.subject.connect_s)
        if stream is None:
            raise Unanswered(f"it did not connect within {self.subject.connect_s:g} s")
        return stream

    def post(self, legs: Sequence[pb.Leg]) -> dict[bytes, int]:
        """Sends a frame without waiting. Returns leg id to the number of answers that there will be."""
        stream = self.stream()
        expected: dict[bytes, int] = {}
        for leg in legs:
            before = expected.get(leg.leg_id, len(self.peer.answers(leg.leg_id)))
            expected[leg.leg_id] = before + 1
            self.sent[leg.leg_id] += 1
        stream.send(legs)
        return expected

    def ask_all(self, legs: Sequence[pb.Leg]) -> list[pb.Answer]:
        """Sends a frame and returns the last answer to each of its legs. Raises Unanswered."""
        expected = self.post(legs)
        if not self.peer.wait(expected, self.subject.answer_s):
            silent = [leg for leg in legs if len(self.peer.answers(leg.leg_id)) < expected[leg.leg_id]]
            if not silent:  # the answer came as the wait ended
                return [self.peer.answers(leg.leg_id)[-1] for leg in legs]
            self.overdue.update((leg.leg_id, expected[leg.leg_id]) for leg in silent)
            of_all = f" ({len(silent)} of {len(legs)} legs)" if len(legs) > 1 else ""
            raise Unanswered(f"no answer to {name_of(silent[0].kind)} within {self.subject.answer_s:g} s{of_all}")
        return [self.peer.answers(leg.leg_id)[-1] for leg in legs]

    def ask(self, leg: pb.Leg) -> pb.Answer:
        """Sends one leg and returns its answer. Raises Unanswered."""
        return self.ask_all([leg])[0]

    def reconnected(self, ended: Stream) -> None:
        """Waits for the next stream. Raises Unanswered."""
        if self.peer.stream(self.subject.connect_s, other_than=ended) is None:
            raise Unanswered(f"it did not connect again within {self.subject.connect_s:g} s")

    # -- judging -----------------------------------------------------------------------------------------------

    def say(self, finding: str) -> None:
        """Something is wrong."""
        self.findings.append(finding)

    def judge(self, answer: pb.Answer, result: int, code: str, when: str) -> None:
        """A finding unless an answer has this result, and this code where one is given."""
        if answer.result != result:
            self.say(
                f"{when}: {result_name(answer.result)} ({answer.response_code}), where {result_name(result)} is right"
            )
        elif code and answer.response_code != code:
            self.say(f"{when}: response code {answer.response_code!r}, where {code!r} is right")

    def expect(self, leg: pb.Leg, result: int, when: str, code: str = "") -> pb.Answer:
        """Asks, and judges the answer. `when` names the leg and its circumstances. Raises Unanswered."""
        answer = self.ask(leg)
        self.judge(answer, result, code, when)
        return answer

    def approved(self, leg: pb.Leg, when: str) -> pb.Leg:
        """Asks for what must be approved; returns the leg."""
        self.expect(leg, APPROVED, when, "00")
        return leg

    def inquired(self, original: pb.Leg | bytes, result: int, when: str) -> None:
        """Asks what became of a leg."""
        self.expect(self.inquiry(original), result, f"INQUIRY {when}")

    # -- what an issuer's account has --------------------------------------------------------------------------

    def fits(self, amount: int) -> bool:
        """Whether an issuer would set an amount aside now; frees it again. Raises Inapplicable where the account is not
        what decides."""
        if amount <= 0:
            return True
        hold = self.authorisation(amount)
        answer = self.ask(hold)
        self.approved(self.reversal(hold), "REVERSAL of an AUTHORISATION")
        if answer.result != APPROVED and answer.response_code != "51":
            raise Inapplicable(
                f"an AUTHORISATION of {amount} is declined with {answer.response_code!r} and not for want of money: "
                "name an account with less money than its limits"
            )
        return answer.result == APPROVED

    def available(self) -> int:
        """What the account has to spend, in minor units: the largest AUTHORISATION that is approved. Raises Unsteady
        where looking changes it."""
        if self.fits(AMOUNT_MINOR_MAX):
            raise Inapplicable("the account has a gateway's largest amount: name one that has less")
        low, high = 0, AMOUNT_MINOR_MAX
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.fits(middle) else (low, middle)
        if not self.fits(low) or self.fits(low + 1):
            raise Unsteady
        return low

    def money(self) -> int | None:
        """What an issuer's account has at the beginning of a check; None where that cannot be seen: at an acquirer, and
        where `fits` is not applicable."""
        if self.subject.role is not Role.ISSUER or self.unseen:
            return None
        try:
            if self._known is None or not self.fits(self._known) or self.fits(self._known + 1):
                self._known = self.available()
        except Inapplicable as reason:
            self.unseen = str(reason)
            return None
        except Unsteady:
            self.unsteady = True
            self.unseen = UNSTEADY
            self.say(UNSTEADY)
            return None
        return self._known

    def has(self, before: int | None, change: int, when: str) -> None:
        """A finding unless an issuer's account has what it had, and so much more (or less)."""
        if before is None:
            return
        expected = before + change
        if self.fits(expected) and not self.fits(expected + 1):
            return
        try:
            more = self.available() - expected
        except Unsteady:
            self.say(f"{when}: {UNSTEADY}")
        else:
            self.say(f"{when}: the account has {abs(more)} {'more' if more > 0 else 'less'} than it should have")
