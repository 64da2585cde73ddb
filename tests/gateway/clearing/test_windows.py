"""Settlement windows on the real engine and each journal: each success in exactly one, whatever happens around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.engine.model import Close
from gateway.engine.states import FINAL, TABLE, Action, State
from gateway.journal.sqlite_connection import connect
from sandbox.participants.script import Behaviour, Plan
from tests.gateway.engine.world import Caller, World


def close(world: World, number: int) -> Caller:
    caller = Caller()
    world.waiting.append(Close(number, caller))
    world.tick()
    assert caller.body == b""
    return caller


def windows(world: World) -> list[tuple[int, int, int]]:
    return world.rows("SELECT number, after_sequence, last_sequence FROM windows ORDER BY number")


def carried(world: World) -> list[tuple[int, str, int, int]]:
    return world.rows("SELECT number, currency, payments, amount_minor FROM carried ORDER BY number, currency")


def members(world: World) -> dict[bytes, int]:
    """Payment to its window, by the range that its success lies in."""
    rows = world.rows(
        "SELECT e.payment_id, w.number FROM events e JOIN windows w ON e.sequence > w.after_sequence "
        "AND e.sequence <= w.last_sequence WHERE e.state = 7"
    )
    assert len({key for key, _ in rows}) == len(rows)
    return {bytes(key): number for key, number in rows}


def test_windows_follow_each_other_and_a_repeat_closes_nothing(world: World) -> None:
    first = world.create()
    world.run()
    close(world, 1)
    second = world.create()
    world.run()
    close(world, 1)
    close(world, 3)
    assert len(windows(world)) == 1
    close(world, 2)
    (one, two) = windows(world)
    assert (one[1], one[2]) == (0, two[1])
    ids = [bytes.fromhex(caller.payment.payment_id.replace("-", "")) for caller in (first, second)]
    assert members(world) == {ids[0]: 1, ids[1]: 2}
    world.check(settled=not world.core.book)


def test_what_is_in_flight_is_carried_over_and_reported(world: World) -> None:
    world.participants["acquirer-a"].plan_next(Plan(Behaviour.LOSE_ANSWER))
    slow = world.create(world.draft(700))
    for _ in range(4):
        world.tick()
    assert not slow.answered
    close(world, 1)
    assert carried(world) == [(1, "CNY", 1, 700)]
    assert members(world) == {}
    world.check(settled=not world.core.book)
    world.run()
    close(world, 2)
    assert slow.state is State.SUCCEEDED
    assert list(members(world).values()) == [2]
    assert carried(world) == [(1, "CNY", 1, 700)]
    world.check(settled=not world.core.book)


def test_two_closings_in_one_tick_give_one_window(world: World) -> None:
    world.create()
    world.run()
    callers = [Caller(), Caller()]
    world.waiting.extend(Close(1, caller) for caller in callers)
    world.tick()
    assert [caller.body for caller in callers] == [b"", b""]
    assert len(windows(world)) == 1


def test_a_clock_that_was_set_back_does_not_end_a_window_before_the_one_before(world: World) -> None:
    close(world, 1)
    world.now_us -= 5_000_000
    close(world, 2)
    (times,) = zip(*world.rows("SELECT closed_us FROM windows"), strict=True)
    assert times[0] == times[1]
    world.check(settled=not world.core.book)


def test_nothing_leads_out_of_a_final_state() -> None:
    """So what is settled is never unsettled: only other legs, approved late, are undone."""
    for state in FINAL:
        assert {rule.to for rule in TABLE[state].values()} == {state}
        assert {action for rule in TABLE[state].values() for action in rule.actions} <= {
            Action.REFUSE_CANCEL,
            Action.UNDO,
            Action.RESEND,
        }


def test_late_words_about_a_settled_payment_move_nothing(world: World) -> None:
    caller = world.create()
    world.run()
    close(world, 1)
    payment_id = bytes.fromhex(caller.payment.payment_id.replace("-", ""))
    before = world.rows("SELECT account, sum(amount_minor) FROM postings GROUP BY account ORDER BY account")
    for result in (1, 2, 3, 4):
        world.answer("issuer-a", payment_id + b"\x01", result)
        world.answer("acquirer-a", payment_id + b"\x02", result)
        world.answer("acquirer-a", payment_id + b"\x82", result)
    world.cancel(payment_id)
    world.run()
    after = world.rows("SELECT account, sum(amount_minor) FROM postings GROUP BY account ORDER BY account")
    assert before == after
    world.check(settled=not world.core.book)


def test_a_late_credit_elsewhere_of_a_settled_payment_is_undone_without_touching_the_window(world: World) -> None:
    """The first acquirer refuses, the second pays, the first says later that it paid after all (a lie or a mistake)."""
    world.participants["acquirer-a"].plan_next(Plan(Behaviour.DECLINE, code="05"))
    caller = world.create()
    world.run()
    close(world, 1)
    payment_id = bytes.fromhex(caller.payment.payment_id.replace("-", ""))
    world.answer("acquirer-a", payment_id + b"\x02", 1)
    world.tick()
    close(world, 2)
    assert world.examine().findings == []  # while it is being undone
    world.run()
    close(world, 3)
    assert caller.payment.acquirer_id == "acquirer-b"
    assert members(world) == {payment_id: 1}
    world.check()


@pytest.mark.parametrize(
    ("damage", "finding"),
    [
        ("UPDATE windows SET last_sequence = last_sequence - 1 WHERE number = 1", "does not begin where"),
        ("DELETE FROM windows WHERE number = 1", "does not begin where"),
        ("UPDATE windows SET last_sequence = last_sequence + 9 WHERE number = 2", "ends after the last event"),
        ("INSERT INTO carried VALUES (1, 'CNY', 1, 100)", "carried over 1 payments, but 0 were"),
        (
            "INSERT INTO events (payment_id, state, time_us) SELECT payment_id, 7, 1 FROM payments LIMIT 1",
            "succeeded twice",
        ),
        ("UPDATE payments SET amount_minor = amount_minor + 1", "the payments of the window sum to"),
    ],
)
def test_the_check_finds_what_is_wrong_with_windows(tmp_path: Path, damage: str, finding: str) -> None:
    world = World(tmp_path)
    world.create()
    world.run()
    close(world, 1)
    world.create()
    world.run()
    close(world, 2)
    world.check(settled=not world.core.book)
    world.close()
    database = connect(tmp_path / "gateway.db")
    database.execute(damage)
    database.close()
    findings = world.examine().findings
    assert any(finding in found for found in findings), findings
