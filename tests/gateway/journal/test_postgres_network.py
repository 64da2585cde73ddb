"""A whole network on PostgreSQL: paid, killed, recovered at once, checked by the command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from command.check import check
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.gateway.v1 import payment_pb2_grpc as rpc
from hutong.tokenization.v1 import token_pb2
from sandbox.checking import check_folder
from sandbox.journals import JournalError, check_url, open_journal, remembered
from sandbox.network import Network, NetworkError
from sandbox.options import NetworkOptions
from tests.deadlines import CALL_S, wait_until


def request(token: str, key: str) -> pb.CreatePaymentRequest:
    return pb.CreatePaymentRequest(
        idempotency_key=key,
        payer=pb.RoutingKey(token=token_pb2.TokenKey(token=token)),
        payee=pb.RoutingKey(merchant=pb.MerchantKey(merchant_id="m1001")),
        amount_minor=100,
        currency="CNY",
    )


def options(folder: Path, url: str) -> NetworkOptions:
    return NetworkOptions(data=folder, seed=4, listen="127.0.0.1:0", journal=url)


def test_paid_watched_and_checked(url: str, tmp_path: Path) -> None:
    with Network.start(options(tmp_path, url)) as network, grpc.insecure_channel(network.target) as channel:
        stub = rpc.PaymentServiceStub(channel)
        token = network.wallet_tokens["wallet-01"].reveal()
        paid = stub.CreatePayment(request(token, "one"), timeout=CALL_S)
        assert paid.payment.state == pb.PAYMENT_STATE_SUCCEEDED
        assert stub.CreatePayment(request(token, "one"), timeout=CALL_S) == paid
        read = stub.GetPayment(pb.GetPaymentRequest(payment_id=paid.payment.payment_id), timeout=CALL_S)
        assert [leg.state for leg in read.legs] == ["approved", "approved"]
        assert read.candidates
        watched = stub.WatchPayments(pb.WatchPaymentsRequest(), timeout=CALL_S)
        states: list[int] = []
        while len(states) < 3:
            states.extend(event.state for event in next(watched).events)
        assert states == [pb.PAYMENT_STATE_DEBITING, pb.PAYMENT_STATE_CREDITING, pb.PAYMENT_STATE_SUCCEEDED]
        watched.cancel()
    result = CliRunner().invoke(check, [str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert (report["conserved"], report["payments"], report["in_flight"]) == (True, 1, 0)


@pytest.mark.slow
def test_a_killed_gateway_has_its_payments_back_at_once(url: str, tmp_path: Path) -> None:
    """Its folder's name at the database is its own: the next start does not wait for the lease to run out."""
    environment = {**os.environ, "HUTONG_JOURNAL": url, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "tests.gateway.journal.paying_network", str(tmp_path)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "in flight"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert check_folder(tmp_path, url).in_flight > 0
    with Network.start(options(tmp_path, url)) as network:
        assert network.recovered > 0  # so it has its old number, whose lease has not run out
        wait_until(lambda: network.gateway.engine.in_flight == 0)
    report = check_folder(tmp_path, url)
    assert report.conserved, report.findings
    assert report.in_flight == 0


def test_a_database_belongs_to_one_network(url: str, tmp_path: Path) -> None:
    """Another network's participants know nothing of these payments, so its gateway must not take them over."""
    with Network.start(options(tmp_path / "a", url)):
        with pytest.raises(JournalError, match="another gateway runs on"):
            open_journal(tmp_path / "a", url)
        with pytest.raises(NetworkError, match="journal of another network"):
            Network.start(options(tmp_path / "b", url))
        same = open_journal(tmp_path / "b", url, key=(tmp_path / "a" / "gateway.key").read_bytes())
        same.journal.close()
        same.unlock()


def test_urls() -> None:
    assert remembered("postgresql://h/x") == "postgresql://h/x"
    assert remembered("postgresql://u:secret@h/x") == ""
    with pytest.raises(JournalError, match="postgresql://"):
        check_url("mysql://h/x")


def test_a_server_that_is_not_there_ends_the_start_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(NetworkError) as refused:
        Network.start(options(tmp_path, "postgresql://u:hunter2@127.0.0.1:1/x"))
    assert "not a usable journal" in str(refused.value)
    assert "hunter2" not in str(refused.value)
