"""Two engines race on one PostgreSQL journal, in threads, for keys, codes, limits and refunds: exactly one wins."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from gateway.engine.model import Kind, Leg, LegKind, LegState, Payment, Refused, Writes
from gateway.engine.states import State
from gateway.journal.conservation import compare
from gateway.journal.postgres import PostgresJournal
from gateway.journal.postgres_check import examine_postgresql
from gateway.journal.postgres_reader import PostgresReader
from hutong_contract.errors import Reason
from sandbox.participants.books import totals
from tests.deadlines import CALL_S
from tests.gateway.journal.shared import Node, SharedLink, draft, open_participants
from tokenization.interface import Condition

ROUNDS = 12
BATCH = 24
CAP = int(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT)
Verdicts = list[tuple[Payment, Refused | None]]


def admitted(payment: Payment) -> Payment:
    kind = LegKind.DEBIT if payment.kind == Kind.PAYMENT else LegKind.REFUND
    payment.legs.append(Leg(1, kind, payment.debtor, sent_us=payment.created_us))
    return payment


def race(url: str, batches: list[list[list[Payment]]]) -> Verdicts:
    """Commits each engine's batches, all engines round by round at the same moment; every verdict."""
    barrier = threading.Barrier(len(batches))
    verdicts: list[Verdicts] = [[] for _ in batches]
    failures: list[BaseException] = []

    def commit(index: int) -> None:
        try:
            journal = PostgresJournal(url)
            for batch in batches[index]:
                barrier.wait(CALL_S)
                answers = journal.commit(Writes(admissions=[admitted(payment) for payment in batch]))
                verdicts[index].extend(zip(batch, answers, strict=True))
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            failures.append(error)
            barrier.abort()
        else:
            journal.close()

    threads = [threading.Thread(target=commit, args=(index,)) for index in range(len(batches))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CALL_S)
    assert not failures
    return [verdict for one in verdicts for verdict in one]


def test_gateways_that_start_together_make_the_tables_once(server_url: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS fresh")
        connection.execute("CREATE DATABASE fresh")
    fresh = make_conninfo(server_url, dbname="fresh")
    verdicts = race(fresh, [[[draft()]] for _ in range(4)])
    assert [verdict for _, verdict in verdicts] == [None] * 4


def test_a_key_has_one_winner(url: str) -> None:
    """Each engine sends the same keys in an order of its own: no deadlock, one payment each, named to the loser."""
    rng = random.Random(1)
    batches: list[list[list[Payment]]] = [[], []]
    for number in range(ROUNDS):
        for engine in batches:
            keys = [f"{number}-{index}" for index in range(BATCH)]
            rng.shuffle(keys)
            engine.append([draft(key=key) for key in keys])
    verdicts = race(url, batches)
    winners = {payment.idempotency: payment.payment_id for payment, verdict in verdicts if verdict is None}
    assert len(winners) == ROUNDS * BATCH
    assert sum(verdict is None for _, verdict in verdicts) == ROUNDS * BATCH
    for payment, verdict in verdicts:
        if verdict is not None:
            assert verdict.standing is not None
            assert verdict.standing.payment_id == winners[payment.idempotency]
    reader = PostgresReader(url)
    assert len(reader.payments(sorted(winners.values()))) == ROUNDS * BATCH
    reader.close()


def test_a_code_has_one_winner(url: str) -> None:
    """Fault 19 over two gateways; a payment that spends two values gets both or neither."""
    rng = random.Random(2)
    batches: list[list[list[Payment]]] = [[], []]
    for number in range(ROUNDS):
        for engine in batches:
            codes = [f"{number}-{index}".encode().ljust(16) for index in range(BATCH)]
            rng.shuffle(codes)
            pairs = [(codes[index], codes[(index + 1) % BATCH]) for index in range(0, BATCH, 3)]
            engine.append([draft(spends=pair) for pair in pairs])
    verdicts = race(url, batches)
    spent = Counter(spend for payment, verdict in verdicts if verdict is None for spend in payment.spends)
    assert set(spent.values()) == {1}
    assert {verdict.reason for _, verdict in verdicts if verdict is not None} == {Reason.ERROR_REASON_CODE_SPENT}
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT spend FROM spends").fetchall()
    assert sorted(row[0] for row in rows) == sorted(spent)


def test_a_counter_is_never_exceeded(url: str) -> None:
    """Fault 18: in each round both engines want more than the round's limits have, which exist already."""
    rng = random.Random(3)
    rounds = [[f"limit-{number}-{index}".encode().ljust(16) for index in range(4)] for number in range(ROUNDS)]
    journal = PostgresJournal(url)
    there = draft(counters=tuple(Condition(limit, 0, 45, CAP) for limits in rounds for limit in limits))
    assert journal.commit(Writes(admissions=[admitted(there)])) == [None]
    journal.close()
    batches: list[list[list[Payment]]] = [[], []]
    for limits in rounds:
        for engine in batches:
            engine.append([draft(counters=(Condition(rng.choice(limits), 10, 45, CAP),)) for _ in range(4 * BATCH)])
    verdicts = race(url, batches)
    used = Counter(counter for payment, verdict in verdicts if verdict is None for counter, *_ in payment.counters)
    assert set(used.values()) == {4}, used  # a fifth would be 50
    with psycopg.connect(url) as connection:
        rows: dict[bytes, int] = dict(connection.execute("SELECT counter, used FROM counters").fetchall())
    assert rows == dict.fromkeys((limit for limits in rounds for limit in limits), 40)
    assert {verdict.reason for _, verdict in verdicts if verdict is not None} == {CAP}


def test_refunds_never_exceed_the_payment(url: str) -> None:
    """Fault 5 over two gateways."""
    journal = PostgresJournal(url)
    originals = [admitted(draft(1000)) for _ in range(4)]
    assert journal.commit(Writes(admissions=originals)) == [None] * 4
    for original in originals:
        original.state, original.ended_us = State.SUCCEEDED, original.created_us
        original.legs[0].state = LegState.APPROVED
    assert journal.commit(Writes(changed={original.payment_id: original for original in originals})) == []
    journal.close()
    batches = [
        [
            [draft(130, kind=Kind.REFUND, original_id=originals[(index + number) % 4].payment_id) for index in range(4)]
            for number in range(ROUNDS)
        ]
        for _ in range(2)
    ]
    verdicts = race(url, batches)
    paid = Counter(payment.original_id for payment, verdict in verdicts if verdict is None)
    assert set(paid.values()) == {7}  # 910 of 1000; the next 130 would exceed it
    refusals = {(verdict.reason, verdict.fields["left_minor"]) for _, verdict in verdicts if verdict is not None}
    assert refusals == {(Reason.ERROR_REASON_REFUND_EXCEEDS_PAYMENT, "90")}


def test_readers_miss_no_event(url: str) -> None:
    """Numbers are in the order of commits: whoever has read up to a number has seen everything below it."""
    seen: list[int] = []
    stop = threading.Event()

    def read() -> None:
        reader = PostgresReader(url)
        last = False
        while not last:
            last = stop.is_set()  # one more read after the end
            rows = reader.events(seen[-1] if seen else 0, 10_000)
            seen.extend(row.sequence for row in rows)
        reader.close()

    PostgresJournal(url).close()
    thread = threading.Thread(target=read)
    thread.start()
    batches = [[[draft() for _ in range(8)] for _ in range(40)] for _ in range(2)]
    race(url, batches)
    stop.set()
    thread.join(CALL_S)
    assert len(seen) == 2 * 40 * 8
    assert seen == sorted(set(seen))


def test_a_limit_is_exact_with_64_callers_at_two_gateways(url: str, tmp_path: Path) -> None:
    """Whole engines, each with its loop; declined payments free what they held."""
    books, participants = open_participants(tmp_path)
    lock = threading.Lock()
    nodes = [Node(url, SharedLink(lock, participants)).start() for _ in range(2)]
    counters = (Condition(b"daily".ljust(16), 1000, 25_500, CAP),)
    outcomes: list[str] = []
    barrier = threading.Barrier(64)

    def pay(index: int) -> None:
        barrier.wait(CALL_S)
        outcomes.append(nodes[index % 2].create(draft(1000, counters=counters)).outcome)

    threads = [threading.Thread(target=pay, args=(index,)) for index in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(CALL_S)
    assert Counter(outcomes) == {"SUCCEEDED": 25, "AMOUNT_ABOVE_LIMIT": 39}
    for node in nodes:
        node.stop()
    report = examine_postgresql(url)
    compare(report, totals(books.path))
    assert report.conserved, report.findings
    books.close()


@pytest.mark.parametrize("engines", [2])
def test_hundreds_of_racing_repeats_have_one_effect(url: str, tmp_path: Path, engines: int) -> None:
    """Faults 2 and 4: the same keys at both gateways at once, each caller gets the one answer."""
    books, participants = open_participants(tmp_path)
    lock = threading.Lock()
    nodes = [Node(url, SharedLink(lock, participants)).start() for _ in range(engines)]
    callers = [
        (key, node.create(draft(1000, key=f"key-{key}"))) for _ in range(4) for key in range(50) for node in nodes
    ]
    answers: dict[int, set[object]] = {}
    for key, caller in callers:
        answers.setdefault(key, set()).add(caller.result)
        assert caller.outcome == "SUCCEEDED"
    assert {len(bodies) for bodies in answers.values()} == {1}
    for node in nodes:
        node.stop()
    report = examine_postgresql(url)
    compare(report, totals(books.path))
    assert report.conserved, report.findings
    assert report.payments == 50
    books.close()
