"""What every journal must do, whichever database it is on: each test runs on all of them, on Journal and Reader alone.

The engine's own tests (tests/gateway/engine) run on both journals too; here are the promises of
gateway.journal.interface, one by one, without an engine. What only a shared journal has (leases, takeovers, races of
several gateways) is in test_postgres_*.py.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import pytest

from gateway.engine.clock import PaymentIds
from gateway.engine.model import Kind, Leg, LegKind, LegState, Movement, Payment, Refusal, Refused, Writes, first_leg
from gateway.engine.ports import Journal, JournalFencedError, JournalUnavailableError
from gateway.engine.states import State
from gateway.journal.conservation import examine
from gateway.journal.interface import EventRow, Reader
from gateway.journal.listing import Scan
from gateway.journal.postgres import PostgresJournal
from gateway.journal.postgres_check import examine_postgresql
from gateway.journal.postgres_reader import PostgresReader
from gateway.journal.report import Report
from gateway.journal.sqlite import SqliteJournal
from gateway.journal.sqlite_reader import SqliteReader
from hutong_contract.errors import Reason
from tests.gateway.conftest import BOTH_JOURNALS
from tokenization.interface import Condition

START_US = 1_790_000_000_000_000
BUDGET, DAILY = int(Reason.ERROR_REASON_TOKEN_BUDGET_SPENT), int(Reason.ERROR_REASON_DAILY_LIMIT)
NOT_KEPT = {"account", "waiters", "cancellers", "legs", "spends", "spend_reason", "counters", "row_id", "route", "risk"}
"""Fields of a payment that are in no row of it, or that only readers fill in."""
IN_MEMORY = {"asked_us", "due_us", "retries", "inquiries", "deadline_seen", "failover", "original_id", "reason"}


@dataclass
class Store:
    """One journal, and how to open it again."""

    open_journal: Callable[[], Journal]
    open_reader: Callable[[], Reader]
    examine: Callable[[], Report]
    now_us: int = START_US
    ids: PaymentIds = field(default_factory=PaymentIds)

    def __post_init__(self) -> None:
        self.journal = self.open_journal()
        self.reader = self.open_reader()

    def restart(self) -> None:
        """As a process that was killed and started again."""
        self.reader.close()
        getattr(self.journal, "disconnect", self.journal.close)()
        self.__post_init__()

    def close(self) -> None:
        self.reader.close()
        self.journal.close()

    def draft(self, amount_minor: int = 1000, **changes: Any) -> Payment:
        """A new payment as the engine admits it."""
        self.now_us += 1_000
        payment_id = self.ids.next(self.now_us)
        values: dict[str, Any] = {
            "kind": Kind.PAYMENT,
            "amount_minor": amount_minor,
            "currency": "CNY",
            "debtor": "issuer-a",
            "creditors": ("acquirer-a", "acquirer-b"),
            "created_us": self.now_us,
            "deadline_us": self.now_us + 30_000_000,
            "idempotency": payment_id,
            "fingerprint": bytes(16),
            "merchant_id": "m1",
            "spend_reason": int(Reason.ERROR_REASON_CODE_SPENT),
        }
        payment = Payment(payment_id=payment_id, **(values | changes))
        payment.legs.append(first_leg(payment, self.now_us))
        return payment

    def refund(self, original: Payment, amount_minor: int, **changes: Any) -> Payment:
        return self.draft(
            amount_minor,
            kind=Kind.REFUND,
            debtor="acquirer-a",
            creditors=("issuer-a",),
            original_id=original.payment_id,
            debit_original=original.payment_id + b"\x02",
            credit_original=original.payment_id + b"\x01",
            **changes,
        )

    def admit(self, *payments: Payment) -> list[Refused | None]:
        """One tick that admits these."""
        return self.journal.commit(Writes(admissions=list(payments)))

    def move(self, payment: Payment, state: State, **changes: Any) -> None:
        """One tick that changes a payment's state, with its event; final ones have moved their money."""
        self.now_us += 1_000
        payment.state = state
        for name, value in changes.items():
            setattr(payment, name, value)
        writes = Writes(changed={payment.payment_id: payment}, events=[(payment.row_id, int(state), self.now_us)])
        if state is State.SUCCEEDED:
            payment.ended_us = self.now_us
            payment.legs[0].state, payment.legs[0].was_approved = LegState.APPROVED, True
            credit = Leg(2, LegKind.CREDIT, payment.creditor, state=LegState.APPROVED, was_approved=True, code="00")
            payment.legs.append(credit)
            for leg, sign in ((payment.legs[0], -1), (credit, 1)):
                writes.legs[payment.payment_id, leg.number] = leg
                writes.movements.append(self._movement(payment, leg, sign))
        elif state in (State.DECLINED, State.FAILED, State.CANCELLED, State.EXPIRED):
            payment.ended_us = self.now_us
            payment.legs[0].state = LegState.DECLINED
            writes.legs[payment.payment_id, 1] = payment.legs[0]
        self.journal.commit(writes)

    def _movement(self, payment: Payment, leg: Leg, sign: int) -> Movement:
        return Movement(
            payment.payment_id, leg.number, leg.participant, "CNY", sign * payment.amount_minor, self.now_us
        )

    def succeeded(self, amount_minor: int = 1000, **changes: Any) -> Payment:
        payment = self.draft(amount_minor, **changes)
        assert self.admit(payment) == [None]
        self.move(payment, State.SUCCEEDED)
        return payment

    def one(self, payment: Payment) -> Payment:
        found = self.reader.payment(payment.payment_id)
        assert found is not None
        return found


@pytest.fixture(params=BOTH_JOURNALS)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    if request.param == "sqlite":
        path = tmp_path / "gateway.db"
        made = Store(lambda: SqliteJournal(path), lambda: SqliteReader(path), lambda: examine(path))
    else:
        url = request.getfixturevalue("url")
        made = Store(
            lambda: PostgresJournal(url, 1, holder="conformance"),
            lambda: PostgresReader(url),
            lambda: examine_postgresql(url),
        )
    yield made
    made.close()


def kept(payment: Payment) -> dict[str, Any]:
    """The fields that must come back as they were."""
    return {one.name: getattr(payment, one.name) for one in fields(payment) if one.name not in NOT_KEPT | IN_MEMORY}


def reasons(verdicts: list[Refused | None]) -> list[str]:
    return [
        "" if one is None else Reason.Name(Reason.ValueType(one.reason)).removeprefix("ERROR_REASON_")
        for one in verdicts
    ]


# -- admission ---------------------------------------------------------------------------------------------------------


def test_what_is_admitted_comes_back_field_by_field_also_after_a_restart(store: Store) -> None:
    payment = store.draft(
        999_999_999_999,
        caller="terminal 7",
        idempotency=bytes(range(16)),
        fingerprint=bytes(range(16, 32)),
        account_ref=b"a" * 16,
        key_ref=b"k" * 16,
        last_four="0123",
        payer_key=3,
        payee_key=5,
        terminal_id="t1",
        reference="订单 17 – “quoted”, \\ and '",
        route='{"candidates":[]}',
        route_id=-(2**63),
        risk='{"action":"approve"}',
        risk_id=2**63 - 1,
        counters=(Condition(b"c" * 16, 7, 100, BUDGET),),
    )
    assert store.admit(payment) == [None]
    for _ in range(2):
        (loaded,) = store.journal.load([payment.payment_id])
        assert kept(loaded) == kept(payment)
        assert loaded.legs == payment.legs
        read = store.one(payment)
        assert (read.route, read.risk) == (payment.route, payment.risk)
        assert kept(store.journal.load_open()[0]) == kept(payment)
        store.restart()


def test_what_does_not_exist_is_left_out(store: Store) -> None:
    there, nowhere = store.draft(), store.ids.next(START_US)
    store.admit(there)
    assert [one.payment_id for one in store.journal.load([nowhere, there.payment_id])] == [there.payment_id]
    assert store.reader.payment(nowhere) is None
    assert store.reader.payments([nowhere]) == []
    assert store.journal.claim([nowhere]) == []
    assert store.journal.repeats([nowhere]) == {}


def test_legs_and_states_come_back_as_they_were_written_last(store: Store) -> None:
    payment = store.draft()
    store.admit(payment)
    second = Leg(2, LegKind.CREDIT, "acquirer-a", sent_us=store.now_us)
    payment.legs.append(second)
    payment.legs[0].state, payment.legs[0].code, payment.legs[0].was_approved = LegState.APPROVED, "00", True
    for state in (LegState.SENT, LegState.DECLINED):
        second.state, second.code = state, "" if state is LegState.SENT else "05"
        payment.state, payment.attempt, payment.goal = State.CREDITING, 1, State.FAILED
        writes = Writes(changed={payment.payment_id: payment})
        writes.legs = {(payment.payment_id, leg.number): leg for leg in payment.legs}
        store.journal.commit(writes)
        (loaded,) = store.journal.load([payment.payment_id])
        assert loaded.legs == payment.legs
        assert kept(loaded) == kept(payment)


# -- idempotency -------------------------------------------------------------------------------------------------------


def test_a_key_is_admitted_once_in_a_tick_and_ever_after(store: Store) -> None:
    key = b"one key".ljust(16)
    first, same_tick = store.draft(idempotency=key), store.draft(idempotency=key)
    other = store.draft()
    verdicts = store.admit(first, same_tick, other)
    assert [verdict is None for verdict in verdicts] == [True, False, True]
    for verdict in (verdicts[1], *store.admit(store.draft(idempotency=key))):
        assert verdict is not None
        assert verdict.reason == 0
        assert verdict.standing is not None
        assert kept(verdict.standing) == kept(first)
    store.move(first, State.DECLINED, reason="51")
    store.restart()
    (verdict,) = store.admit(store.draft(idempotency=key))
    assert verdict is not None
    assert verdict.standing is not None
    assert (verdict.standing.payment_id, verdict.standing.state) == (first.payment_id, State.DECLINED)
    assert store.journal.repeats([key, bytes(16)]).keys() == {key}
    assert len(store.reader.rows("SELECT payment_id FROM payments", ())) == 2


def test_a_key_of_a_payment_that_was_refused_is_free(store: Store) -> None:
    key, spend = b"a key".ljust(16), b"a code".ljust(16)
    store.admit(store.draft(spends=(spend,)))
    assert reasons(store.admit(store.draft(idempotency=key, spends=(spend,)))) == ["CODE_SPENT"]
    assert store.journal.repeats([key]) == {}
    assert store.admit(store.draft(idempotency=key)) == [None]


# -- spends and counters -----------------------------------------------------------------------------------------------


def test_a_value_is_spent_once_and_a_payment_spends_all_its_values_or_none(store: Store) -> None:
    a, b, c = (name.ljust(16) for name in (b"a", b"b", b"c"))
    assert reasons(store.admit(store.draft(spends=(a,)), store.draft(spends=(b, a)), store.draft(spends=(b,)))) == [
        "",
        "CODE_SPENT",
        "",
    ]
    assert reasons(store.admit(store.draft(spends=(c, b)))) == ["CODE_SPENT"]
    store.restart()
    assert reasons(store.admit(store.draft(spends=(a,)), store.draft(spends=(c,)))) == ["CODE_SPENT", ""]
    assert sorted(bytes(row[0]) for row in store.reader.rows("SELECT spend FROM spends", ())) == [a, b, c]


def test_a_counter_is_filled_to_its_cap_exactly_in_the_order_of_the_tick(store: Store) -> None:
    counter = b"counter".ljust(16)

    def wants(add: int, cap: int = 100) -> Payment:
        return store.draft(counters=(Condition(counter, add, cap, BUDGET),))

    full = "TOKEN_BUDGET_SPENT"
    assert reasons(store.admit(wants(60), wants(50), wants(40), wants(1))) == ["", full, "", full]
    assert reasons(store.admit(wants(1), wants(0), wants(20, cap=120))) == [full, "", ""]
    assert [row[0] for row in store.reader.rows("SELECT used FROM counters", ())] == [120]


def test_of_several_conditions_all_hold_or_nothing_is_counted(store: Store) -> None:
    a, b = b"a".ljust(16), b"b".ljust(16)
    conditions = (Condition(a, 10, 100, BUDGET), Condition(b, 10, 5, DAILY, "day C"))
    (verdict,) = store.admit(store.draft(counters=conditions, risk_id=-1, risk="{}"))
    assert verdict is not None
    assert (verdict.reason, verdict.limit) == (DAILY, "day C")
    assert sum(row[0] for row in store.reader.rows("SELECT used FROM counters", ())) == 0
    (decision,) = store.reader.decisions(None, 10)
    assert (decision.reason, decision.limit) == (DAILY, "day C")


def test_releases_give_room_back(store: Store) -> None:
    counter = b"counter".ljust(16)
    conditions = (Condition(counter, 100, 100, BUDGET),)
    first = store.draft(counters=conditions)
    store.admit(first)
    assert reasons(store.admit(store.draft(counters=conditions))) == ["TOKEN_BUDGET_SPENT"]
    store.journal.commit(Writes(releases=[(100, counter)], events=[(first.row_id, 2, store.now_us)]))
    assert store.admit(store.draft(counters=conditions)) == [None]


def test_an_order_is_paid_once_until_it_was_given_back(store: Store) -> None:
    order = b"order".ljust(16)
    first = store.succeeded(100, order=order)
    for _ in range(2):
        (verdict,) = store.admit(store.draft(100, order=order))
        assert verdict is not None
        assert reasons([verdict]) == ["ORDER_ALREADY_PAID"]
        assert verdict.fields["payment_id"].replace("-", "") == first.payment_id.hex()
        store.restart()
    refund = store.refund(first, 100)
    assert store.admit(refund) == [None]
    assert reasons(store.admit(store.draft(100, order=order))) == ["ORDER_ALREADY_PAID"]
    store.move(refund, State.SUCCEEDED)
    second, third = store.draft(100, order=order), store.draft(100, order=order)
    assert reasons(store.admit(second, third)) == ["", "ORDER_ALREADY_PAID"]
    store.move(second, State.DECLINED)
    assert store.admit(store.draft(100, order=order)) == [None]


# -- refunds -----------------------------------------------------------------------------------------------------------


def test_refunds_take_no_more_than_the_payment_had(store: Store) -> None:
    original = store.succeeded(1000)
    parts = [store.refund(original, amount) for amount in (600, 500, 400, 1)]
    verdicts = store.admit(*parts)
    assert reasons(verdicts) == ["", "REFUND_EXCEEDS_PAYMENT", "", "REFUND_EXCEEDS_PAYMENT"]
    assert verdicts[1] is not None
    assert verdicts[1].fields["left_minor"] == "400"
    store.restart()
    assert store.one(original).refunded_minor == 1000
    assert [one.payment_id for one in store.reader.refunds([original.payment_id])] == [
        parts[0].payment_id,
        parts[2].payment_id,
    ]
    failed = store.journal.load([parts[0].payment_id])[0]
    failed.state, failed.ended_us = State.DECLINED, store.now_us
    store.journal.commit(
        Writes(
            changed={failed.payment_id: failed},
            refund_releases=[(600, original.payment_id)],
            events=[(failed.row_id, int(State.DECLINED), store.now_us)],
        )
    )
    assert reasons(store.admit(store.refund(original, 601))) == ["REFUND_EXCEEDS_PAYMENT"]
    assert reasons(store.admit(store.refund(original, 600))) == [""]


def test_only_a_payment_that_succeeded_is_refunded(store: Store) -> None:
    under_way, declined = store.draft(), store.draft()
    store.admit(under_way, declined)
    store.move(declined, State.DECLINED)
    original = store.succeeded()
    refund = store.refund(original, 10)
    assert store.admit(refund) == [None]
    nowhere = store.draft()
    wrong = [store.refund(one, 10) for one in (under_way, declined, refund, nowhere)]
    assert all(verdict is not None for verdict in store.admit(*wrong))
    assert store.one(original).refunded_minor == 10


# -- holds -------------------------------------------------------------------------------------------------------------


def test_holds_rest_outside_memory_and_end_in_their_order(store: Store) -> None:
    held = [store.draft(authorised_minor=1000, hold_until_us=START_US + 10**9 - number) for number in range(5)]
    store.admit(*held)
    for payment in held:
        store.move(payment, State.HELD)
    assert store.journal.load_open() == []
    ends = START_US + 10**9 - 1
    expected = [held[number].payment_id for number in (4, 3, 2, 1)]
    assert store.journal.ended_holds(ends, 10) == expected
    assert store.journal.ended_holds(ends, 2) == expected[:2]
    assert store.journal.ended_holds(START_US, 10) == []
    (claimed,) = store.journal.claim([held[0].payment_id])
    assert kept(claimed) == kept(held[0])
    claimed.state, claimed.amount_minor, claimed.deadline_us = State.CAPTURING, 400, store.now_us + 1
    changed = {claimed.payment_id: claimed}
    store.journal.commit(
        Writes(
            changed=dict(changed),
            captured=dict(changed),
            events=[(claimed.row_id, int(State.CAPTURING), store.now_us)],
        )
    )
    store.restart()
    (captured,) = store.journal.load_open()
    assert (captured.payment_id, captured.amount_minor, captured.authorised_minor) == (claimed.payment_id, 400, 1000)
    assert captured.deadline_us == claimed.deadline_us
    assert captured.payment_id not in store.journal.ended_holds(10**18, 10)


# -- events and windows ------------------------------------------------------------------------------------------------


def test_events_are_numbered_in_the_order_of_commits(store: Store) -> None:
    rng = random.Random(5)
    payments = [store.draft(amount_minor=number + 1) for number in range(9)]
    for at in range(0, 9, 3):
        store.admit(*payments[at : at + 3])
    expected = [(payment.payment_id, State.DEBITING) for payment in payments]
    for payment in rng.sample(payments, 9):
        store.move(payment, State.DECLINED)
        expected.append((payment.payment_id, State.DECLINED))
    store.restart()
    rows = store.reader.events(0, 100)
    assert [(row.payment_id, row.state) for row in rows] == expected
    assert [row.sequence for row in rows] == sorted({row.sequence for row in rows})
    assert store.reader.last_event() == rows[-1].sequence
    assert store.reader.events(rows[3].sequence, 4) == rows[4:8]
    assert {(row.amount_minor, row.currency, row.merchant_id) for row in rows} == {
        (payment.amount_minor, "CNY", "m1") for payment in payments
    }
    watched = {payments[0].payment_id: 0, payments[4].payment_id: rows[4].sequence}
    of_two: list[EventRow] = store.reader.events_of(watched, 100)
    assert {(row.payment_id, row.state) for row in of_two} == {
        (payments[0].payment_id, State.DEBITING),
        (payments[0].payment_id, State.DECLINED),
        (payments[4].payment_id, State.DECLINED),
    }
    assert len(store.reader.events_of(watched, 2)) == 2


def test_a_refused_admission_leaves_no_event_no_row_and_no_leg(store: Store) -> None:
    spend = b"code".ljust(16)
    store.admit(store.draft(spends=(spend,)))
    last = store.reader.last_event()
    store.admit(store.draft(spends=(spend,)))
    assert store.reader.last_event() == last
    for table in ("payments", "spends"):
        assert store.reader.rows(f"SELECT count(*) FROM {table}", ()) == [(1,)]


def test_a_window_is_closed_once_and_takes_what_was_committed_before_it(store: Store) -> None:
    store.succeeded()
    store.journal.commit(Writes(closings=[(1, store.now_us)]))
    store.succeeded()
    store.journal.commit(Writes(closings=[(1, store.now_us), (3, store.now_us), (2, store.now_us), (2, store.now_us)]))
    windows = store.reader.rows("SELECT number, after_sequence, last_sequence FROM windows ORDER BY number", ())
    assert [row[0] for row in windows] == [1, 2]
    assert windows[0][1] == 0
    assert windows[0][2] == windows[1][1]
    assert windows[1][2] == store.reader.last_event()
    assert store.examine().findings == []


# -- reads -------------------------------------------------------------------------------------------------------------


def test_refusals_are_listed_newest_first_with_their_judgement(store: Store) -> None:
    refused = [store.draft(risk=f'{{"n":{number}}}', risk_id=number + 1) for number in range(3)]
    for payment in refused:
        store.journal.commit(Writes(refusals=[Refusal(payment, int(Reason.ERROR_REASON_RISK_DECLINED))]))
    rows = store.reader.decisions(None, 2)
    assert [row.payment_id for row in rows] == [one.payment_id for one in refused[:0:-1]]
    assert [row.judgement for row in rows] == ['{"n":2}', '{"n":1}']
    assert [row.payment_id for row in store.reader.decisions(rows[-1].payment_id, 2)] == [refused[0].payment_id]
    assert store.reader.payment(refused[0].payment_id) is None


def test_payments_are_listed_newest_first(store: Store) -> None:
    payments = [store.draft(merchant_id=f"m{number % 2}") for number in range(6)]
    store.admit(*payments)
    while not store.reader.follow():
        pass
    newest = [one.payment_id for one in reversed(payments)]
    ends = {"first_id": bytes(16), "before_id": b"\xff" * 16}
    assert [row.payment_id for row in store.reader.scan(Scan(**ends, limit=4))] == newest[:4]  # type: ignore[arg-type]
    rows = store.reader.scan(Scan(first_id=bytes(16), before_id=newest[0], limit=10, merchant_id="m1"))
    assert [row.payment_id for row in rows] == newest[2::2]


def test_a_reader_sees_what_is_committed_and_changes_nothing(store: Store) -> None:
    payment = store.draft()
    store.admit(payment)
    before = store.one(payment)
    store.move(payment, State.DECLINED, reason="05")
    after = store.one(payment)
    assert (before.state, after.state, after.reason) == (State.DEBITING, State.DECLINED, "05")


# -- all or nothing ----------------------------------------------------------------------------------------------------


def test_a_tick_that_cannot_be_written_leaves_nothing(store: Store) -> None:
    """A payment whose id is taken fails after others of its tick were written; the next tick is taken as ever."""
    first = store.draft()
    store.admit(first)
    last = store.reader.last_event()
    twin = copy.copy(first)
    twin.idempotency = b"of a twin".ljust(16)
    good = store.draft(spends=(b"code".ljust(16),), counters=(Condition(b"c" * 16, 1, 1, BUDGET),))
    with pytest.raises(JournalUnavailableError):
        store.admit(good, twin)
    assert store.journal.last_was_taken() is False
    assert store.reader.payment(good.payment_id) is None
    assert store.reader.last_event() == last
    for table in ("spends", "counters"):
        assert store.reader.rows(f"SELECT count(*) FROM {table}", ()) == [(0,)]
    assert store.admit(good) == [None]


def test_what_ended_is_conserved(store: Store) -> None:
    original = store.succeeded(777)
    store.admit(refund := store.refund(original, 77))
    store.restart()
    report = store.examine()
    assert (report.payments, report.in_flight, report.findings) == (2, 1, [])
    assert [one.payment_id for one in store.journal.load_open()] == [refund.payment_id]


# -- one writer --------------------------------------------------------------------------------------------------------


def test_another_engine_does_not_touch_what_is_in_flight_here(url: str) -> None:
    """On a shared journal: what one engine has in flight, another can neither claim nor change."""
    here, there = PostgresJournal(url, 1), PostgresJournal(url, 2)
    maker = Store(lambda: here, lambda: PostgresReader(url), lambda: examine_postgresql(url))
    payment = maker.draft()
    maker.admit(payment)
    assert there.claim([payment.payment_id]) == []
    assert there.load_open() == []
    payment.state, payment.ended_us = State.DECLINED, maker.now_us
    with pytest.raises(JournalFencedError):
        there.commit(Writes(changed={payment.payment_id: payment}))
    assert maker.one(payment).state is State.DEBITING
    there.close()
    maker.close()
