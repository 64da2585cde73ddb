"""Status queries: quick while payments in flight leave the processor idle; answered again after a broken journal."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.calls import GET
from gateway.engine.answer import id_text
from gateway.engine.model import Kind, Payment, Writes
from gateway.journal.sqlite import SqliteJournal
from gateway.journal.sqlite_reader import SqliteReader
from gateway.queries import REST_MAX_S, Queries
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.errors import HutongError

WAIT_S = 60.0
ASKED = 200


class Asked:
    """A GetPayment call."""

    method = GET
    caller = ""
    time_left_us: int | None = None

    def __init__(self, payment_id: bytes) -> None:
        self.payload = pb.GetPaymentRequest(payment_id=id_text(payment_id)).SerializeToString()
        self.told: bytes | HutongError | None = None
        self.done = threading.Event()

    def answer(self, payload: bytes) -> None:
        self.told = payload
        self.done.set()

    def fail(self, error: HutongError) -> None:
        self.told = error
        self.done.set()


class Scene:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "journal.db"
        self.journal = SqliteJournal(self.path)
        self.payment = Payment(
            payment_id=bytes(range(16)),
            kind=Kind.PAYMENT,
            amount_minor=5,
            currency="CNY",
            debtor="issuer-a",
            creditors=("acquirer-a",),
            created_us=1,
            deadline_us=2,
            idempotency=b"i" * 16,
            fingerprint=b"f" * 16,
        )
        self.journal.commit(Writes(admissions=[self.payment]))
        self.readers: list[SqliteReader] = []
        self.queries = Queries(self.open_reader, {}, busy=lambda: True)

    def open_reader(self) -> SqliteReader:
        self.readers.append(SqliteReader(self.path))
        return self.readers[-1]

    def ask(self) -> bytes | HutongError | None:
        call = Asked(self.payment.payment_id)
        self.queries.submit(call)
        assert call.done.wait(WAIT_S)
        return call.told


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    one = Scene(tmp_path)
    yield one
    one.queries.close()
    one.journal.close()


def test_payments_in_flight_that_want_no_processor_are_not_waited_for(scene: Scene) -> None:
    begun_s = time.monotonic()
    for _ in range(ASKED):
        assert isinstance(scene.ask(), bytes)
    assert time.monotonic() - begun_s < ASKED * REST_MAX_S / 4


def test_queries_leave_the_processor_to_payments_that_want_it(scene: Scene) -> None:
    """A thread that always wants to run gets several times what queries get."""
    stop = threading.Event()
    work_s = [0.0]

    def work() -> None:
        while not stop.is_set():
            pass
        work_s[0] = time.thread_time()

    thread = threading.Thread(target=work)
    begun_s, own_s = time.process_time(), time.thread_time()
    thread.start()
    for _ in range(40):
        scene.ask()
    stop.set()
    thread.join()
    queries_s = time.process_time() - begun_s - work_s[0] - (time.thread_time() - own_s)
    assert work_s[0] > 4 * queries_s


def test_a_reader_that_broke_is_replaced(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    assert isinstance(scene.ask(), bytes)
    scene.readers[0].close()  # whatever it is asked now raises
    refused = scene.ask()
    assert isinstance(refused, HutongError)
    assert refused.name == "JOURNAL_UNAVAILABLE"
    assert "could not read the journal" in caplog.text
    assert isinstance(scene.ask(), bytes)
    assert len(scene.readers) == 2
