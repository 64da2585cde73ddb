"""Proves the participant as a process: it dials, answers, reconnects, keeps its books, and stops when told."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest

from hutong.participant.v1 import participant_pb2 as pb
from hutong.participant.v1 import participant_pb2_grpc as rpc
from hutong_contract.errors import DETAILS_METADATA_KEY, HutongError, Reason
from sandbox.participants.books import Books
from sandbox.participants.process import SECRET_VARIABLE, Outbox
from sandbox.participants.simulated import SimulatedIssuer
from tests.deadlines import CALL_S

pytestmark = pytest.mark.process

ROOT = Path(__file__).parents[3]
TOKEN = "6210000000000001"
SECRET = "the issuer's secret"


class Gateway(rpc.ParticipantServiceServicer):
    """Welcomes whoever shows the secret, sends what is put into `legs`, and keeps what comes back."""

    def __init__(self) -> None:
        self.legs: queue.SimpleQueue[pb.Leg | None] = queue.SimpleQueue()
        self.answers: queue.SimpleQueue[pb.Answer] = queue.SimpleQueue()
        self.hellos: queue.SimpleQueue[str] = queue.SimpleQueue()

    def Connect(self, requests: Iterator[pb.ConnectRequest], context: Any) -> Iterator[pb.ConnectResponse]:  # noqa: N802
        hello = next(requests).hello
        if hello.secret != SECRET:
            error = HutongError(Reason.ERROR_REASON_PARTICIPANT_REFUSED)
            context.set_trailing_metadata(((DETAILS_METADATA_KEY, error.to_status().SerializeToString()),))
            context.abort(error.status_code, str(error))
        self.hellos.put(hello.participant_id)
        yield pb.ConnectResponse(welcome=pb.Welcome(window=10))
        while (leg := self.legs.get()) is not None:
            yield pb.ConnectResponse(legs=pb.LegFrame(legs=[leg]))
            for answer in next(requests).answers.answers:
                self.answers.put(answer)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@pytest.fixture
def target(gateway: Gateway) -> Iterator[str]:
    server = grpc.server(futures.ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
    rpc.add_ParticipantServiceServicer_to_server(gateway, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    gateway.legs.put(None)
    server.stop(0).wait()


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(target: str, tmp_path: Path) -> Iterator[Start]:
    books = Books(tmp_path)
    SimulatedIssuer("issuer-a", books).ledger.open_accounts([(TOKEN, "CNY", 1_000)])
    books.close()
    running: list[subprocess.Popen[str]] = []

    def launch(secret: str = SECRET) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'proto/gen'}", SECRET_VARIABLE: secret}
        command = [sys.executable, "-m", "sandbox.participants.process", "--target", target]
        command += ["--id", "issuer-a", "--role", "issuer", "--folder", str(tmp_path)]
        process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        running.append(process)
        return process

    yield launch
    for process in running:
        process.kill()
        process.communicate()


def debit(payment: int) -> pb.Leg:
    return pb.Leg(
        leg_id=payment.to_bytes(16, "big") + b"\1",
        kind=pb.LEG_KIND_DEBIT,
        amount_minor=100,
        currency="CNY",
        account=TOKEN,
    )


def test_it_answers_reconnects_survives_a_kill_and_stops_when_told(gateway: Gateway, start: Start) -> None:
    first = start()
    assert gateway.hellos.get(timeout=CALL_S) == "issuer-a"
    gateway.legs.put(debit(1))
    assert gateway.answers.get(timeout=CALL_S).response_code == "00"
    gateway.legs.put(None)  # the gateway ends the stream
    assert gateway.hellos.get(timeout=CALL_S) == "issuer-a"
    first.kill()
    first.wait()
    gateway.legs.put(None)

    second = start()
    assert gateway.hellos.get(timeout=CALL_S) == "issuer-a"
    inquiry = pb.Leg(leg_id=b"\x81" * 17, kind=pb.LEG_KIND_INQUIRY, original_leg_id=debit(1).leg_id)
    gateway.legs.put(inquiry)
    assert gateway.answers.get(timeout=CALL_S).result == pb.ANSWER_RESULT_APPROVED
    second.send_signal(signal.SIGTERM)
    assert second.wait(CALL_S) == 0


def test_a_wrong_secret_ends_it_with_the_reason(start: Start) -> None:
    process = start("not it")
    _, errors = process.communicate(timeout=CALL_S)
    assert process.returncode == 1
    assert "PARTICIPANT_REFUSED" in errors
    assert "not it" not in errors


def test_answers_leave_in_the_order_of_their_delay() -> None:
    outbox = Outbox()
    for delay_us, name in ((40_000, b"late"), (0, b"first"), (0, b"second"), (20_000, b"middle")):
        frame = pb.AnswerFrame(answers=[pb.Answer(leg_id=name)])
        outbox.put(pb.ConnectRequest(answers=frame), delay_us)
    waiting = iter(outbox)
    left = [next(waiting).answers.answers[0].leg_id for _ in range(4)]
    assert left == [b"first", b"second", b"middle", b"late"]
    outbox.close()
    assert list(waiting) == []
