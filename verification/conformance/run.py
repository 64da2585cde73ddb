"""Runs the conformance suite on one participant that connects to it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from hutong.participant.v1 import participant_pb2 as pb
from sandbox.participants.ledger import Role
from verification.conformance import common_checks, issuer_checks
from verification.conformance.check import Check
from verification.conformance.peer import Peer
from verification.conformance.report import Outcome, Report, Verdict
from verification.conformance.session import (
    APPROVED,
    DECLINED,
    SETTLE_S,
    Inapplicable,
    Session,
    Subject,
    Unanswered,
    result_name,
)

CODE_CHARACTERS: Final = 2
STREAM_RULE: Final = "A stream begins with a Hello that has the participant's id and secret, then has answers alone."
ANSWERS_RULE: Final = (
    "Each leg that is sent gets one answer, the same each time, with a result and a code of two characters; no other "
    "leg gets one."
)
MONEY_RULE: Final = "What the account of an issuer has to spend can be seen, so that effects can."


def checks_of(role: Role) -> list[Check]:
    """The checks that a participant of this role is put through, in their order."""
    return [one for one in (*common_checks.CHECKS, *issuer_checks.CHECKS) if role in one.roles]


def conform(
    subject: Subject,
    peer: Peer,
    told: Callable[[Outcome], None] = lambda _: None,
    *,
    only: frozenset[str] = frozenset(),
) -> Report:
    """Puts a participant that connects to `peer` through all checks, or those named in `only`.

    `told` hears of each outcome as it comes. Ends in bounded time: each leg and each connection has its deadline, and
    nothing further is sent once the participant does not connect any more.
    """
    report = Report(subject.id, subject.role.name.lower())
    session = Session(subject, peer)

    def add(outcome: Outcome) -> None:
        report.outcomes.append(outcome)
        told(outcome)

    gone = ""
    for check in checks_of(subject.role):
        if only and check.name not in only:
            continue
        if gone:
            add(Outcome(check.name, check.rule, Verdict.SKIPPED, (gone,)))
            continue
        outcome = _run(check, session)
        add(outcome)
        if peer.stream(0.0) is None and peer.stream(subject.connect_s) is None:
            gone = f"not connected after {check.name!r}"
    for outcome in _at_the_end(session, connected=not gone):
        add(outcome)
    report.legs = sum(session.sent.values())
    return report


def _run(check: Check, session: Session) -> Outcome:
    session.findings = []
    skipped = ""
    try:
        check.run(session)
    except Unanswered as finding:
        session.say(str(finding))
    except Inapplicable as reason:
        skipped = str(reason)
    if session.findings:
        return Outcome(check.name, check.rule, Verdict.FAILED, tuple(dict.fromkeys(session.findings)))
    if skipped:
        return Outcome(check.name, check.rule, Verdict.SKIPPED, (skipped,))
    return Outcome(check.name, check.rule, Verdict.PASSED)


def _at_the_end(session: Session, *, connected: bool) -> list[Outcome]:
    """What is judged over the whole run."""
    time.sleep(SETTLE_S if connected else 0.0)  # for answers that should not come: nothing says when there are none
    outcomes = [
        _outcome("answers", ANSWERS_RULE, _answers(session)),
        _outcome("stream", STREAM_RULE, list(session.peer.breaches)),
    ]
    if session.unseen:
        verdict = Verdict.FAILED if session.unsteady else Verdict.SKIPPED
        outcomes.append(Outcome("money", MONEY_RULE, verdict, (session.unseen,)))
    return outcomes


def _outcome(name: str, rule: str, findings: list[str]) -> Outcome:
    return Outcome(name, rule, Verdict.FAILED if findings else Verdict.PASSED, tuple(findings))


def _answers(session: Session) -> list[str]:
    """Findings about answers as such, each kind with its number."""
    found: dict[str, int] = {}

    def count(finding: str) -> None:
        found[finding] = found.get(finding, 0) + 1

    for leg_id, answers in session.peer.every_answer().items():
        if leg_id not in session.sent and leg_id not in session.conflicts:
            count("answers to legs that were never sent")
            continue
        if leg_id in session.sent and len(answers) > session.sent[leg_id]:
            count("legs that were answered more often than they were sent")
        for answer in answers:
            if answer.result == pb.ANSWER_RESULT_UNSPECIFIED or answer.result not in pb.AnswerResult.values():
                count(f"answers without a result that is one ({result_name(answer.result)})")
            elif leg_id not in session.inquiries and answer.result not in (APPROVED, DECLINED):
                count(f"{result_name(answer.result)} to a leg that is no INQUIRY")
            if len(answer.response_code) != CODE_CHARACTERS or not answer.response_code.isascii():
                count("response codes that are not two characters")
        said = {(answer.result, answer.response_code) for answer in answers}
        if len(said) > 1 and leg_id not in session.inquiries and leg_id not in session.conflicts:
            count("legs that got different answers")
    for leg_id, number in session.overdue.items():
        if len(session.peer.answers(leg_id)) >= number:
            count(f"answers that came later than {session.subject.answer_s:g} s, when the gateway has inquired already")
    return [f"{number} {finding}" for finding, number in sorted(found.items())]
