"""Pre-authorisation: funds are held, then captured, voided or freed by time: one of them, and nothing is lost."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from gateway.engine.model import LegKind, LegState
from gateway.engine.states import FINAL, State
from gateway.refunds import refund_of
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import Reason
from sandbox.participants.books import holds, totals
from sandbox.participants.script import Behaviour, Plan
from tests.gateway.engine.world import MERCHANT, OPENING_MINOR, TOKEN, World
from tokenization.interface import Condition

HOUR_US = 3_600_000_000
LIMIT = b"limit".ljust(16)


def hold(world: World, amount_minor: int = 1000, **changes: Any) -> bytes:
    """A payment that is HELD, by its id."""
    payment = world.hold(amount_minor, **changes)
    caller = world.create(payment)
    world.run(seconds=60)
    assert caller.state is State.HELD
    assert not world.core.book
    return payment.payment_id


def spendable(world: World) -> int:
    return world.balance("issuer-a", TOKEN)


def used(world: World, counter: bytes = LIMIT) -> int:
    rows = world.rows("SELECT used FROM counters WHERE counter = ?", counter)
    return int(rows[0][0]) if rows else 0


def limits(amount_minor: int) -> dict[str, Any]:
    return {"counters": (Condition(LIMIT, amount_minor, 5_000, int(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT)),)}


def test_a_hold_takes_nothing_and_cannot_be_spent_elsewhere(world: World) -> None:
    payment_id = hold(world, OPENING_MINOR - 10)
    assert spendable(world) == 10
    assert totals(world.books.path) == {}
    assert holds(world.books.path) == {("issuer-a", payment_id, "CNY"): OPENING_MINOR - 10}
    other = world.create(world.draft(11))
    world.run()
    assert (other.state, other.payment.reason) == (State.DECLINED, "51")
    world.check()


@pytest.mark.parametrize(("asked", "taken"), [(0, 1000), (1000, 1000), (1, 1), (400, 400)])
def test_a_capture_takes_what_it_says_and_frees_the_rest(world: World, asked: int, taken: int) -> None:
    payment_id = hold(world, **limits(1000))
    assert used(world) == 1000
    caller = world.capture(payment_id, asked)
    world.run()
    payment = caller.payment
    assert (caller.state, payment.amount_minor, payment.authorised_minor) == (State.SUCCEEDED, taken, 1000)
    assert spendable(world) == OPENING_MINOR - taken
    assert world.balance("acquirer-a", MERCHANT) == taken
    assert used(world) == taken
    world.check()
    world.check()


def test_a_capture_is_done_once(world: World) -> None:
    payment_id = hold(world)
    first, same, other = (world.capture(payment_id, amount) for amount in (600, 600, 700))
    world.run()
    assert first.body == same.body
    assert other.error.reason == Reason.ERROR_REASON_CAPTURE_DIFFERS
    again, all_of_it = world.capture(payment_id, 600), world.capture(payment_id)
    world.run()
    assert again.body == first.body
    assert all_of_it.error.fields["captured_minor"] == "600"
    assert world.balance("acquirer-a", MERCHANT) == 600
    world.check()


def test_more_than_is_held_is_refused_and_the_hold_stays(world: World) -> None:
    payment_id = hold(world)
    caller = world.capture(payment_id, 1001)
    world.run()
    assert caller.error.reason == Reason.ERROR_REASON_CAPTURE_EXCEEDS_HOLD
    assert caller.error.fields["held_minor"] == "1000"
    assert world.journal.ended_holds(1 << 62, 10) == [payment_id]
    world.check()


def test_what_is_not_held_cannot_be_captured(world: World) -> None:
    paid = world.create(world.draft())
    world.run()
    for payment_id, reason in (
        (bytes.fromhex(paid.payment.payment_id.replace("-", "")), Reason.ERROR_REASON_PAYMENT_NOT_HELD),
        (bytes(16), Reason.ERROR_REASON_PAYMENT_NOT_FOUND),
    ):
        caller = world.capture(payment_id)
        world.run()
        assert caller.error.reason == reason
    assert world.balance("acquirer-a", MERCHANT) == 1000


def test_a_void_frees_the_hold_and_the_limit(world: World) -> None:
    payment_id = hold(world, **limits(1000))
    caller = world.cancel(payment_id)
    world.run()
    assert caller.state is State.CANCELLED
    assert (spendable(world), used(world)) == (OPENING_MINOR, 0)
    late = world.capture(payment_id)
    world.run()
    assert late.error.reason == Reason.ERROR_REASON_PAYMENT_NOT_HELD
    world.check()
    world.check()


def test_a_hold_ends_by_itself(world: World) -> None:
    payment_id = hold(world, lasts_us=HOUR_US, **limits(1000))
    world.now_us += HOUR_US - 61_000_000
    world.run(seconds=1)
    assert used(world) == 1000
    world.now_us += 62_000_000
    world.run()
    (payment,) = world.journal.load([payment_id])
    assert payment.state is State.EXPIRED
    assert (spendable(world), used(world)) == (OPENING_MINOR, 0)
    late = world.capture(payment_id)
    world.run()
    assert late.error.fields["state"] == "EXPIRED"
    world.check()


def test_the_deadline_is_for_reaching_the_hold(world: World) -> None:
    world.lost = lambda leg: leg.kind is LegKind.AUTHORISATION
    payment = world.hold()
    payment.deadline_us = world.now_us + 800_000
    caller = world.create(payment)
    world.run()
    assert caller.state is State.EXPIRED
    world.lost = lambda _: False
    payment_id = hold(world)
    world.now_us += 2 * HOUR_US
    caller = world.capture(payment_id)
    world.run()
    assert caller.state is State.SUCCEEDED


def test_a_declined_hold_is_declined(world: World) -> None:
    caller = world.create(world.hold(OPENING_MINOR + 1, **limits(1000)))
    world.run()
    assert (caller.state, caller.payment.reason, used(world)) == (State.DECLINED, "51", 0)


@pytest.mark.parametrize(
    ("behaviour", "state"),
    [
        (Behaviour.DECLINE, State.FAILED),
        (Behaviour.LOSE_REQUEST, State.FAILED),
        (Behaviour.LOSE_ANSWER, State.SUCCEEDED),
        (Behaviour.DUPLICATE, State.SUCCEEDED),
        (Behaviour.GARBAGE, State.SUCCEEDED),
        (Behaviour.LATE, State.SUCCEEDED),
    ],
)
def test_a_capture_of_unknown_fate_is_settled(world: World, behaviour: Behaviour, state: State) -> None:
    payment_id = hold(world, **limits(1000))
    world.participants["issuer-a"].plan_next(Plan(behaviour, late_us=1_200_000))
    caller = world.capture(payment_id, 300)
    world.run()
    assert caller.state is state
    taken = 300 if state is State.SUCCEEDED else 0
    assert (spendable(world), used(world)) == (OPENING_MINOR - taken, taken)
    world.check()
    world.check()


def test_a_capture_whose_credit_fails_is_undone_with_its_hold(world: World) -> None:
    payment_id = hold(world, **limits(1000))
    for acquirer in ("acquirer-a", "acquirer-b"):
        world.participants[acquirer].plan_next(Plan(Behaviour.DECLINE))
    caller = world.capture(payment_id, 300)
    world.run()
    assert caller.state is State.FAILED
    assert (spendable(world), used(world)) == (OPENING_MINOR, 0)
    assert [(kind, state) for kind, _, state in world.legs(caller.payment)] == [
        ("AUTHORISATION", LegState.REVERSED),
        ("CAPTURE", LegState.REVERSED),
        ("CREDIT", LegState.DECLINED),
        ("CREDIT", LegState.DECLINED),
        ("REVERSAL", LegState.APPROVED),
    ]
    world.check()
    world.check()


def test_a_captured_payment_is_refunded_up_to_what_was_captured(world: World) -> None:
    payment_id = hold(world)
    world.capture(payment_id, 600)
    world.run()
    (original,) = world.journal.load([payment_id])
    refund_id = world.ids.next(world.now_us)
    refund = refund_of(original, original.payment_id, pb.RefundPaymentRequest(), refund_id, world.now_us)
    refund.idempotency = refund.payment_id
    assert refund.amount_minor == 600
    caller = world.create(refund)
    world.run()
    assert caller.state is State.SUCCEEDED
    assert (spendable(world), world.balance("acquirer-a", MERCHANT)) == (OPENING_MINOR, 0)
    world.check()


def test_a_repeat_shows_the_payment_as_it_stands(world: World) -> None:
    payment = world.hold(key="k")
    first = world.create(payment)
    world.run()
    while_held = world.create(world.hold(key="k"))
    world.run()
    assert while_held.body == first.body
    world.lost = lambda leg: leg.kind is LegKind.CAPTURE
    captured = world.capture(payment.payment_id)
    world.tick()
    under_way = world.create(world.hold(key="k"))
    world.tick()
    assert not under_way.answered
    world.lost = lambda _: False
    world.run()
    assert captured.body == under_way.body


RACERS = ("capture", "void", "expiry")


@pytest.mark.parametrize("order", list(itertools.permutations(RACERS)), ids="-".join)
@pytest.mark.parametrize("lost", [None, LegKind.CAPTURE, LegKind.REVERSAL, LegKind.CREDIT])
@pytest.mark.parametrize("apart", [False, True])
def test_capture_void_and_expiry_race_and_one_wins(
    world: World, order: tuple[str, ...], lost: LegKind | None, apart: bool
) -> None:
    """All at once, in every order, in one tick or in one tick each, with messages lost on their way."""
    payment_id = hold(world, lasts_us=HOUR_US, **limits(1000))
    left = 2
    callers = {}

    def drop(leg: object) -> bool:
        nonlocal left
        if lost is None or leg.kind is not lost or not left:  # type: ignore[attr-defined]
            return False
        left -= 1
        return True

    world.lost = drop
    for racer in order:
        if racer == "capture":
            callers[racer] = world.capture(payment_id, 400, reply_in_us=10 * HOUR_US)
        elif racer == "void":
            callers[racer] = world.cancel(payment_id)
        else:
            world.now_us += HOUR_US + 1
        if apart:
            world.tick()
    world.run(seconds=7200)
    (payment,) = world.journal.load([payment_id])
    captured, cancelled = callers["capture"], callers["void"]
    assert payment.state in FINAL
    if payment.state is State.SUCCEEDED:
        assert captured.state is State.SUCCEEDED
        assert cancelled.error.reason == Reason.ERROR_REASON_PAYMENT_FINAL
    else:
        assert (spendable(world), used(world)) == (OPENING_MINOR, 0)
        assert isinstance(captured.answers[0], bytes) is (captured_at(world, payment_id) is not None)
    if payment.state is State.CANCELLED:
        assert cancelled.state is State.CANCELLED
    taken = 400 if payment.state is State.SUCCEEDED else 0
    assert world.balance("acquirer-a", MERCHANT) == taken
    assert used(world) == taken
    world.check()
    world.check()


def captured_at(world: World, payment_id: bytes) -> object:
    (payment,) = world.journal.load([payment_id])
    return next((leg for leg in payment.legs if leg.kind is LegKind.CAPTURE), None)


@pytest.mark.parametrize("after", range(6))
def test_a_crash_at_any_tick_of_a_capture_loses_nothing(world: World, after: int) -> None:
    payment_id = hold(world, **limits(1000))
    world.crash()
    assert not world.core.book, "what rests needs no memory"
    world.capture(payment_id, 400)
    for _ in range(after):
        world.tick()
    world.crash()
    world.run(seconds=120)
    (payment,) = world.journal.load([payment_id])
    expected = State.SUCCEEDED if after else State.HELD
    assert payment.state in (expected, State.FAILED)
    world.check()
    if after:
        world.check()
        assert used(world) == (400 if payment.state is State.SUCCEEDED else 0)


def test_many_holds_take_no_memory(world: World) -> None:
    for _ in range(300):
        world.create(world.hold(10))
    world.run()
    assert not world.core.book
    assert world.core.next_due_us() is None
    world.now_us += 25 * HOUR_US
    world.run()
    states = {payment.state for payment in world.journal.load(world.journal.ended_holds(1 << 62, 1000))}
    assert states == set()
    assert spendable(world) == OPENING_MINOR
    world.check()
