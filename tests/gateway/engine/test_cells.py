"""Every cell of the table is carried out on the real engine and journal: its state, its messages, its rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.engine.model import Kind, LegKind, Payment
from gateway.engine.states import FINAL, RESTING, TABLE, Action, Event, State
from gateway.engine.transitions import Outcome
from tests.gateway.engine.world import World

MESSAGES = {
    Action.SEND_CREDIT: LegKind.CREDIT,
    Action.INQUIRE_DEBIT: LegKind.INQUIRY,
    Action.INQUIRE_CREDIT: LegKind.INQUIRY,
    Action.REVERSE_DEBIT: LegKind.REVERSAL,
    Action.REVERSE_CREDIT: LegKind.REVERSAL,
    Action.UNDO: LegKind.REVERSAL,
    Action.SEND_CAPTURE: LegKind.CAPTURE,
}


def nothing_leaves(world: World) -> None:
    world.lost = lambda _: True


def debiting(world: World) -> Payment:
    nothing_leaves(world)
    payment = world.draft()
    world.create(payment)
    world.tick()
    return payment


def later(world: World, payment: Payment, state: State) -> Payment:
    for _ in range(50):
        if payment.state is state:
            return payment
        world.now_us = payment.due_us
        world.tick()
    raise AssertionError(f"{state.name} was not reached")


def crediting(world: World) -> Payment:
    payment = debiting(world)
    world.answer(payment.debtor, payment.payment_id + b"\x01", 1)
    world.tick()
    return payment


def authorising(world: World) -> Payment:
    nothing_leaves(world)
    payment = world.hold()
    world.create(payment)
    world.tick()
    return payment


def held(world: World) -> Payment:
    payment = authorising(world)
    world.answer(payment.debtor, payment.payment_id + b"\x01", 1)
    world.tick()
    return payment


def capturing(world: World) -> Payment:
    payment = held(world)
    world.capture(payment.payment_id)
    world.tick()
    return world.core.book[payment.payment_id]


def reversing(world: World) -> Payment:
    payment = debiting(world)
    world.cancel(payment.payment_id)
    world.tick()
    return payment


def ended(result: int, leg: int = 1) -> Callable[[World], Payment]:
    def make(world: World) -> Payment:
        payment = crediting(world) if leg == 2 else debiting(world)
        participant = payment.creditor if leg == 2 else payment.debtor
        world.answer(participant, payment.payment_id + bytes([leg]), result)
        world.tick()
        return payment

    return make


def undone(make: Callable[[World], Payment]) -> Callable[[World], Payment]:
    def finish(world: World) -> Payment:
        payment = make(world)
        world.answer(payment.debtor, payment.payment_id + bytes([len(payment.legs)]), 1)
        world.tick()
        return payment

    return finish


def expiring(world: World) -> Payment:
    payment = debiting(world)
    payment.deadline_us = payment.due_us = world.now_us
    world.core.timers.note(payment)
    return later(world, payment, State.REVERSING)


REACH: dict[State, Callable[[World], Payment]] = {
    State.DEBITING: debiting,
    State.DEBIT_UNKNOWN: lambda world: later(world, debiting(world), State.DEBIT_UNKNOWN),
    State.CREDITING: crediting,
    State.CREDIT_UNKNOWN: lambda world: later(world, crediting(world), State.CREDIT_UNKNOWN),
    State.CREDIT_REVERSING: lambda world: later(world, crediting(world), State.CREDIT_REVERSING),
    State.REVERSING: reversing,
    State.HELD: held,
    State.CAPTURING: capturing,
    State.CAPTURE_UNKNOWN: lambda world: later(world, capturing(world), State.CAPTURE_UNKNOWN),
    State.SUCCEEDED: ended(1, leg=2),
    State.DECLINED: ended(2),
    State.FAILED: undone(lambda world: later(world, debiting(world), State.REVERSING)),
    State.CANCELLED: undone(reversing),
    State.EXPIRED: undone(expiring),
}
CELLS = [(state, event) for state in State for event in Event]


@pytest.mark.parametrize(("state", "event"), CELLS, ids=[f"{s.name}-{e.name}" for s, e in CELLS])
def test_a_cell_does_what_it_says(tmp_path: Path, state: State, event: Event) -> None:
    world = World(tmp_path)
    payment = REACH[state](world)
    assert payment.state is state
    world.core.load([payment])
    rule = TABLE[state][event]
    goal = rule.goal or payment.goal
    attempt, open_reversals = payment.attempt, [leg for leg in payment.legs if leg.kind == LegKind.REVERSAL]
    out = Outcome(world.now_us)
    world.core._transitions.apply(payment, payment.legs[0], event, out)

    assert payment.state is (goal if rule.to is None else rule.to)
    sent = [leg.kind for leg in out.legs]
    expected = [MESSAGES[action] for action in rule.actions if action in MESSAGES]
    if Action.RESEND in rule.actions and state not in RESTING:
        expected = [LegKind.REVERSAL] * len([leg for leg in open_reversals if leg.state == 1])
        assert expected
    assert sent == expected
    assert payment.attempt == attempt + (Action.NEXT_ACQUIRER in rule.actions)
    assert bool(payment.ended_us) == (payment.state in FINAL)
    if Action.NO_FAILOVER in rule.actions:
        assert payment.failover is False
    if out.writes:
        world.journal.commit(out.writes)
    (stored,) = world.journal.load([payment.payment_id])
    assert stored.state is payment.state
    assert [(leg.number, leg.kind, leg.state) for leg in stored.legs] == [
        (leg.number, leg.kind, leg.state) for leg in payment.legs
    ]
    assert stored.kind is Kind.PAYMENT
    world.close()
