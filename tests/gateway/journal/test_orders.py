"""An order that a merchant's dynamic code names is paid once, on both journals: whoever comes second is told the first
one's id, and only a payment that took nothing, or was refunded in full, opens the order again."""

from __future__ import annotations

import random
import threading
from pathlib import Path

import pytest

from gateway.engine.answer import id_text
from gateway.engine.conditions import Holder, order_is_open
from gateway.engine.model import Payment, Refused, Writes
from gateway.engine.ports import Journal
from gateway.engine.states import State
from gateway.journal.conservation import examine_database
from gateway.journal.postgres import PostgresJournal
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import Reason
from hutong_contract.secret import Secret
from tests.deadlines import CALL_S
from tests.gateway.engine.world import TOKEN, Caller, World

ORDER = b"order 1".ljust(16)
OTHER = b"order 2".ljust(16)
CODE = b"a code".ljust(16)
NOBODY = Secret("6200000000000000")
"""No issuer knows this account, so it declines."""
SEED = 1931
ROUNDS = 20


def pay(world: World, amount: int = 1000, **changes: object) -> Caller:
    caller = world.create(world.draft(amount, **{"order": ORDER, **changes}))  # type: ignore[arg-type]
    world.run()
    return caller


def refund(world: World, payment: pb.Payment, amount: int) -> Caller:
    caller = world.refund(payment, amount)
    world.run()
    return caller


def refused(caller: Caller, first: pb.Payment) -> bool:
    error = caller.error
    assert (error.name, error.fields) == ("ORDER_ALREADY_PAID", {"payment_id": first.payment_id})
    return True


def test_an_order_is_paid_once_and_the_second_is_told_who_did(world: World) -> None:
    first = pay(world)
    assert first.state is State.SUCCEEDED
    assert refused(pay(world), first.payment)
    assert refused(pay(world, 777), first.payment), "whatever the amount"
    assert pay(world, order=OTHER).state is State.SUCCEEDED
    assert pay(world, order=b"").state is State.SUCCEEDED
    assert pay(world, order=b"").state is State.SUCCEEDED, "a code without an order is paid as often as anybody likes"


def test_of_those_that_come_together_the_first_wins(world: World) -> None:
    callers = [world.create(world.draft(order=ORDER)) for _ in range(4)]
    world.run()
    assert callers[0].state is State.SUCCEEDED
    assert all(refused(caller, callers[0].payment) for caller in callers[1:])


def test_a_payment_that_is_under_way_or_holds_funds_has_the_order(world: World) -> None:
    held = world.create(world.hold(order=ORDER))
    world.run(seconds=5)
    assert held.state is State.HELD
    assert refused(pay(world), held.payment)
    world.cancel(bytes.fromhex(held.payment.payment_id.replace("-", "")))
    world.run()
    again = pay(world)
    assert again.state is State.SUCCEEDED
    world.lost = lambda _: True
    draft = world.draft(order=OTHER)
    world.create(draft)
    world.tick()
    late = world.create(world.draft(order=OTHER))
    world.tick()
    assert late.error.fields == {"payment_id": id_text(draft.payment_id)}


def test_a_payment_that_took_nothing_leaves_the_order_open(world: World) -> None:
    for _ in range(3):
        assert pay(world, account=NOBODY).state is State.DECLINED
    draft = world.draft(order=ORDER)
    caller = world.create(draft)
    world.tick()
    world.cancel(draft.payment_id)
    world.run()
    assert caller.state is State.CANCELLED
    last = pay(world)
    assert last.state is State.SUCCEEDED
    assert refused(pay(world), last.payment)


def test_a_refund_in_full_opens_the_order_and_a_part_does_not(world: World) -> None:
    first = pay(world)
    assert refund(world, first.payment, 400).state is State.SUCCEEDED
    assert refused(pay(world), first.payment)
    world.crash()
    assert refused(pay(world), first.payment)
    assert refund(world, first.payment, 600).state is State.SUCCEEDED
    world.crash()
    second = pay(world)
    assert second.state is State.SUCCEEDED
    assert refused(pay(world), second.payment)


def test_a_refund_that_is_under_way_or_failed_opens_nothing(world: World) -> None:
    first = pay(world)
    world.lost = lambda leg: leg.kind.name == "REFUND"
    under_way = world.refund(first.payment, 1000)
    world.tick()
    late = world.create(world.draft(order=ORDER))
    world.tick()
    assert refused(late, first.payment)
    world.run()
    assert under_way.state is State.FAILED
    world.lost = lambda _: False
    assert refused(pay(world), first.payment)


def test_nobody_has_an_order_by_a_payment_that_is_itself_refused(world: World) -> None:
    """One whose code was spent takes the order from nobody, in the same tick and in a later one."""
    assert pay(world, order=b"", spends=(CODE,)).state is State.SUCCEEDED
    spent, good = world.draft(order=ORDER, spends=(CODE,)), world.draft(order=ORDER)
    callers = [world.create(spent), world.create(good)]
    world.run()
    assert callers[0].error.name == "CODE_SPENT"
    assert callers[1].state is State.SUCCEEDED
    # Nor does it take the order over from one that failed, or let go of a code that others spent.
    assert pay(world, order=OTHER, spends=(b"another code".ljust(16),), account=NOBODY).state is State.DECLINED
    both = [world.create(world.draft(order=OTHER, spends=(CODE,))), world.create(world.draft(order=OTHER))]
    world.run()
    assert both[0].error.name == "CODE_SPENT"
    assert both[1].state is State.SUCCEEDED
    for code in (CODE, b"another code".ljust(16)):
        assert pay(world, order=b"", spends=(code,)).error.name == "CODE_SPENT"


def test_a_repeated_request_gets_its_own_answer(world: World) -> None:
    first = world.draft(key="k", order=ORDER)
    caller = world.create(first)
    world.run()
    again = world.create(world.draft(key="k", order=ORDER))
    world.run()
    assert again.body == caller.body


def test_whatever_happens_an_order_has_one_payment_that_counts(world: World) -> None:
    """Payments, refunds and failures as they come; beside them a model that knows who has each order."""
    rng = random.Random(SEED)
    orders = [bytes([number]) * 16 for number in range(4)]
    holder: dict[bytes, pb.Payment] = {}
    left: dict[str, int] = {}
    for _ in range(60):
        order = rng.choice(orders)
        if rng.random() < 0.6 or order not in holder:
            caller = pay(world, 100, order=order, account=NOBODY if rng.random() < 0.3 else Secret(TOKEN))
            if order in holder:
                assert refused(caller, holder[order])
            elif caller.state is State.SUCCEEDED:
                holder[order], left[caller.payment.payment_id] = caller.payment, 100
        else:
            payment = holder[order]
            amount = min(left[payment.payment_id], rng.choice((40, 60, 100)))
            assert refund(world, payment, amount).state is State.SUCCEEDED
            left[payment.payment_id] -= amount
            if not left[payment.payment_id]:
                del holder[order]
        if rng.random() < 0.1:
            world.crash()
    assert holder


@pytest.mark.parametrize("state", list(State))
def test_which_payments_leave_an_order_open(state: State) -> None:
    ended = state in (State.DECLINED, State.FAILED, State.CANCELLED, State.EXPIRED)
    assert order_is_open(Holder(ORDER, state, 100, 0)) is ended
    assert order_is_open(Holder(ORDER, state, 100, 99)) is ended
    assert order_is_open(Holder(ORDER, state, 100, 100)) is (ended or state is State.SUCCEEDED)


def at_once(journals: tuple[Journal, Journal], ticks: list[list[Payment]]) -> list[list[Refused | None]]:
    """Two engines commit at the same time."""
    verdicts: list[list[Refused | None]] = [[], []]
    start = threading.Barrier(2)

    def commit(engine: int) -> None:
        start.wait(CALL_S)
        verdicts[engine] = journals[engine].commit(Writes(admissions=ticks[engine]))

    threads = [threading.Thread(target=commit, args=(engine,)) for engine in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CALL_S)
        assert not thread.is_alive()
    return verdicts


def test_two_gateways_on_one_database_give_an_order_to_one_of_them(url: str, tmp_path: Path) -> None:
    """Each round both want the same orders, in opposite order: new ones, and ones whose payment has failed."""
    world = World(tmp_path, open_journal=lambda: PostgresJournal(url, 1, holder="one"))
    other = PostgresJournal(url, 2, holder="two")
    both = (world.journal, other)
    failed: list[Payment] = []
    for number in range(ROUNDS):
        orders = [bytes([number, part]) * 8 for part in range(3)]
        for attempt in range(2):  # the second: after whoever won has failed
            ticks = [
                [world.draft(100, order=order) for order in (orders if engine == 0 else reversed(orders))]
                for engine in range(2)
            ]
            verdicts = at_once(both, ticks)
            winners: dict[bytes, tuple[int, Payment]] = {}
            for engine in range(2):
                for payment, verdict in zip(ticks[engine], verdicts[engine], strict=True):
                    if verdict is None:
                        assert payment.order not in winners, f"round {number}.{attempt}: paid twice"
                        winners[payment.order] = (engine, payment)
            assert len(winners) == 3
            for engine in range(2):
                for payment, verdict in zip(ticks[engine], verdicts[engine], strict=True):
                    if verdict is not None:
                        assert verdict.reason == Reason.ERROR_REASON_ORDER_ALREADY_PAID
                        assert verdict.fields == {"payment_id": id_text(winners[payment.order][1].payment_id)}
            for engine, payment in winners.values():
                payment.state, payment.ended_us = State.DECLINED, world.now_us
                both[engine].commit(Writes(changed={payment.payment_id: payment}))
                failed.append(payment)
    assert len(failed) == ROUNDS * 6
    other.close()
    world.close()


def test_what_is_taken_over_leaves_a_journal_that_is_conserved(tmp_path: Path) -> None:
    world = World(tmp_path)
    assert pay(world, account=NOBODY).state is State.DECLINED
    first = pay(world)
    refund(world, first.payment, 1000)
    assert pay(world).state is State.SUCCEEDED
    world.check()
    assert not examine_database(world.journal._connection).findings  # type: ignore[attr-defined]
    world.close()
