"""Two gateways on one PostgreSQL journal: an engine that dies is taken over, one that was only slow is fenced."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from gateway.engine.model import Leg, LegKind, LegOut, Writes
from gateway.engine.ports import JournalFencedError
from gateway.engine.states import State
from gateway.journal import leases
from gateway.journal.conservation import compare
from gateway.journal.interface import JournalMismatchError
from gateway.journal.postgres import PostgresJournal
from gateway.journal.postgres_check import examine_postgresql
from gateway.journal.postgres_reader import PostgresReader
from sandbox.participants.books import totals
from tests.deadlines import wait_until
from tests.gateway.journal.shared import (
    CLOCK,
    LEASE_US,
    Node,
    Pair,
    SharedLink,
    draft,
    open_participants,
    serve,
)


@pytest.fixture
def slow_pair(url: str, tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(url, tmp_path, latency_us=400_000)
    yield pair
    pair.close()


def test_a_repeat_at_another_engine_waits_for_the_same_answer(slow_pair: Pair) -> None:
    here, there = slow_pair.nodes
    first = here.create(draft(key="k"))
    wait_until(lambda: here.engine.in_flight == 1)
    repeat = there.create(draft(key="k"))
    other = there.create(draft(2000, key="k"))
    assert other.outcome == "IDEMPOTENCY_KEY_REUSED"
    assert not first.answered
    assert repeat.result == first.result
    assert first.outcome == "SUCCEEDED"
    assert there.create(draft(key="k")).result == first.result
    slow_pair.check()


def test_a_repeat_whose_time_is_over_gets_the_payment_as_it_stands(slow_pair: Pair) -> None:
    here, there = slow_pair.nodes
    first = here.create(draft(key="k"))
    wait_until(lambda: here.engine.in_flight == 1)
    assert there.create(draft(key="k"), reply_in_us=100_000).outcome == "DEBITING"
    assert first.outcome == "SUCCEEDED"


@pytest.mark.slow
def test_a_cancellation_reaches_the_engine_that_has_the_payment(slow_pair: Pair) -> None:
    here, there = slow_pair.nodes
    payment = draft()
    first = here.create(payment)
    wait_until(lambda: here.engine.in_flight == 1)
    assert there.cancel(payment.payment_id).outcome == "CANCELLED"
    assert first.outcome == "CANCELLED"
    done = draft()
    assert here.create(done).outcome == "SUCCEEDED"
    assert there.cancel(done.payment_id).outcome == "PAYMENT_FINAL"
    assert there.cancel(bytes(16)).outcome == "PAYMENT_NOT_FOUND"
    slow_pair.check()


def test_an_answer_that_arrives_at_another_engine_is_passed_on(url: str, tmp_path: Path) -> None:
    """The leg left through one gateway, its answer comes back through the other."""
    books, participants = open_participants(tmp_path)
    lock = threading.Lock()
    here, there = Node(url, SharedLink(lock)).start(), Node(url, SharedLink(lock, participants)).start()
    payment = draft()
    first = here.create(payment)
    wait_until(lambda: here.engine.in_flight == 1)
    for number, kind, who in ((1, LegKind.DEBIT, "issuer-a"), (2, LegKind.CREDIT, "acquirer-a")):
        wait_until(lambda number=number: len(here.core.book[payment.payment_id].legs) == number)  # type: ignore[misc]
        leg_id = payment.payment_id + bytes([number])
        account = "6212345678901234" if kind is LegKind.DEBIT else payment.merchant_id
        there.engine._link.send([LegOut(who, leg_id, kind, b"", 1000, "CNY", account, "")], CLOCK.now_us())
        there.engine.inbox.wake()
    assert first.outcome == "SUCCEEDED"
    for node in (here, there):
        node.stop()
    report = examine_postgresql(url)
    compare(report, totals(books.path))
    assert report.conserved, report.findings
    books.close()


@pytest.mark.slow
def test_kill_9_and_takeover(url: str, tmp_path: Path) -> None:
    """Fault 11 over two gateways: nothing acknowledged is lost, everything in flight is settled by the other."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    victim = context.Process(target=serve, args=(theirs, url, str(tmp_path)), daemon=True)
    link = SharedLink(threading.Lock())
    survivor = Node(url, link).start()
    victim.start()
    acknowledged: list[tuple[bytes, int]] = []
    while len(acknowledged) < 100:
        assert pipe.poll(20), "the victim pays nothing"
        acknowledged.append(pipe.recv())
    os.kill(victim.pid or 0, signal.SIGKILL)
    victim.join()
    theirs.close()
    with suppress(EOFError):
        while True:
            acknowledged.append(pipe.recv())
    in_flight = examine_postgresql(url).in_flight
    assert in_flight > 0
    books, participants = open_participants(tmp_path)
    link.use(participants)
    wait_until(lambda: survivor.engine.in_flight > 0)
    wait_until(lambda: examine_postgresql(url).in_flight == 0)
    survivor.stop()
    report = examine_postgresql(url)
    compare(report, totals(books.path))
    assert report.conserved, report.findings
    reader = PostgresReader(url)
    stored = {payment.payment_id: payment.state for payment in reader.payments([key for key, _ in acknowledged])}
    reader.close()
    assert [(key, stored[key]) for key, _ in acknowledged] == acknowledged
    assert {state for _, state in acknowledged} == {State.SUCCEEDED}
    books.close()


def test_an_engine_whose_lease_was_taken_acknowledges_nothing(url: str, tmp_path: Path) -> None:
    """A gateway stopped for longer than its lease (a paused machine, say), and then went on."""
    books, participants = open_participants(tmp_path, latency_us=300_000)
    lock = threading.Lock()
    slow = Node(url, SharedLink(lock, participants))
    slow.neighbours._thread = threading.Thread(target=lambda: None)  # its heartbeats stop with the machine
    slow.start()
    paid = slow.create(draft(key="k"))
    wait_until(lambda: slow.engine.in_flight == 1)
    _expire(url, slow.journal.engine)
    other = Node(url, SharedLink(lock, participants)).start()
    wait_until(lambda: other.engine.in_flight == 1)
    repeat = other.create(draft(key="k"))
    assert paid.outcome == "JOURNAL_UNAVAILABLE"
    assert isinstance(slow.engine.failure, JournalFencedError)
    assert not slow.engine.writable
    assert repeat.outcome in ("SUCCEEDED", "FAILED")
    other.stop()
    report = examine_postgresql(url)
    compare(report, totals(books.path))
    assert report.conserved, report.findings
    assert report.payments == 1
    slow.journal.disconnect()
    books.close()


def test_heartbeats_notice_the_fence_without_a_tick(url: str, tmp_path: Path) -> None:
    books, participants = open_participants(tmp_path)
    node = Node(url, SharedLink(threading.Lock(), participants)).start()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE leases SET epoch = epoch + 1")
    wait_until(lambda: isinstance(node.engine.failure, JournalFencedError))
    node.journal.disconnect()
    books.close()


def test_a_heartbeat_keeps_an_idle_engine(url: str, tmp_path: Path) -> None:
    books, participants = open_participants(tmp_path)
    node = Node(url, SharedLink(threading.Lock(), participants)).start()
    threading.Event().wait(1.5 * LEASE_US / 1e6)
    with pytest.raises(JournalMismatchError, match="held by another gateway"):
        PostgresJournal(url, node.journal.engine)
    assert node.create(draft()).outcome == "SUCCEEDED"
    node.stop()
    books.close()


def test_what_a_stopped_gateway_leaves_is_taken_over_at_once(url: str, tmp_path: Path) -> None:
    """A drain that ends too early gives the lease back, so nobody waits for it to run out."""
    books, participants = open_participants(tmp_path, latency_us=500_000)
    lock = threading.Lock()
    hour_us = 3_600_000_000
    leaving = Node(url, SharedLink(lock, participants), lease_us=hour_us).start()
    staying = Node(url, SharedLink(lock, participants), lease_us=hour_us).start()
    caller = leaving.create(draft(key="k"))
    wait_until(lambda: leaving.engine.in_flight == 1)
    assert leaving.engine.drain(0.01) is False
    assert caller.outcome == "DRAINING"
    leaving.journal.close()
    assert staying.create(draft(key="k")).outcome == "SUCCEEDED"
    staying.stop()
    report = examine_postgresql(url)
    compare(report, totals(books.path))
    assert report.conserved, report.findings
    assert report.by_state == {"SUCCEEDED": 1}
    books.close()


def test_numbers_are_leased_and_given_back(url: str) -> None:
    first, second = PostgresJournal(url, holder="a"), PostgresJournal(url, holder="b")
    assert (first.engine, second.engine) == (1, 2)
    again = PostgresJournal(url, holder="a")
    assert again.engine == 1  # the same process name has it back at once
    assert again.lease.epoch == first.lease.epoch + 1
    with pytest.raises(JournalFencedError):
        first.commit(Writes(admissions=[draft()]))
    first.disconnect()
    second.close()
    third = PostgresJournal(url)
    assert third.engine == 2
    for journal in (again, third):
        journal.close()


def test_two_adopters_share_nothing(url: str) -> None:
    """Whoever locks the dead engine's lease first has its payments; the other finds none."""
    dead = PostgresJournal(url)
    payments = [draft() for _ in range(50)]
    for payment in payments:
        payment.legs.append(_first_leg())
    assert dead.commit(Writes(admissions=payments)) == [None] * 50
    dead.disconnect()
    _expire(url, dead.engine)
    adopters = [PostgresJournal(url, 8), PostgresJournal(url, 9)]
    found: list[list[bytes]] = [[], []]

    def adopt(index: int) -> None:
        connection = adopters[index]._database()
        found[index] = leases.adopt(connection, adopters[index].lease, 0, dead.engine)

    threads = [threading.Thread(target=adopt, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found[0] + found[1]) == sorted(payment.payment_id for payment in payments)
    for index, journal in enumerate(adopters):
        assert sorted(one.payment_id for one in journal.load_open()) == sorted(found[index])
        journal.close()
    with pytest.raises(JournalFencedError):
        dead.commit(Writes(admissions=[draft()]))
    dead.disconnect()


def test_ended_payments_of_a_dead_engine_belong_to_whoever_needs_them(url: str) -> None:
    """A late approval may come years after its engine's end; while the engine lives, it is the engine's own."""
    first, second = PostgresJournal(url), PostgresJournal(url)
    payment = draft()
    payment.legs.append(_first_leg())
    assert first.commit(Writes(admissions=[payment])) == [None]
    assert second.claim([payment.payment_id]) == []
    payment.state, payment.ended_us = State.DECLINED, CLOCK.now_us()
    first.commit(Writes(changed={payment.payment_id: payment}))
    assert second.claim([payment.payment_id]) == []
    assert [one.payment_id for one in first.claim([payment.payment_id])] == [payment.payment_id]
    _expire(url, first.engine)
    assert [one.payment_id for one in second.claim([payment.payment_id, bytes(16)])] == [payment.payment_id]
    with pytest.raises(JournalFencedError):
        first.commit(Writes(changed={payment.payment_id: payment}))
    second.commit(Writes(changed={payment.payment_id: payment}))
    first.disconnect()
    second.close()


def _first_leg() -> Leg:
    return Leg(1, LegKind.DEBIT, "issuer-a", sent_us=CLOCK.now_us())


def _expire(url: str, engine: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE leases SET expires_us = 0 WHERE engine = %s", (engine,))
