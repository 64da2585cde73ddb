"""Proves each fault of a script and each magic amount, and that answers wait for one shared durable commit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from hutong.participant.v1 import participant_pb2 as pb
from sandbox.participants import magic
from sandbox.participants.books import Books, BooksError, totals
from sandbox.participants.script import Behaviour, Latency, Plan, Script
from sandbox.participants.simulated import Participants, SimulatedAcquirer, SimulatedIssuer

TOKEN, MERCHANT = "6210000000000001", "m1001"
OPENING = 10_000_000
DECLINED, APPROVED, NOT_FOUND = pb.ANSWER_RESULT_DECLINED, pb.ANSWER_RESULT_APPROVED, pb.ANSWER_RESULT_NOT_FOUND


def leg_id(payment: int, number: int) -> bytes:
    return payment.to_bytes(16, "big") + bytes([number])


def debit(payment: int, amount: int = 100) -> pb.Leg:
    return pb.Leg(leg_id=leg_id(payment, 1), kind=pb.LEG_KIND_DEBIT, amount_minor=amount, currency="CNY", account=TOKEN)


def credit(payment: int, amount: int = 100, number: int = 2) -> pb.Leg:
    return pb.Leg(
        leg_id=leg_id(payment, number), kind=pb.LEG_KIND_CREDIT, amount_minor=amount, currency="CNY", account=MERCHANT
    )


def about(kind: int, original: pb.Leg, number: int) -> pb.Leg:
    return pb.Leg(
        leg_id=original.leg_id[:16] + bytes([number]),
        kind=kind,  # type: ignore[arg-type]
        original_leg_id=original.leg_id,
        amount_minor=original.amount_minor,
        currency="CNY",
    )


def inquiry(original: pb.Leg) -> pb.Leg:
    return about(pb.LEG_KIND_INQUIRY, original, 129)


@pytest.fixture
def books(tmp_path: Path) -> Iterator[Books]:
    books = Books(tmp_path)
    yield books
    books.close()


@pytest.fixture
def issuer(books: Books) -> SimulatedIssuer:
    issuer = SimulatedIssuer("issuer-a", books, seed=1)
    issuer.ledger.open_accounts([(TOKEN, "CNY", OPENING)])
    return issuer


@pytest.fixture
def acquirer(books: Books) -> SimulatedAcquirer:
    acquirer = SimulatedAcquirer("acquirer-a", books, seed=1)
    acquirer.ledger.open_accounts([(MERCHANT, "CNY", 0)])
    return acquirer


def ask(participant: SimulatedIssuer | SimulatedAcquirer, *legs: pb.Leg) -> list[tuple[int, bytes, int, str]]:
    """(delay, leg id, result, code) of every answer."""
    return [
        (delay, answer.leg_id, answer.result, answer.response_code)
        for delay, answers in participant.handle(legs, 1)
        for answer in answers
    ]


def taken(issuer: SimulatedIssuer) -> int:
    balance = issuer.ledger.balance_minor(TOKEN, "CNY")
    assert balance is not None
    return OPENING - balance


def test_legs_that_come_together_are_answered_together(issuer: SimulatedIssuer) -> None:
    answers = issuer.handle([debit(1), debit(2), debit(1)], 1)
    assert [(delay, len(together)) for delay, together in answers] == [(0, 3)]
    assert taken(issuer) == 200


# behaviour -> (money taken, answers as (delay, result) to the debit, result of a later inquiry)
EFFECTS = {
    Behaviour.NORMAL: (100, [(0, APPROVED)], APPROVED),
    Behaviour.DECLINE: (0, [(0, DECLINED)], DECLINED),
    Behaviour.LOSE_REQUEST: (0, [], NOT_FOUND),
    Behaviour.LOSE_ANSWER: (100, [], APPROVED),
    Behaviour.LATE: (100, [(7_000, APPROVED)], APPROVED),
    Behaviour.DUPLICATE: (100, [(0, APPROVED), (0, APPROVED)], APPROVED),
    Behaviour.GARBAGE: (100, [(0, APPROVED), (0, pb.ANSWER_RESULT_UNSPECIFIED)], APPROVED),
}


@pytest.mark.parametrize("behaviour", list(Behaviour))
def test_each_behaviour_planned_by_hand_applies_once(issuer: SimulatedIssuer, behaviour: Behaviour) -> None:
    money, answers, later = EFFECTS[behaviour]
    issuer.plan_next(Plan(behaviour, late_us=7_000))
    got = ask(issuer, debit(1))
    assert [(delay, result) for delay, _, result, _ in got] == answers
    assert taken(issuer) == money
    assert [result for _, _, result, _ in ask(issuer, inquiry(debit(1)))] == [later]
    assert [result for _, _, result, _ in ask(issuer, debit(2))] == [APPROVED]


def test_garbage_names_a_leg_that_does_not_exist(issuer: SimulatedIssuer) -> None:
    issuer.plan_next(Plan(Behaviour.GARBAGE))
    strange, own = ask(issuer, debit(1))
    assert strange[1] != leg_id(1, 1)
    assert own[1:] == (leg_id(1, 1), pb.ANSWER_RESULT_UNSPECIFIED, "ZZ")


@pytest.mark.parametrize("name", ["decline", "lose_request", "lose_answer", "late", "duplicate", "garbage"])
def test_a_script_can_be_swapped_at_run_time_and_leaves_reversals_and_inquiries_alone(
    issuer: SimulatedIssuer, name: str
) -> None:
    issuer.script = Script(**{name: 1.0}, late_us=7_000)  # type: ignore[arg-type]
    money, answers, later = EFFECTS[Behaviour(name)]
    assert [(delay, result) for delay, _, result, _ in ask(issuer, debit(1))] == answers
    assert taken(issuer) == money
    assert [result for _, _, result, _ in ask(issuer, inquiry(debit(1)))] == [later]
    reversal = about(pb.LEG_KIND_REVERSAL, debit(1), 2)
    assert [answer[1:] for answer in ask(issuer, reversal)] == [(leg_id(1, 2), APPROVED, "00")]
    assert taken(issuer) == 0
    issuer.script = Script()
    assert [result for _, _, result, _ in ask(issuer, debit(2))] == [APPROVED]


def test_a_script_may_hold_inquiries_too(issuer: SimulatedIssuer) -> None:
    issuer.script = Script(lose_request=1.0, kinds=frozenset({pb.LEG_KIND_INQUIRY}))
    assert len(ask(issuer, debit(1))) == 1
    assert ask(issuer, inquiry(debit(1))) == []


def test_probabilities_follow_the_seed(books: Books) -> None:
    def run(name: str) -> list[int]:
        issuer = SimulatedIssuer(name, books, seed=5, magic_amounts=False)
        issuer.ledger.open_accounts([(TOKEN, "CNY", OPENING)])
        issuer.script = Script(decline=0.3, lose_answer=0.2)
        return [len(ask(issuer, debit(number))) for number in range(300)]

    first = run("issuer-a")
    assert 20 < first.count(0) < 100
    assert first != run("issuer-b")


@pytest.mark.parametrize("bad", [{"decline": -0.1}, {"decline": 0.6, "late": 0.6}])
def test_impossible_probabilities_are_refused(bad: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="probabilities"):
        Script(**bad)  # type: ignore[arg-type]


def test_latency_is_log_normal_and_in_steps() -> None:
    rng = random.Random(1)
    latency = Latency(20_000, 0.5)
    drawn = sorted(latency.draw_us(rng) for _ in range(2_001))
    assert 18_000 <= drawn[1_000] <= 22_000
    assert 40_000 <= drawn[1_980] <= 90_000
    assert all(delay % 1_000 == 0 for delay in drawn)
    assert Latency(5_000).draw_us(rng) == 5_000
    assert Latency().draw_us(rng) == 0


def test_answers_with_different_delays_do_not_leave_together(issuer: SimulatedIssuer) -> None:
    issuer.script = Script(latency=Latency(20_000, 0.5))
    answers = issuer.handle([debit(number) for number in range(50)], 1)
    assert sum(len(together) for _, together in answers) == 50
    assert len(answers) > 5
    assert len({delay for delay, _ in answers}) == len(answers)


@pytest.mark.parametrize("digits", sorted(magic.MAGIC))
def test_every_magic_amount_does_what_the_table_says(
    issuer: SimulatedIssuer, acquirer: SimulatedAcquirer, digits: int
) -> None:
    line = magic.MAGIC[digits]
    amount = 20_000 + digits
    legs: dict[int, tuple[SimulatedIssuer | SimulatedAcquirer, pb.Leg]] = {
        pb.LEG_KIND_DEBIT: (issuer, debit(1, amount)),
        pb.LEG_KIND_CREDIT: (acquirer, credit(1, amount)),
    }
    for kind, (participant, leg) in legs.items():
        got = [(delay, result) for delay, _, result, _ in ask(participant, leg)]
        money, answers, later = EFFECTS[line.plan.behaviour if kind == line.kind else Behaviour.NORMAL]
        assert len(got) == len(answers)
        assert [result for _, result in got] == [result for _, result in answers]
        assert [result for _, _, result, _ in ask(participant, inquiry(leg))] == [later]
        if kind == line.kind and line.plan.behaviour is Behaviour.LATE:
            assert got[0][0] == magic.LATE_US
        if kind == pb.LEG_KIND_DEBIT:
            assert taken(issuer) == (amount if money else 0)
    if line.kind == pb.LEG_KIND_REFUND:
        refund = about(pb.LEG_KIND_REFUND, debit(1, amount), 9)
        expected = EFFECTS[line.plan.behaviour][1]
        assert [result for _, _, result, _ in ask(issuer, refund)] == [result for _, result in expected]


def test_magic_for_the_first_acquirer_only_spares_the_second(acquirer: SimulatedAcquirer) -> None:
    first, second = credit(1, 9106, number=2), credit(1, 9106, number=4)
    assert [result for _, _, result, _ in ask(acquirer, first, second)] == [DECLINED, APPROVED]


def test_magic_can_be_off(books: Books) -> None:
    issuer = SimulatedIssuer("issuer-a", books, magic_amounts=False)
    issuer.ledger.open_accounts([(TOKEN, "CNY", OPENING)])
    assert [result for _, _, result, _ in ask(issuer, debit(1, 9051))] == [APPROVED]


@pytest.fixture
def everybody(books: Books) -> Participants:
    issuer, acquirer = SimulatedIssuer("issuer-a", books), SimulatedAcquirer("acquirer-a", books)
    issuer.ledger.open_accounts([(TOKEN, "CNY", OPENING)])
    acquirer.ledger.open_accounts([(MERCHANT, "CNY", 0)])
    return Participants(books, [issuer, acquirer])


def legs(payment: int) -> dict[str, list[pb.Leg]]:
    return {"issuer-a": [debit(payment)], "acquirer-a": [credit(payment)]}


def test_several_participants_share_one_commit(everybody: Participants, monkeypatch: pytest.MonkeyPatch) -> None:
    commits: list[None] = []
    commit = everybody.books.commit

    def counted() -> None:
        commits.append(None)
        commit()

    monkeypatch.setattr(everybody.books, "commit", counted)
    answers = everybody.handle_many(legs(1), 5)
    assert sorted(name for name, _, _ in answers) == ["acquirer-a", "issuer-a"]
    assert len(commits) == 1
    net = totals(everybody.books.path)
    payment = leg_id(1, 1)[:16]
    assert net == {("issuer-a", payment, "CNY"): -100, ("acquirer-a", payment, "CNY"): 100}


def test_who_is_down_or_unknown_is_not_reachable_and_gets_nothing(everybody: Participants) -> None:
    everybody["acquirer-a"].script = Script(down=True)
    assert not everybody.reachable("acquirer-a")
    assert not everybody.reachable("acquirer-z")
    assert [name for name, _, _ in everybody.handle_many(legs(1), 5)] == ["issuer-a"]
    everybody["acquirer-a"].script = Script()
    assert everybody.reachable("acquirer-a")


def test_books_that_cannot_be_written_leave_no_trace_and_no_answer(
    everybody: Participants, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise BooksError("the disk is full")

    everybody.handle_many(legs(1), 5)
    balance = everybody["issuer-a"].ledger.balance_minor(TOKEN, "CNY")
    with monkeypatch.context() as broken:
        broken.setattr(everybody.books, "commit", fail)
        assert everybody.handle_many(legs(2), 6) == []
    assert everybody.failed_commits == 1
    assert everybody["issuer-a"].ledger.balance_minor(TOKEN, "CNY") == balance
    asked = {"issuer-a": [inquiry(debit(2)), inquiry(debit(1))]}
    ((_, _, answers),) = everybody.handle_many(asked, 7)
    assert [answer.result for answer in answers] == [NOT_FOUND, APPROVED]
    assert len(everybody.handle_many(legs(2), 8)) == 2
