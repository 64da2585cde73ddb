"""Payments on the real core, journal, books and participants: money moves once, or comes back."""

import pytest

from gateway.engine.model import Leg, LegKind, LegOut, LegState
from gateway.engine.states import Event, State
from gateway.refunds import refund_of
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import Reason
from sandbox.participants.script import Behaviour, Plan, Script
from tests.gateway.engine.world import MERCHANT, OPENING_MINOR, TOKEN, World
from tokenization.interface import Condition

DECLINE = Plan(Behaviour.DECLINE, code="05")
LOSE_REQUEST = Plan(Behaviour.LOSE_REQUEST)
LOSE_ANSWER = Plan(Behaviour.LOSE_ANSWER)


def paid(world: World, amount_minor: int, acquirer: str = "acquirer-a") -> None:
    assert world.balance("issuer-a", TOKEN) == OPENING_MINOR - amount_minor
    assert world.balance(acquirer, MERCHANT) == amount_minor


def test_debit_then_credit(world: World) -> None:
    caller = world.create()
    world.run()
    assert caller.state is State.SUCCEEDED
    assert world.legs(caller.payment) == [
        ("DEBIT", "issuer-a", LegState.APPROVED),
        ("CREDIT", "acquirer-a", LegState.APPROVED),
    ]
    paid(world, 1000)
    world.check()


def test_nothing_is_told_before_it_is_durable(world: World) -> None:
    caller = world.create()
    world.tick()
    assert not caller.answered
    world.tick()
    assert not caller.answered
    world.tick()
    ((state,),) = world.rows("SELECT state FROM payments")
    assert caller.state is State.SUCCEEDED
    assert state == State.SUCCEEDED


def test_a_decline_takes_nothing(world: World) -> None:
    world.participants["issuer-a"].plan_next(DECLINE)
    caller = world.create()
    world.run()
    assert (caller.state, caller.payment.reason) == (State.DECLINED, "05")
    paid(world, 0)
    world.check()


def test_insufficient_funds_are_declined(world: World) -> None:
    caller = world.create(world.draft(OPENING_MINOR + 1))
    world.run()
    assert (caller.state, caller.payment.reason) == (State.DECLINED, "51")
    world.check()


@pytest.mark.parametrize("plan", [LOSE_ANSWER, Plan(Behaviour.LATE, late_us=1_200_000)])
def test_a_debit_without_answer_is_unknown_then_completed(world: World, plan: Plan) -> None:
    """Fault 7: silence is never guessed to be a failure."""
    world.participants["issuer-a"].plan_next(plan)
    impatient = world.create(reply_in_us=500_000)
    payment = world.draft()
    world.participants["issuer-a"].plan_next(plan)
    patient = world.create(payment)
    world.run()
    assert impatient.state is State.DEBITING
    assert patient.state is State.SUCCEEDED
    assert (State.DEBITING, Event.OVERDUE) in world.transitions
    paid(world, 2000)
    world.check()


def test_a_debit_never_received_is_reversed(world: World) -> None:
    world.participants["issuer-a"].plan_next(LOSE_REQUEST)
    caller = world.create()
    world.run()
    assert caller.state is State.FAILED
    assert ("REVERSAL", "issuer-a", LegState.APPROVED) in world.legs(caller.payment)
    paid(world, 0)
    world.check()


def test_an_issuer_that_stays_silent_is_reversed_when_it_is_back(world: World) -> None:
    """Fault 10: the reversal is repeated until it is answered, also across a kill."""
    world.lost = lambda leg: leg.participant == "issuer-a" and leg.kind != LegKind.DEBIT
    world.participants["issuer-a"].plan_next(LOSE_ANSWER)
    caller = world.create()
    world.run(seconds=120)
    assert not caller.answered
    assert world.core.book
    world.crash()
    world.run(seconds=120)
    world.check(settled=False)
    world.lost = lambda _: False
    world.run()
    paid(world, 0)
    world.check()


def test_a_down_issuer_is_declined_at_once(world: World) -> None:
    world.participants["issuer-a"].script = Script(down=True)
    caller = world.create()
    world.tick()
    world.tick()
    assert (caller.state, caller.payment.reason) == (State.DECLINED, "unavailable")
    world.check()


def test_a_declining_acquirer_is_replaced(world: World) -> None:
    world.participants["acquirer-a"].plan_next(DECLINE)
    caller = world.create()
    world.run()
    assert (caller.state, caller.payment.acquirer_id) == (State.SUCCEEDED, "acquirer-b")
    paid(world, 1000, "acquirer-b")
    assert world.balance("acquirer-a", MERCHANT) == 0
    world.check()


def test_a_down_acquirer_is_replaced(world: World) -> None:
    world.participants["acquirer-a"].script = Script(down=True)
    caller = world.create()
    world.run()
    assert (caller.state, caller.payment.acquirer_id) == (State.SUCCEEDED, "acquirer-b")
    world.check()


def test_when_all_acquirers_decline_the_payer_gets_the_money_back(world: World) -> None:
    for acquirer in ("acquirer-a", "acquirer-b"):
        world.participants[acquirer].plan_next(DECLINE)
    caller = world.create()
    world.run()
    assert (caller.state, caller.payment.reason) == (State.FAILED, "05")
    paid(world, 0)
    world.check()


def test_a_credit_whose_answer_was_lost_is_found_and_not_paid_again(world: World) -> None:
    """Fault 16: no failover past a leg of unknown fate."""
    world.participants["acquirer-a"].plan_next(LOSE_ANSWER)
    caller = world.create()
    world.run()
    assert (caller.state, caller.payment.acquirer_id) == (State.SUCCEEDED, "acquirer-a")
    paid(world, 1000)
    assert world.balance("acquirer-b", MERCHANT) == 0
    world.check()


def test_a_lost_credit_is_barred_before_the_next_acquirer_is_tried(world: World) -> None:
    """Fault 16 again: the late original finds its tombstone, and the merchant is paid once."""
    delayed: list[LegOut] = []

    def delay(leg: LegOut) -> bool:
        if leg.kind == LegKind.CREDIT and leg.participant == "acquirer-a":
            delayed.append(leg)
            return True
        return False

    world.lost = delay
    caller = world.create()
    world.run()
    assert (caller.state, caller.payment.acquirer_id) == (State.SUCCEEDED, "acquirer-b")
    world.lost = lambda _: False
    world.link.send(delayed, world.now_us)
    world.run()
    assert world.balance("acquirer-a", MERCHANT) == 0
    paid(world, 1000, "acquirer-b")
    world.check()


def test_a_silent_acquirer_holds_the_payment_until_it_answers(world: World) -> None:
    world.lost = lambda leg: leg.participant == "acquirer-a"
    caller = world.create(reply_in_us=20_000_000)
    world.run(seconds=60)
    assert caller.state is State.CREDIT_REVERSING
    assert world.balance("acquirer-b", MERCHANT) == 0
    world.lost = lambda _: False
    world.run()
    # By then the deadline has passed, so the money goes back instead of on.
    paid(world, 0)
    world.check()


def test_an_approval_after_its_reversal_is_undone(world: World) -> None:
    """Fault 8: the issuer answered the reversal, and did the debit all the same."""
    world.lost = lambda leg: leg.kind == LegKind.DEBIT
    caller = world.create()
    world.run()
    assert caller.state is State.FAILED
    payment_id = bytes.fromhex(caller.payment.payment_id.replace("-", ""))
    world.answer("issuer-a", payment_id + b"\x01", 1)
    world.run()
    assert world.legs(caller.payment)[-1] == ("REVERSAL", "issuer-a", LegState.APPROVED)
    assert len(world.legs(caller.payment)) == 3
    world.answer("issuer-a", payment_id + b"\x01", 1)  # a duplicate of it changes nothing
    world.run()
    assert len(world.legs(caller.payment)) == 3
    world.check()


def test_a_late_approval_survives_a_kill_before_it_is_undone(world: World) -> None:
    world.lost = lambda leg: leg.kind == LegKind.DEBIT
    caller = world.create()
    world.run()
    world.lost = lambda _: True
    world.answer("issuer-a", bytes.fromhex(caller.payment.payment_id.replace("-", "")) + b"\x01", 1)
    world.tick()
    world.crash()
    assert len(world.core.book) == 1
    world.lost = lambda _: False
    world.run()
    world.check()


def test_a_reversal_before_its_original_leaves_a_tombstone(world: World) -> None:
    """Fault 9: the debit is overtaken by its reversal."""
    delayed: list[LegOut] = []

    def delay(leg: LegOut) -> bool:
        if leg.kind == LegKind.DEBIT:
            delayed.append(leg)
            return True
        return False

    world.lost = delay
    payment = world.draft()
    caller = world.create(payment)
    world.tick()
    cancelled = world.cancel(payment.payment_id)
    world.run()
    assert (caller.state, cancelled.state) == (State.CANCELLED, State.CANCELLED)
    world.link.send(delayed, world.now_us)
    world.run()
    paid(world, 0)
    world.check()


def test_cancel_in_flight_gives_back(world: World) -> None:
    payment = world.draft()
    caller = world.create(payment)
    world.tick()
    cancelled = world.cancel(payment.payment_id)
    world.run()
    assert caller.state is State.CANCELLED
    assert cancelled.body == caller.body
    assert world.cancel(payment.payment_id) is not None
    world.run()
    paid(world, 0)
    world.check()


def test_cancel_after_the_end_is_refused(world: World) -> None:
    caller = world.create()
    world.run()
    late = world.cancel(bytes.fromhex(caller.payment.payment_id.replace("-", "")))
    unknown = world.cancel(bytes(16))
    world.run()
    assert late.error.name == "PAYMENT_FINAL"
    assert unknown.error.name == "PAYMENT_NOT_FOUND"
    paid(world, 1000)
    world.check()


def test_cancel_while_crediting_waits_for_the_credit(world: World) -> None:
    payment = world.draft()
    caller = world.create(payment)
    world.tick()
    world.tick()
    late = world.cancel(payment.payment_id)
    world.run()
    assert caller.state is State.SUCCEEDED
    assert late.error.name == "PAYMENT_FINAL"
    world.check()


def test_cancel_while_crediting_stops_failover(world: World) -> None:
    world.participants["acquirer-a"].plan_next(DECLINE)
    payment = world.draft()
    caller = world.create(payment)
    world.tick()
    world.lost = lambda leg: leg.kind == LegKind.CREDIT and leg.participant == "acquirer-b"
    world.tick()
    world.cancel(payment.payment_id)
    world.run()
    assert caller.state is State.FAILED
    assert world.balance("acquirer-b", MERCHANT) == 0
    world.check()


def test_a_deadline_undoes_what_is_not_complete(world: World) -> None:
    world.participants["issuer-a"].plan_next(Plan(Behaviour.LATE, late_us=5_000_000))
    caller = world.create(world.draft(deadline_us=world.now_us + 400_000))
    world.run()
    assert caller.state is State.EXPIRED
    paid(world, 0)
    world.check()


def test_one_key_many_times_has_one_effect(world: World) -> None:
    """Faults 2 and 4: in one batch, in flight, after the end, after a restart: the same answer, byte for byte."""
    first = world.create(world.draft(key="k"))
    same_batch = world.create(world.draft(key="k"))
    world.tick()
    in_flight = world.create(world.draft(key="k"))
    world.run()
    after = world.create(world.draft(key="k"))
    world.run()
    world.crash()
    restarted = world.create(world.draft(key="k"))
    world.run()
    refund = world.refund(first.payment, 400)
    world.run()
    assert refund.state is State.SUCCEEDED
    refunded = world.create(world.draft(key="k"))
    world.run()
    assert {caller.body for caller in (same_batch, in_flight, after, restarted, refunded)} == {first.body}
    paid(world, 600)
    world.check()


def test_a_repeat_in_the_tick_of_the_end_gets_the_end(world: World) -> None:
    first = world.create(world.draft(key="k"))
    world.tick()
    world.tick()
    assert not first.answered
    repeat = world.create(world.draft(key="k"))
    world.tick()
    assert first.state is State.SUCCEEDED
    assert repeat.body == first.body
    world.check()


def test_a_repeat_in_one_batch_shares_the_refusal(world: World) -> None:
    """The first of two equal requests in one tick is refused by a condition: the second is told the same."""
    cap = (Condition(b"r" * 16, 1000, 500, int(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT)),)
    callers = [world.create(world.draft(key="k", counters=cap)) for _ in range(2)]
    other = world.create(world.draft(400, "k"))
    world.run()
    assert [caller.error.name for caller in callers] == ["AMOUNT_ABOVE_LIMIT"] * 2
    assert other.error.name == "PAYMENT_IN_PROGRESS"
    world.check()


def test_a_key_with_another_payload_is_refused(world: World) -> None:
    """Fault 3."""
    first = world.create(world.draft(1000, "k"))
    same_batch = world.create(world.draft(2000, "k"))
    world.run()
    later = world.create(world.draft(3000, "k"))
    world.run()
    assert first.state is State.SUCCEEDED
    assert same_batch.error.name == later.error.name == "IDEMPOTENCY_KEY_REUSED"
    paid(world, 1000)
    world.check()


def test_one_code_has_one_winner(world: World) -> None:
    """Fault 19: in one batch, across ticks and across a restart."""
    code = (b"c" * 16,)
    callers = [world.create(world.draft(spends=code)) for _ in range(3)]
    world.run()
    callers.append(world.create(world.draft(spends=code)))
    world.run()
    world.crash()
    callers.append(world.create(world.draft(spends=code)))
    world.run()
    winners = [caller for caller in callers if not isinstance(caller.answers[0], Exception)]
    assert len(winners) == 1
    assert {caller.error.name for caller in callers if caller not in winners} == {"CODE_SPENT"}
    ((count,),) = world.rows("SELECT count(*) FROM payments")
    assert count == 1
    world.check()


def test_a_loser_of_a_code_leaves_nothing_behind(world: World) -> None:
    world.create(world.draft(spends=(b"a" * 16,)))
    world.run()
    loser = world.create(world.draft(spends=(b"b" * 16, b"a" * 16)))
    world.run()
    free = world.create(world.draft(spends=(b"b" * 16,)))
    world.run()
    assert loser.error.name == "CODE_SPENT"
    assert free.state is State.SUCCEEDED
    world.check()


def test_a_code_is_not_lost_to_a_payment_that_is_refused(world: World) -> None:
    """Two in one tick use one code; the first is refused by its limit, so the second has it."""
    cap = (Condition(b"q" * 16, 1000, 500, int(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT)),)
    refused = world.create(world.draft(spends=(b"o" * 16,), counters=cap))
    winner = world.create(world.draft(spends=(b"o" * 16,)))
    loser = world.create(world.draft(spends=(b"o" * 16,)))
    world.run()
    assert refused.error.name == "AMOUNT_ABOVE_LIMIT"
    assert winner.state is State.SUCCEEDED
    assert loser.error.name == "CODE_SPENT"
    world.check()


def test_a_counter_is_never_exceeded_and_is_given_back(world: World) -> None:
    """Fault 18: concurrent payments share a cap; those that fail free what they held."""
    cap = (Condition(b"d" * 16, 1000, 2500, int(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT)),)
    callers = [world.create(world.draft(counters=cap)) for _ in range(4)]
    world.run()
    states = [None if isinstance(c.answers[0], Exception) else c.state for c in callers]
    assert states == [State.SUCCEEDED, State.SUCCEEDED, None, None]
    other = (Condition(b"e" * 16, 1000, 1000, int(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT)),)
    world.participants["issuer-a"].plan_next(DECLINE)
    declined = world.create(world.draft(counters=other))
    world.run()
    again = world.create(world.draft(counters=other))
    world.run()
    assert (declined.state, again.state) == (State.DECLINED, State.SUCCEEDED)
    world.check()


def test_a_failing_second_counter_gives_the_first_back(world: World) -> None:
    reason = int(Reason.ERROR_REASON_TOKEN_BUDGET_SPENT)
    first, second = Condition(b"f" * 16, 1000, 1000, reason), Condition(b"g" * 16, 1000, 999, reason)
    refused = world.create(world.draft(counters=(first, second)))
    world.run()
    free = world.create(world.draft(counters=(first,)))
    world.run()
    assert refused.error.name == "TOKEN_BUDGET_SPENT"
    assert free.state is State.SUCCEEDED


def test_refunds_never_exceed_the_payment(world: World) -> None:
    """Fault 5: partial, racing in one tick, to the last cent."""
    caller = world.create()
    world.run()
    refunds = [world.refund(caller.payment, amount) for amount in (400, 400, 400)]
    world.run()
    assert [refund.state for refund in refunds[:2]] == [State.SUCCEEDED] * 2
    assert refunds[2].error.name == "REFUND_EXCEEDS_PAYMENT"
    assert refunds[2].error.fields["left_minor"] == "200"
    last = world.refund(caller.payment, 200)
    world.run()
    more = world.refund(caller.payment, 1)
    world.run()
    assert last.state is State.SUCCEEDED
    assert more.error.name == "REFUND_EXCEEDS_PAYMENT"
    paid(world, 0)
    world.check()


def test_a_refund_is_taken_from_the_acquirer_that_paid(world: World) -> None:
    """An earlier acquirer's late approval, not undone yet, is not what is refunded."""
    payment = world.draft(state=State.SUCCEEDED, attempt=1)
    payment.legs = [
        Leg(1, LegKind.DEBIT, "issuer-a", state=LegState.APPROVED),
        Leg(2, LegKind.CREDIT, "acquirer-a", state=LegState.APPROVED),
        Leg(3, LegKind.CREDIT, "acquirer-b", state=LegState.APPROVED),
        Leg(4, LegKind.REVERSAL, "acquirer-a", original=2),
    ]
    refund_id = world.ids.next(world.now_us)
    refund = refund_of(payment, payment.payment_id, pb.RefundPaymentRequest(), refund_id, world.now_us)
    assert (refund.debtor, refund.debit_original) == ("acquirer-b", payment.payment_id + b"\x03")


def test_a_refund_that_fails_frees_its_amount(world: World) -> None:
    caller = world.create()
    world.run()
    world.participants["acquirer-a"].plan_next(DECLINE)
    declined = world.refund(caller.payment, 1000)
    world.run()
    again = world.refund(caller.payment, 1000)
    world.run()
    assert (declined.state, again.state) == (State.DECLINED, State.SUCCEEDED)
    paid(world, 0)
    world.check()


def test_a_refund_that_the_issuer_refuses_returns_to_the_merchant(world: World) -> None:
    caller = world.create()
    world.run()
    world.participants["issuer-a"].plan_next(DECLINE)
    failed = world.refund(caller.payment, 1000)
    world.run()
    assert failed.state is State.FAILED
    paid(world, 1000)
    world.check()


def test_only_a_payment_that_succeeded_is_refunded(world: World) -> None:
    world.participants["issuer-a"].plan_next(DECLINE)
    declined = world.create()
    world.run()
    refused = world.refund(declined.payment, 1)
    world.run()
    assert refused.error.name == "PAYMENT_NOT_REFUNDABLE"
    world.check()


@pytest.mark.parametrize("ticks", range(8))
@pytest.mark.parametrize("deaf", [False, True])
def test_a_kill_after_any_tick_loses_nothing(world: World, ticks: int, deaf: bool) -> None:
    """Fault 11, between ticks; the messages of the last tick are sent or lost with the process."""
    caller = world.create()
    for done in range(ticks):
        world.lost = lambda _, last=done == ticks - 1: deaf and last
        world.tick()
    world.lost = lambda _: False
    acknowledged = caller.answered
    world.crash()
    world.run()
    world.check()
    if acknowledged:
        paid(world, 1000)


def test_duplicates_garbage_and_strangers_move_nothing(world: World) -> None:
    """Fault 15, and participants that answer twice, for a payment they do not know, or nonsense."""
    world.participants["issuer-a"].plan_next(Plan(Behaviour.DUPLICATE))
    caller = world.create()
    world.run()
    payment_id = bytes.fromhex(caller.payment.payment_id.replace("-", ""))
    for participant, leg_id, result in [
        ("issuer-a", payment_id + b"\x01", 1),
        ("acquirer-a", payment_id + b"\x02", 2),
        ("acquirer-b", payment_id + b"\x02", 1),
        ("issuer-a", payment_id + b"\x63", 1),
        ("issuer-a", payment_id, 1),
        ("issuer-a", bytes(17), 1),
        ("issuer-a", b"", 1),
        ("issuer-a", payment_id + b"\x01", 77),
        ("issuer-a", payment_id + b"\x81", 0),
    ]:
        world.answer(participant, leg_id, result)
    world.run()
    assert sum(world.anomalies.values()) >= 5
    assert len(world.legs(caller.payment)) == 2
    paid(world, 1000)
    world.check()


def test_an_unspecified_answer_is_not_taken_for_a_refusal(world: World) -> None:
    """Only the link may say that a leg was not sent; a participant's empty result means nothing."""
    world.participants["issuer-a"].plan_next(Plan(Behaviour.GARBAGE))
    caller = world.create()
    world.run()
    assert caller.state is State.SUCCEEDED
    paid(world, 1000)
    world.check()


def test_a_participant_that_declines_and_then_approves_is_undone(world: World) -> None:
    payment = world.draft()
    world.lost = lambda leg: leg.kind == LegKind.DEBIT
    caller = world.create(payment)
    world.tick()
    world.answer("issuer-a", payment.payment_id + b"\x01", 2, "05")
    world.answer("issuer-a", payment.payment_id + b"\x01", 1)
    world.run()
    assert caller.state is State.DECLINED
    assert world.legs(caller.payment)[-1] == ("REVERSAL", "issuer-a", LegState.APPROVED)
    world.check()
