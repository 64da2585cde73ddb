"""kill -9 of real processes under load: nothing acknowledged is lost, everything in flight is settled (fault 11)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hutong.gateway.v1 import payment_pb2 as pb
from hutong.tokenization.v1 import token_pb2, token_pb2_grpc
from hutong_client import keys
from hutong_client.client import HutongClient
from hutong_client.errors import CallError
from hutong_client.options import ClientOptions
from hutong_contract.errors import HutongError
from hutong_contract.names import WALLET_TRID
from sandbox.checking import check_folder
from sandbox.population import populate
from tests.deadlines import CALL_S, START_S, wait_until

pytestmark = pytest.mark.process

KILLS = 2
LOAD_S = 0.7
SEED = 6
CAPTURES = 3
"""Holds of a batch that are captured."""
SETTLED = (pb.PAYMENT_STATE_SUCCEEDED, pb.PAYMENT_STATE_HELD)


class Gateway:
    """`hutong up` as a process."""

    def __init__(self, data: Path, *extra: str) -> None:
        (data / "network.json").unlink(missing_ok=True)
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-m", "command.main", "up", "--data", str(data), "--listen", "127.0.0.1:0"),
                *("--seed", str(SEED), "--no-magic", *extra),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.target = self._wait_for_target(data / "network.json")

    def _wait_for_target(self, path: Path) -> str:
        def started() -> bool:
            assert self._process.poll() is None, self._process.communicate()[1]
            return path.exists() and path.read_text().endswith("\n")

        wait_until(started, START_S)
        return str(json.loads(path.read_text())["target"])

    def kill(self) -> None:
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.communicate()

    def stop(self) -> str:
        self._process.terminate()
        _, errors = self._process.communicate(timeout=START_S)
        assert self._process.returncode == 0, errors
        return errors


class Load:
    """Pays without pause, and remembers what was asked for and what was acknowledged."""

    def __init__(self, round_: int) -> None:
        self.round = round_
        self.asked: list[str] = []
        self.acknowledged: dict[str, bytes] = {}

    def run(self, target: str, token: str, stop: threading.Event) -> None:
        with HutongClient(target, ClientOptions()) as client:
            while not stop.is_set():
                batch = [self._request(token, len(self.asked) + index) for index in range(50)]
                self.asked.extend(request.idempotency_key for request in batch)
                try:
                    results = client.batch_create_payments(batch, deadline_s=CALL_S)
                except (CallError, HutongError):
                    return
                for request, result in zip(batch, results, strict=True):
                    if isinstance(result, pb.Payment) and result.state in SETTLED:
                        self.acknowledged[request.idempotency_key] = result.SerializeToString()
                if not self._capture_some(client, batch):
                    return

    def _capture_some(self, client: HutongClient, batch: list[pb.CreatePaymentRequest]) -> bool:
        """Captures some of what a batch holds, one after the other; False where nobody answers any more."""
        holds = [request.idempotency_key for request in batch if request.HasField("hold")]
        for key in holds[:CAPTURES]:
            body = self.acknowledged.pop(key, None)
            if body is None:
                continue
            try:
                captured = client.capture_payment(
                    pb.Payment.FromString(body).payment_id, amount_minor=1, deadline_s=CALL_S
                )
            except (CallError, HutongError):
                return False
            if captured.state == pb.PAYMENT_STATE_SUCCEEDED:
                self.acknowledged[key] = captured.SerializeToString()
        return True

    def _request(self, token: str, number: int) -> pb.CreatePaymentRequest:
        return pb.CreatePaymentRequest(
            idempotency_key=f"{self.round}-{number}",
            payer=keys.token(token, WALLET_TRID),
            payee=keys.merchant("m1001"),
            amount_minor=1 + number % 7,
            currency="CNY",
            hold=pb.Hold() if number % 5 == 0 else None,
        )

    def repeat(self, client: HutongClient, token: str) -> None:
        """Every acknowledged payment is still there, and its request still gets the same answer."""
        known = list(self.acknowledged)
        for start in range(0, len(known), 500):
            some = known[start : start + 500]
            numbers = [int(key.split("-")[1]) for key in some]
            results = client.batch_create_payments([self._request(token, number) for number in numbers])
            for key, result in zip(some, results, strict=True):
                assert isinstance(result, pb.Payment)
                assert result.SerializeToString() == self.acknowledged[key]


def wallet_token(client: HutongClient) -> str:
    wallet = populate(SEED).wallets[0]
    answer = token_pb2_grpc.TokenServiceStub(client.channel).RequestToken(
        token_pb2.RequestTokenRequest(
            requestor_id=WALLET_TRID, issuer_id=wallet.issuer_id, account_number=wallet.account.reveal()
        ),
        timeout=CALL_S,
    )
    return str(answer.token)


@pytest.mark.parametrize(
    "extra", [(), ("--participants", "processes"), ("--front", "aio")], ids=["native", "processes", "aio"]
)
def test_kill_under_load_then_restart_loses_nothing(tmp_path: Path, extra: tuple[str, ...]) -> None:
    loads: list[Load] = []
    for round_ in range(KILLS if not extra else 1):
        gateway = Gateway(tmp_path, *extra)
        load, stop = Load(round_), threading.Event()
        with HutongClient(gateway.target) as client:
            token = wallet_token(client)
        thread = threading.Thread(target=load.run, args=(gateway.target, token, stop))
        thread.start()
        wait_until(lambda load=load: load.acknowledged)
        stop.wait(LOAD_S)
        gateway.kill()
        stop.set()
        thread.join()
        loads.append(load)
    assert sum(len(load.acknowledged) for load in loads) > 0
    gateway = Gateway(tmp_path, *extra)
    with HutongClient(gateway.target) as client:
        token = wallet_token(client)
        for load in loads:
            load.repeat(client, token)
    wait_until(lambda: not check_folder(tmp_path).in_flight)
    gateway.stop()
    report = check_folder(tmp_path)
    assert report.conserved, report.findings
    assert report.in_flight == 0
    assert report.held, "some of the load only held funds, and that is still so"
