"""What risk rules decided is kept by both journals, in the tick's own transaction: limits refuse exactly and say so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.engine.model import Decline, Payment
from gateway.engine.ports import Journal
from gateway.engine.states import State
from gateway.journal.conservation import examine_database
from gateway.journal.interface import Reader
from gateway.journal.sqlite_connection import connect
from hutong_contract.errors import HutongError, Reason
from tests.gateway.engine.world import Caller, World
from tests.gateway.journal.shared import NoCalls
from tokenization.interface import Condition

DAILY = int(Reason.ERROR_REASON_DAILY_LIMIT)
DAY = b"a day of a payer"
OWN = b"the key's own..."
JUDGED = '{"action":"approve"}'


def limited(world: World, amount: int, cap: int, **changes: Any) -> Payment:
    """A payment with a condition of its key's and one of a rule's."""
    own = Condition(OWN, 1, 1000, int(Reason.ERROR_REASON_TOKEN_BUDGET_SPENT))
    counters = (own, Condition(DAY, amount, cap, DAILY, "day C"))
    return world.draft(amount, counters=counters, risk=JUDGED, risk_id=-7, **changes)


def read(world: World, ask: Callable[[Reader], Any]) -> Any:
    reader = world.open_reader()
    try:
        return ask(reader)
    finally:
        reader.close()


def decline(world: World, payment: Payment) -> Caller:
    caller = Caller()
    error = HutongError(Reason.ERROR_REASON_RISK_DECLINED)
    world.waiting.append(Decline(payment, caller, error))
    return caller


def test_a_limit_refuses_exactly_and_is_recorded(world: World) -> None:
    """Four of 300 into 1,000: three are admitted, the fourth is refused, named, and in the list."""
    callers = [world.create(limited(world, 300, 1000)) for _ in range(4)]
    world.run()
    assert [caller.state for caller in callers[:3]] == [State.SUCCEEDED] * 3
    error = callers[3].error
    assert (error.name, error.fields["limit"], error.fields["most_minor"]) == ("DAILY_LIMIT", "day C", "1000")
    (row,) = read(world, lambda reader: reader.decisions(None, 10))
    assert (row.reason, row.limit, row.risk_id, row.judgement) == (DAILY, "day C", -7, JUDGED)
    assert error.fields["decision"].replace("-", "") == row.payment_id.hex()
    fits = world.create(limited(world, 100, 1000))
    world.run()
    assert fits.state is State.SUCCEEDED


def test_the_keys_own_condition_is_no_limit_of_a_rule(world: World) -> None:
    counters = (Condition(OWN, 2, 1, int(Reason.ERROR_REASON_TOKEN_BUDGET_SPENT)), Condition(DAY, 1, 9, DAILY, "day C"))
    caller = world.create(world.draft(counters=counters, risk=JUDGED, risk_id=-7))
    world.run()
    assert caller.error.name == "TOKEN_BUDGET_SPENT"
    assert read(world, lambda reader: reader.decisions(None, 10)) == []


def test_a_payment_that_does_not_succeed_gives_its_limit_back(world: World) -> None:
    world.lost = lambda _: True
    failed = world.create(limited(world, 900, 1000))
    world.tick()
    full = world.create(limited(world, 900, 1000))
    world.tick()
    assert full.error.name == "DAILY_LIMIT"
    world.lost = lambda _: False
    world.run()
    assert failed.state in (State.FAILED, State.EXPIRED)
    free = world.create(limited(world, 900, 1000))
    world.run()
    assert free.state is State.SUCCEEDED


def test_a_decline_is_answered_after_it_is_on_disk(world: World) -> None:
    before: list[int] = []
    caller = Caller()
    payment = world.draft(500, risk='{"score":90}', risk_id=9)

    class Told(Caller):
        def fail(self, error: HutongError) -> None:
            before.append(len(read(world, lambda reader: reader.decisions(None, 10))))
            caller.fail(error)

    world.waiting.append(Decline(payment, Told(), HutongError(Reason.ERROR_REASON_RISK_DECLINED)))
    world.run()
    assert before == [1]
    assert caller.error.name == "RISK_DECLINED"
    assert read(world, lambda reader: reader.payment(payment.payment_id)) is None


def test_decisions_are_listed_newest_first_by_pages(world: World) -> None:
    """Admitted ones of which a rule fired and refused ones, in one list; those of which none fired are not in it."""
    ids = []
    for number in range(9):
        world.now_us += 1_000_000
        payment = world.draft(100, risk=f'{{"n":{number}}}', risk_id=number + 1 if number % 3 else -1)
        (decline(world, payment) if number % 2 else world.create(payment))
        ids.append(payment)
        world.run()
    listed = [one.payment_id for one in ids if one.risk_id > 0 or ids.index(one) % 2]
    found = []
    before = None
    while page := read(world, lambda reader: reader.decisions(before, 2)):  # noqa: B023 - called at once
        assert len(page) <= 2
        found += page
        before = page[-1].payment_id
    assert [row.payment_id for row in found] == listed[::-1]
    assert {row.state for row in found if not row.reason} == {State.SUCCEEDED}
    for row in found:
        assert row.judgement == read(world, lambda reader: reader.payment(row.payment_id)).risk if not row.reason else 1  # noqa: B023


def test_a_payment_shows_its_judgement_also_after_a_crash(world: World) -> None:
    payment = world.draft(100, risk=JUDGED, risk_id=-7)
    world.create(payment)
    world.tick()
    world.crash()
    world.run()
    shown = read(world, lambda reader: reader.payment(payment.payment_id))
    assert (shown.risk, shown.risk_id, shown.state) == (JUDGED, -7, State.SUCCEEDED)


def test_a_decline_whose_tick_fails_is_not_told(world: World) -> None:
    """As with payments: the caller hears that the journal is away, and nothing is kept."""
    from gateway.engine.loop import Engine

    class Broken:
        def __init__(self, journal: Journal) -> None:
            self.journal = journal

        def commit(self, writes: Any) -> Any:
            from gateway.engine.ports import JournalUnavailableError

            raise JournalUnavailableError("full")

        def __getattr__(self, name: str) -> Any:
            return getattr(self.journal, name)

    engine = Engine(world.core, Broken(world.journal), world.link, NoCalls())  # type: ignore[arg-type]
    caller = Caller()
    engine.inbox.put([Decline(world.draft(), caller, HutongError(Reason.ERROR_REASON_RISK_DECLINED))])
    engine.tick()
    assert caller.error.name == "JOURNAL_UNAVAILABLE"
    assert read(world, lambda reader: reader.decisions(None, 10)) == []


def test_the_check_finds_a_limit_that_is_wrong(tmp_path: Path) -> None:
    """A counter that no longer says what its payments add up to, one that is gone, a judgement that is lost."""
    world = World(tmp_path)
    world.create(limited(world, 300, 1000))
    world.run()
    world.close()
    database = connect(tmp_path / "gateway.db")
    assert examine_database(database).conserved
    for damage, finding in (
        ("UPDATE counters SET used = used + 1", "has the value"),
        ("DELETE FROM counters", "is missing"),
        ("DELETE FROM judgements", "a risk judgement that does not exist"),
        ("INSERT INTO refusals SELECT payment_id, 0, 131, '', 0, '', 1, 'CNY', '', x'', x'', 1, '', '' FROM payments",
         "both as admitted and as refused"),
    ):  # fmt: skip
        database.execute("BEGIN")
        database.execute(damage)
        assert any(finding in text for text in examine_database(database).findings), damage
        database.execute("ROLLBACK")
    database.close()
