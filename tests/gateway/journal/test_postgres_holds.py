"""Holds on a journal that two gateways share: whichever is asked first decides, and no engine's death keeps them."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import psycopg
import pytest

from gateway.engine.model import Payment
from gateway.engine.states import State
from gateway.journal.conservation import compare, compare_holds
from gateway.journal.postgres_check import examine_postgresql
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError, Reason
from sandbox.participants.books import holds, totals
from tests.deadlines import wait_until
from tests.gateway.journal.shared import Caller, Node, Pair, SharedLink, hold, open_participants
from tokenization.interface import Condition

LIMIT = b"limit".ljust(16)
TAKEN = 400


class HoldingPair(Pair):
    """Two engines that are asked about holds."""

    def check(self) -> None:
        wait_until(lambda: examine_postgresql(self.url).in_flight == 0)
        super().check()

    def state(self, payment_id: bytes) -> State:
        (payment,) = self.nodes[0].journal.load([payment_id])
        return payment.state


@pytest.fixture
def pair(url: str, tmp_path: Path) -> Iterator[HoldingPair]:
    pair = HoldingPair(url, tmp_path)
    yield pair
    pair.close()


@pytest.fixture
def slow_pair(url: str, tmp_path: Path) -> Iterator[HoldingPair]:
    pair = HoldingPair(url, tmp_path, latency_us=300_000)
    yield pair
    pair.close()


def test_a_hold_is_captured_voided_and_repeated_at_either_engine(pair: HoldingPair) -> None:
    here, there = pair.nodes
    first, second = hold(key="a"), hold(key="b")
    held = here.create(first)
    assert (held.outcome, here.create(second).outcome) == ("HELD", "HELD")
    assert there.create(hold(key="a", fingerprint=first.fingerprint)).result == held.result
    assert there.capture(first.payment_id, TAKEN).outcome == "SUCCEEDED"
    assert there.cancel(second.payment_id).outcome == "CANCELLED"
    assert here.capture(first.payment_id, TAKEN).outcome == "SUCCEEDED"
    assert here.capture(first.payment_id, 1).outcome == "CAPTURE_DIFFERS"
    assert here.capture(second.payment_id).outcome == "PAYMENT_NOT_HELD"
    assert here.engine.in_flight == there.engine.in_flight == 0
    pair.check()


def test_a_capture_asked_of_the_other_engine_while_one_is_under_way(slow_pair: HoldingPair) -> None:
    here, there = slow_pair.nodes
    payment = hold()
    assert here.create(payment).outcome == "HELD"
    first = here.capture(payment.payment_id, TAKEN)
    wait_until(lambda: here.engine.in_flight == 1)
    same, other = there.capture(payment.payment_id, TAKEN), there.capture(payment.payment_id, 1)
    assert other.outcome == "CAPTURE_DIFFERS"
    assert not first.answered
    assert same.result == first.result
    slow_pair.check()


def test_a_void_reaches_the_engine_that_captures(slow_pair: HoldingPair) -> None:
    here, there = slow_pair.nodes
    payment = hold()
    assert here.create(payment).outcome == "HELD"
    captured = here.capture(payment.payment_id, TAKEN)
    wait_until(lambda: here.engine.in_flight == 1)
    assert there.cancel(payment.payment_id).outcome == "CANCELLED"
    assert captured.outcome == "CANCELLED"
    slow_pair.check()


def test_capture_void_and_expiry_race_over_two_engines(pair: HoldingPair) -> None:
    """Fault 6, forty times: exactly one wins, and everybody is told the same."""
    rng = random.Random(6)
    counters = (Condition(LIMIT, 1000, 10**9, int(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT)),)
    payments = [hold(lasts_us=rng.choice((10_000, 400_000, 10**10)), counters=counters) for _ in range(40)]
    made = [rng.choice(pair.nodes).create(payment) for payment in payments]
    assert {caller.outcome for caller in made} == {"HELD"}
    told: dict[bytes, list[tuple[str, Caller]]] = {payment.payment_id: [] for payment in payments}

    def race(node: Node, what: str) -> None:
        for payment in random.Random(what).sample(payments, len(payments)):
            key = payment.payment_id
            told[key].append((what, node.capture(key, TAKEN) if what == "capture" else node.cancel(key)))

    racers = [threading.Thread(target=race, args=(node, what)) for node in pair.nodes for what in ("capture", "void")]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
    for payment in payments:
        outcomes = {what: set() for what in ("capture", "void")}  # type: dict[str, set[str]]
        for what, caller in told[payment.payment_id]:
            outcomes[what].add(caller.outcome)
        state = pair.state(payment.payment_id)
        if state is State.SUCCEEDED:
            assert outcomes == {"capture": {"SUCCEEDED"}, "void": {"PAYMENT_FINAL"}}
        else:
            assert state in (State.CANCELLED, State.EXPIRED)
            assert "SUCCEEDED" not in outcomes["capture"]
            assert len(outcomes["capture"]) == 1, outcomes
    pair.check()
    states = [pair.state(payment.payment_id) for payment in payments]
    assert set(states) <= {State.SUCCEEDED, State.CANCELLED, State.EXPIRED}
    with psycopg.connect(pair.url) as connection:
        (used,) = connection.execute("SELECT used FROM counters").fetchone() or (0,)
    assert used == TAKEN * states.count(State.SUCCEEDED)


def test_the_hold_of_a_dead_engine_ends_and_is_captured_elsewhere(pair: HoldingPair) -> None:
    here, there = pair.nodes
    ending, captured = hold(lasts_us=1), hold()
    assert [here.create(one).outcome for one in (captured,)] == ["HELD"]
    here.engine.drain(5.0)  # its lease stays until it runs out
    assert there.capture(captured.payment_id).outcome == "SUCCEEDED"
    assert there.create(ending).outcome == "HELD"
    wait_until(lambda: pair.state(ending.payment_id) is State.EXPIRED)
    pair.check()


def serve_holds(pipe: Connection, url: str, folder: str) -> None:
    """A gateway's engine in a process of its own that holds, captures and voids without end, and tells what it said."""
    _, participants = open_participants(Path(folder), latency_us=20_000)
    node = Node(url, SharedLink(threading.Lock(), participants)).start()
    sent = threading.Lock()
    rng = random.Random(11)

    def told(payment: Payment, answer: bytes | HutongError) -> None:
        if isinstance(answer, HutongError):
            return
        state = int(pb.CreatePaymentResponse.FromString(answer).payment.state)
        with sent:
            pipe.send((payment.payment_id, state))
        if state == State.HELD and rng.random() < 0.8:
            node.capture(payment.payment_id, rng.choice((0, 3)))

    while True:
        for _ in range(10):
            payment = hold(10)
            node.create(payment, Caller(lambda answer, payment=payment: told(payment, answer)))  # type: ignore[misc]
        threading.Event().wait(0.01)


@pytest.mark.slow
def test_kill_9_with_holds_in_flight(url: str, tmp_path: Path) -> None:
    """What was said to be held is held, or was captured, and the other engine can do with it what it likes."""
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    victim = context.Process(target=serve_holds, args=(theirs, url, str(tmp_path)), daemon=True)
    link = SharedLink(threading.Lock())
    survivor = Node(url, link).start()
    victim.start()
    acknowledged: dict[bytes, int] = {}
    while len(acknowledged) < 60:
        assert pipe.poll(20), "the victim holds nothing"
        payment_id, state = pipe.recv()
        acknowledged[payment_id] = state
    os.kill(victim.pid or 0, signal.SIGKILL)
    victim.join()
    theirs.close()
    with suppress(EOFError):
        while True:
            payment_id, state = pipe.recv()
            acknowledged[payment_id] = state
    assert examine_postgresql(url).in_flight > 0
    books, participants = open_participants(tmp_path)
    link.use(participants)
    wait_until(lambda: examine_postgresql(url).in_flight == 0)
    stored = {payment.payment_id: payment.state for payment in survivor.journal.load(list(acknowledged))}
    assert set(stored) == set(acknowledged)
    assert set(stored.values()) <= {State.HELD, State.SUCCEEDED, State.FAILED, State.EXPIRED}
    at_rest = [payment_id for payment_id, state in stored.items() if state is State.HELD]
    assert at_rest
    voided = [survivor.cancel(payment_id) for payment_id in at_rest]
    assert {caller.outcome for caller in voided} == {"CANCELLED"}
    survivor.stop()
    report = examine_postgresql(url)
    compare(report, totals(books.path))
    compare_holds(report, holds(books.path))
    assert report.conserved, report.findings
    books.close()
