"""One participant serves several gateways: the same leg from each is done once, and its books have one keeper."""

from __future__ import annotations

import queue
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from hutong.participant.v1 import participant_pb2 as pb
from hutong.participant.v1 import participant_pb2_grpc as rpc
from hutong_client.options import ClientOptions
from hutong_client.wire import open_channel
from hutong_contract.secret import Secret
from sandbox.participants.books import Books, totals
from sandbox.participants.ledger import Role
from sandbox.participants.process import Desk, Runner, serve, stop
from sandbox.participants.simulated import SimulatedParticipant
from tests.deadlines import CALL_S, START_S, wait_until

pytestmark = pytest.mark.process

PAYMENT = b"one payment's id"
DEBIT = pb.Leg(
    leg_id=PAYMENT + b"\x01", kind=pb.LEG_KIND_DEBIT, amount_minor=300, currency="CNY", account="6217000130000009"
)
INQUIRY = pb.Leg(leg_id=PAYMENT + b"\xf1", kind=pb.LEG_KIND_INQUIRY, original_leg_id=DEBIT.leg_id)


class FakeGateway(rpc.ParticipantServiceServicer):
    """Sends what it is told to, and keeps the answers; welcomes whoever comes, also after it was cut off."""

    def __init__(self) -> None:
        self.legs: queue.Queue[pb.Leg | None] = queue.Queue()
        self.answers: queue.Queue[pb.Answer] = queue.Queue()
        self.connected = 0

    def Connect(  # noqa: N802 - the contract's name
        self, requests: Iterator[pb.ConnectRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ConnectResponse]:
        assert next(requests).hello.participant_id == "issuer-a"
        self.connected += 1
        threading.Thread(target=self._read, args=(requests,), daemon=True).start()
        yield pb.ConnectResponse(welcome=pb.Welcome(window=1))
        while (leg := self.legs.get()) is not None:
            yield pb.ConnectResponse(legs=pb.LegFrame(legs=[leg]))

    def _read(self, requests: Iterator[pb.ConnectRequest]) -> None:
        try:
            for request in requests:
                for answer in request.answers.answers:
                    self.answers.put(answer)
        except (grpc.RpcError, StopIteration):
            return

    def ask(self, leg: pb.Leg) -> pb.Answer:
        self.legs.put(leg)
        return self.answers.get(timeout=CALL_S)


@contextmanager
def served(gateway: FakeGateway) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4))
    rpc.add_ParticipantServiceServicer_to_server(gateway, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        gateway.legs.put(None)
        server.stop(0).wait()


def test_a_leg_from_two_gateways_is_done_once(tmp_path: Path) -> None:
    """The second gateway took the payment over: it sends the leg again, or asks for it, and hears the same."""
    books = Books(tmp_path)
    participant = SimulatedParticipant("issuer-a", Role.ISSUER, books)
    participant.ledger.open_accounts([(DEBIT.account, "CNY", 1_000)])
    first, second = FakeGateway(), FakeGateway()
    with served(first) as one, served(second) as other:
        channels = [open_channel(target, ClientOptions()) for target in (one, other)]
        desk = Desk(participant)
        runners = [Runner(desk, channel, Secret("")) for channel in channels]
        serving = threading.Thread(target=serve, args=(runners,))
        serving.start()
        told = first.ask(DEBIT)
        assert told.result == pb.ANSWER_RESULT_APPROVED
        assert second.ask(DEBIT) == told
        assert second.ask(INQUIRY).result == pb.ANSWER_RESULT_APPROVED
        first.legs.put(None)  # the stream ends: it is opened again, and the other one was not disturbed
        assert first.ask(DEBIT) == told
        assert (first.connected, second.connected) == (2, 1)
        stop(runners)
        serving.join(CALL_S)
        assert not serving.is_alive()
        for channel in channels:
            channel.close()
    assert participant.ledger.balance_minor(DEBIT.account, "CNY") == 700
    books.close()
    assert totals(tmp_path / "books.db") == {("issuer-a", PAYMENT, "CNY"): -300}


def test_books_have_one_keeper(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "sandbox.participants.process", "--target", "127.0.0.1:1", "--id", "issuer-a"]
    command += ["--role", "issuer", "--folder", str(tmp_path), "--until-eof"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as keeper:
        wait_until(lambda: (tmp_path / "books.db").exists() or keeper.poll() is not None, START_S)
        assert keeper.poll() is None
        other = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=CALL_S)
        assert (other.returncode, "another process keeps the books" in other.stderr) == (1, True)
        assert keeper.stdin is not None
        keeper.stdin.close()
        assert keeper.wait(CALL_S) == 0


def test_full_disk_and_a_log_on_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Books that cannot be written are silence towards the gateway, also where nothing can be said about it."""
    monkeypatch.setattr("sandbox.participants.books.BUSY_TIMEOUT_MS", 1)
    books = Books(tmp_path)
    participant = SimulatedParticipant("issuer-a", Role.ISSUER, books)
    participant.ledger.open_accounts([(DEBIT.account, "CNY", 1_000)])
    limit = sqlite3.connect(books.path, isolation_level=None)
    limit.execute("BEGIN EXCLUSIVE")
    with (tmp_path / "full").open("w") as log:
        log.close()
        monkeypatch.setattr(sys, "stderr", log)
        assert Desk(participant).work([DEBIT]) == []
    limit.execute("ROLLBACK")
    limit.close()
    ((_, answers),) = Desk(participant).work([DEBIT])
    assert answers[0].result == pb.ANSWER_RESULT_APPROVED
    books.close()
