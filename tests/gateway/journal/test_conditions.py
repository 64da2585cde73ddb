"""What SQLite decides for a whole tick at once is what the rule decides, payment by payment."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.engine.conditions import Decisions, Holder, Original, refund_refusal
from gateway.engine.model import Kind, LegState, Payment, Refused, Writes, first_leg
from gateway.engine.states import State
from gateway.journal.sqlite import SqliteJournal
from hutong_contract.errors import Reason
from tokenization.interface import Condition

NOW_US: Final = 1_790_000_000_000_000
LIMIT: Final = int(Reason.ERROR_REASON_DAILY_LIMIT)
BUDGET: Final = int(Reason.ERROR_REASON_TOKEN_BUDGET_SPENT)
COUNTERS: Final = [bytes([number]) * 16 for number in range(4)]
SPENDS: Final = [bytes([100 + number]) * 16 for number in range(4)]
ORDERS: Final = [bytes([200 + number]) * 16 for number in range(2)]
ORIGINALS: Final = 3
ORIGINAL_MINOR: Final = 100


def payment(number: int, **named: object) -> Payment:
    made = Payment(
        payment_id=number.to_bytes(16, "big"),
        kind=Kind.PAYMENT,
        amount_minor=1,
        currency="CNY",
        debtor="issuer-a",
        creditors=("acquirer-a",),
        created_us=NOW_US,
        deadline_us=NOW_US + 1,
        idempotency=number.to_bytes(16, "little"),
        fingerprint=bytes(16),
        spend_reason=Reason.ERROR_REASON_CODE_SPENT,
    )
    for name, value in named.items():
        setattr(made, name, value)
    return made


@dataclass
class Model:
    """The facts, kept beside the journal, and decided on by the rule alone."""

    owners: dict[bytes, bytes] = field(default_factory=dict)
    used: dict[bytes, int] = field(default_factory=dict)
    originals: dict[bytes, Original] = field(default_factory=dict)
    failed: set[bytes] = field(default_factory=set)

    def decide(self, tick: list[Payment]) -> Decisions:
        turns = Decisions(tick)
        turns.refunds(self.originals)
        holders = {
            order: Holder(owner, State.FAILED if owner in self.failed else State.DEBITING, 1, 0)
            for order in ORDERS
            if (owner := self.owners.get(order)) is not None
        }
        turns.take_turns(dict(self.owners), dict(self.used), holders)
        for counter, added in turns.counted.items():
            self.used[counter] = self.used.get(counter, 0) + added
        self.owners.update(turns.spent)
        for original_id, amount in turns.refunded.items():
            known = self.originals[original_id]
            self.originals[original_id] = known._replace(refunded_minor=known.refunded_minor + amount)
        return turns

    def compare(self, journal: SqliteJournal) -> None:
        db = journal._connection
        assert dict(db.execute("SELECT spend, payment_id FROM spends")) == self.owners
        counted = {counter: value for counter, value in self.used.items() if value}
        assert dict(db.execute("SELECT counter, used FROM counters WHERE used != 0")) == counted
        rows = db.execute("SELECT payment_id, refunded_minor FROM payments WHERE state = ?", (State.SUCCEEDED.value,))
        assert dict(rows) == {key: one.refunded_minor for key, one in self.originals.items()}


def said(verdicts: list[Refused | None]) -> list[tuple[int, dict[str, str], str] | None]:
    return [None if one is None else (one.reason, one.fields, one.limit) for one in verdicts]


conditions = st.builds(
    Condition,
    st.sampled_from(COUNTERS),
    st.integers(0, 6),
    st.sampled_from((5, 9, 20)),
    st.sampled_from((LIMIT, BUDGET)),
    st.sampled_from(("", "day C", "many at night")),
)
wanted = st.fixed_dictionaries(
    {
        "spends": st.lists(st.sampled_from(SPENDS), max_size=2, unique=True).map(tuple),
        "counters": st.lists(conditions, max_size=3).map(tuple),
        "amount_minor": st.integers(1, 60),
        "order": st.sampled_from((b"", b"", *ORDERS)),
        "original_id": st.none() | st.integers(1, ORIGINALS + 1).map(lambda number: number.to_bytes(16, "big")),
    }
)
"""A refund may name a payment that does not exist, and one counter may be in one payment twice."""


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.lists(wanted, min_size=1, max_size=6), st.booleans()), min_size=1, max_size=4))
def test_the_journal_decides_as_the_rule(ticks: list[tuple[list[dict[str, object]], bool]]) -> None:
    """Ticks of requests; after some of them all that was admitted fails, which makes its orders free again."""
    with tempfile.TemporaryDirectory() as folder:
        journal = SqliteJournal(Path(folder) / "gateway.db")
        model = Model()
        originals = [payment(number + 1, amount_minor=ORIGINAL_MINOR) for number in range(ORIGINALS)]
        succeed(journal, originals)
        model.originals = {one.payment_id: Original(1, State.SUCCEEDED, ORIGINAL_MINOR, 0) for one in originals}
        number = 1000
        admitted = ORIGINALS
        for asked, fails in ticks:
            tick = []
            for named in asked:
                kind = Kind.PAYMENT if named["original_id"] is None else Kind.REFUND
                tick.append(payment(number := number + 1, kind=kind, **named))
            turns = model.decide(tick)
            verdicts = journal.commit(Writes(admissions=tick))
            assert said(verdicts) == said(turns.verdicts)
            model.compare(journal)
            admitted += len(turns.admitted())
            (count,) = journal._connection.execute("SELECT count(*) FROM payments").fetchone()
            assert count == admitted
            if fails:
                end(journal, turns.admitted(), State.FAILED)
                model.failed.update(one.payment_id for one in turns.admitted())
        journal.close()


def succeed(journal: SqliteJournal, payments: list[Payment]) -> None:
    """Payments that were made before."""
    assert journal.commit(Writes(admissions=payments)) == [None] * len(payments)
    end(journal, payments, State.SUCCEEDED)


def end(journal: SqliteJournal, payments: list[Payment], state: State) -> None:
    """All of these payments end so."""
    for one in payments:
        one.legs.append(first_leg(one, NOW_US))
        one.legs[0].state = LegState.APPROVED if state is State.SUCCEEDED else LegState.DECLINED
        one.state, one.ended_us = state, NOW_US
    journal.commit(Writes(changed={one.payment_id: one for one in payments}))


@pytest.mark.parametrize("most_minor", [5, 30, 300])
def test_ticks_that_fit_and_ticks_that_do_not(tmp_path: Path, most_minor: int) -> None:
    """The same over many ticks on one file, with what is given back; both ways are taken."""
    rng = random.Random(most_minor)
    journal = SqliteJournal(tmp_path / "gateway.db")
    model = Model()
    number = together = refused = 0
    for _ in range(250):
        tick = []
        for _ in range(rng.randrange(1, 12)):
            counters = tuple(
                Condition(counter, rng.choice((1, rng.randrange(1, most_minor))), rng.choice((400, 500)), LIMIT)
                for counter in rng.sample(COUNTERS, rng.randrange(3))
            )
            spends = (rng.randrange(200).to_bytes(16, "big"),) if rng.random() < 0.1 else ()
            tick.append(payment(number := number + 1, counters=counters, spends=spends))
        verdicts = journal.commit(Writes(admissions=tick))
        assert said(verdicts) == said(model.decide(tick).verdicts)
        model.compare(journal)
        together += not any(verdicts)
        refused += sum(map(bool, verdicts))
        if rng.random() < 0.01:
            given_back = [(value, counter) for counter, value in model.used.items() if value]
            journal.commit(Writes(releases=given_back))
            model.used.clear()
    assert together
    assert refused
    journal.close()


def test_a_tick_that_fits_reads_no_row_of_its_conditions(tmp_path: Path) -> None:
    """The way that pays: SQLite's counts of rows say that everything fits."""
    journal = SqliteJournal(tmp_path / "gateway.db")
    statements: list[str] = []
    journal._connection.set_trace_callback(statements.append)
    fits = Condition(COUNTERS[0], 1, 9, LIMIT)
    assert journal.commit(Writes(admissions=[payment(1, spends=(SPENDS[0],), counters=(fits,))])) == [None]
    assert not [one for one in statements if one.startswith(("SELECT payment_id FROM spends", "SELECT used"))]
    (verdict,) = journal.commit(Writes(admissions=[payment(2, spends=(SPENDS[0],), counters=(fits,))]))
    assert verdict is not None
    assert [one for one in statements if one.startswith("SELECT payment_id FROM spends")]
    journal.close()


ALTERED: Final[dict[str, tuple[Callable[[Original], Original | None], int, int, str, dict[str, str]]]] = {
    "unknown": (lambda _: None, 1, 0, "PAYMENT_NOT_FOUND", {"payment_id": "00000000-0000-0000-0000-000000000001"}),
    "a refund": (lambda one: one._replace(kind=Kind.REFUND), 1, 0, "REFUND_OF_REFUND", {}),
    "declined": (
        lambda one: one._replace(state=State.DECLINED), 1, 0, "PAYMENT_NOT_REFUNDABLE", {"state": "DECLINED"}
    ),
    "too much": (lambda one: one, 61, 0, "REFUND_EXCEEDS_PAYMENT", {"left_minor": "60"}),
    "nothing": (lambda one: one, 0, 0, "REFUND_EXCEEDS_PAYMENT", {"left_minor": "60"}),
    "too much in one tick": (lambda one: one, 31, 30, "REFUND_EXCEEDS_PAYMENT", {"left_minor": "30"}),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(ALTERED))
def test_who_may_not_be_refunded(name: str) -> None:
    change, amount, reserved, reason, fields = ALTERED[name]
    original = Original(Kind.PAYMENT, State.SUCCEEDED, 100, 40)
    refusal = refund_refusal(change(original), (1).to_bytes(16, "big"), amount, reserved)
    assert refusal is not None
    assert (Reason.Name(refusal.reason), refusal.fields) == (f"ERROR_REASON_{reason}", fields)  # type: ignore[arg-type]


def test_what_is_left_can_be_refunded() -> None:
    assert refund_refusal(Original(Kind.PAYMENT, State.SUCCEEDED, 100, 40), bytes(16), 30, 30) is None
