"""Engines on one PostgreSQL journal, for tests: each a real engine with its own loop, on the same participants."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

from gateway.engine.clock import Clock, PaymentIds
from gateway.engine.core import Core
from gateway.engine.loop import Engine
from gateway.engine.model import Answered, Cancel, Capture, Create, EngineEvent, Kind, LegOut, Payment
from gateway.engine.ports import Call
from gateway.engine.states import State
from gateway.engine.transitions import Timing
from gateway.journal.conservation import compare, compare_holds
from gateway.journal.postgres import PostgresJournal
from gateway.journal.postgres_check import examine_postgresql
from gateway.journal.postgres_neighbours import PostgresNeighbours
from gateway.links.loopback import LoopbackLink
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret
from sandbox.participants.books import Books, holds, totals
from sandbox.participants.script import Latency, Script
from sandbox.participants.simulated import Participants, SimulatedAcquirer, SimulatedIssuer
from tests.deadlines import CALL_S

TOKEN = "6212345678901234"
MERCHANT = "m1"
OPENING_MINOR = 10_000_000
LEASE_US = 700_000
BEAT_S = 0.15
TIMING = Timing(leg_timeout_us=2_000_000, inquiry_us=200_000, reversal_us=200_000)
CLOCK = Clock()
IDS = PaymentIds()


class Caller:
    """Waits for its one answer."""

    def __init__(self, told: Callable[[bytes | HutongError], None] = lambda _: None) -> None:
        self._answer: bytes | HutongError | None = None
        self._told = told
        self._done = threading.Event()

    def answer(self, payload: bytes) -> None:
        assert self._answer is None, "answered twice"
        self._answer = payload
        self._done.set()
        self._told(payload)

    def fail(self, error: HutongError) -> None:
        assert self._answer is None, "answered twice"
        self._answer = error
        self._done.set()
        self._told(error)

    @property
    def answered(self) -> bool:
        return self._done.is_set()

    @property
    def result(self) -> bytes | HutongError:
        assert self._done.wait(CALL_S), "no answer"
        assert self._answer is not None
        return self._answer

    @property
    def outcome(self) -> str:
        """The name of the final state or of the error."""
        result = self.result
        if isinstance(result, HutongError):
            return result.name
        return State(pb.CreatePaymentResponse.FromString(result).payment.state).name


class SharedLink:
    """Participants that several engines of one process talk to, one at a time; none before they are there."""

    def __init__(self, lock: threading.Lock, participants: Participants | None = None) -> None:
        self._lock = lock
        self._link = LoopbackLink(participants) if participants is not None else None

    def use(self, participants: Participants) -> None:
        self._link = LoopbackLink(participants)

    def reachable(self, participant: str) -> bool:
        return self._link is not None and self._link.reachable(participant)

    def send(self, legs: Sequence[LegOut], now_us: int) -> list[Answered]:
        if self._link is None:
            return []  # lost on the way
        with self._lock:
            return self._link.send(legs, now_us)

    def poll(self, now_us: int) -> list[Answered]:
        return self._link.poll(now_us) if self._link is not None else []

    def next_due_us(self) -> int | None:
        return self._link.next_due_us() if self._link is not None else None

    def close(self) -> None: ...


class NoCalls:
    """Tests give engines events, not calls."""

    waiting = False

    def prepare(self, calls: Sequence[Call], now_us: int, room: int) -> list[EngineEvent]:
        raise AssertionError(calls)

    def refuse(self, error: HutongError) -> None: ...

    def end(self, error: HutongError) -> None: ...


class Node:
    """One gateway's engine."""

    def __init__(self, url: str, link: SharedLink, *, lease_us: int = LEASE_US, clock: Clock = CLOCK) -> None:
        self.journal = PostgresJournal(url, lease_us=lease_us)
        self.core = Core(TIMING)
        self.engine = Engine(self.core, self.journal, link, NoCalls(), clock=clock)
        self.neighbours = PostgresNeighbours(self.journal, self.core, self.engine.inbox, clock=clock, beat_s=BEAT_S)
        self.engine.join(self.neighbours)

    def start(self) -> Node:
        self.engine.recover()
        self.engine.start()
        return self

    def create(self, payment: Payment, caller: Caller | None = None, *, reply_in_us: int = 15_000_000) -> Caller:
        caller = caller or Caller()
        self.engine.inbox.put([Create(payment, caller, CLOCK.now_us() + reply_in_us)])
        return caller

    def cancel(self, payment_id: bytes) -> Caller:
        caller = Caller()
        self.engine.inbox.put([Cancel(payment_id, caller)])
        return caller

    def capture(self, payment_id: bytes, amount_minor: int = 0, *, reply_in_us: int = 15_000_000) -> Caller:
        caller = Caller()
        self.engine.inbox.put([Capture(payment_id, amount_minor, caller, CLOCK.now_us() + reply_in_us)])
        return caller

    def stop(self) -> None:
        self.engine.drain(5.0)
        self.journal.close()


def draft(amount_minor: int = 1000, key: str = "", **changes: object) -> Payment:
    """A new payment from issuer-a to acquirer-a."""
    now_us = CLOCK.now_us()
    payment_id = IDS.next(now_us)
    payment = Payment(
        payment_id=payment_id,
        kind=Kind.PAYMENT,
        amount_minor=amount_minor,
        currency="CNY",
        debtor="issuer-a",
        creditors=("acquirer-a",),
        created_us=now_us,
        deadline_us=now_us + 60_000_000,
        idempotency=key.encode().ljust(16) if key else payment_id,
        fingerprint=str(amount_minor).encode().ljust(16),
        account=Secret(TOKEN),
        merchant_id=MERCHANT,
        spend_reason=Reason.ERROR_REASON_CODE_SPENT,
    )
    for name, value in changes.items():
        setattr(payment, name, value)
    return payment


def hold(amount_minor: int = 1000, lasts_us: int = 3_600_000_000, **changes: object) -> Payment:
    """A payment whose funds are to be held."""
    payment = draft(amount_minor, **changes)  # type: ignore[arg-type]
    payment.authorised_minor, payment.hold_until_us = amount_minor, CLOCK.now_us() + lasts_us
    return payment


def refund(original: bytes, amount_minor: int) -> Payment:
    """A refund of a payment that acquirer-a credited."""
    return draft(
        amount_minor,
        kind=Kind.REFUND,
        debtor="acquirer-a",
        creditors=("issuer-a",),
        account=None,
        original_id=original,
        debit_original=original + b"\x02",
        credit_original=original + b"\x01",
    )


class Pair:
    """Two engines, one set of participants."""

    def __init__(self, url: str, folder: Path, *, latency_us: int = 0) -> None:
        self.url = url
        self.books, self.participants = open_participants(folder, latency_us=latency_us)
        lock = threading.Lock()
        self.nodes = [Node(url, SharedLink(lock, self.participants)).start() for _ in range(2)]

    def check(self) -> None:
        """Nothing is in flight, and journal and books agree, on what is held too."""
        report = examine_postgresql(self.url)
        compare(report, totals(self.books.path))
        compare_holds(report, holds(self.books.path))
        assert report.conserved, report.findings
        assert report.in_flight == 0

    def close(self) -> None:
        for node in self.nodes:
            node.stop()
        self.books.close()


def open_participants(folder: Path, *, latency_us: int = 0) -> tuple[Books, Participants]:
    """An issuer and an acquirer on books in a folder."""
    books = Books(folder)
    issuer = SimulatedIssuer("issuer-a", books, magic_amounts=False)
    acquirer = SimulatedAcquirer("acquirer-a", books, magic_amounts=False)
    issuer.ledger.open_accounts([(TOKEN, "CNY", OPENING_MINOR)])
    acquirer.ledger.open_accounts([(MERCHANT, "CNY", 0)])
    for participant in (issuer, acquirer):
        participant.script = Script(latency=Latency(latency_us, 0.0)) if latency_us else Script()
    return books, Participants(books, [issuer, acquirer])


def serve(pipe: Connection, url: str, folder: str) -> None:
    """A gateway's engine in a process of its own that pays without end, and tells what it acknowledged."""
    books, participants = open_participants(Path(folder), latency_us=20_000)
    node = Node(url, SharedLink(threading.Lock(), participants)).start()
    sent = threading.Lock()

    def told(payment: Payment, answer: bytes | HutongError) -> None:
        with sent:
            if isinstance(answer, bytes):
                state = pb.CreatePaymentResponse.FromString(answer).payment.state
                pipe.send((payment.payment_id, int(state)))

    while True:
        for _ in range(20):
            payment = draft(10)
            node.create(payment, Caller(lambda answer, payment=payment: told(payment, answer)))  # type: ignore[misc]
        time.sleep(0.005)
        assert not books.path.is_dir()
