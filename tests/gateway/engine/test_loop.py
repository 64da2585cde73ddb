"""The tick loop on real parts: a full disk stops acknowledging and loses nothing, overload is refused, drain ends."""

from __future__ import annotations

import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from gateway.engine.transitions import Timing
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.gateway.v1 import payment_pb2_grpc as rpc
from hutong.tokenization.v1 import token_pb2
from hutong_contract.errors import from_rpc_error
from sandbox.checking import check_folder
from sandbox.network import Network
from sandbox.options import NetworkOptions
from sandbox.participants.script import Latency, Script
from tests.deadlines import CALL_S, wait_until

TIMING = Timing(leg_timeout_us=500_000, inquiry_us=200_000, reversal_us=200_000)


def options(folder: Path, **changes: object) -> NetworkOptions:
    return NetworkOptions(data=folder, seed=4, listen="127.0.0.1:0", timing=TIMING, **changes)  # type: ignore[arg-type]


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    with Network.start(options(tmp_path, in_flight_max=64)) as network:
        yield network


def request(network: Network, key: str, amount_minor: int = 100) -> pb.CreatePaymentRequest:
    token = network.wallet_tokens["wallet-01"].reveal()
    return pb.CreatePaymentRequest(
        idempotency_key=key,
        payer=pb.RoutingKey(token=token_pb2.TokenKey(token=token)),
        payee=pb.RoutingKey(merchant=pb.MerchantKey(merchant_id="m1001")),
        amount_minor=amount_minor,
        currency="CNY",
    )


def reason(error: grpc.RpcError) -> str:
    typed = from_rpc_error(error)
    return typed.name if typed else str(error)


@pytest.mark.slow
def test_a_full_disk_stops_acknowledging_and_ends_without_loss(network: Network) -> None:
    """Fault 13."""
    for participant in network.participants.values():
        participant.script = Script(latency=Latency(300_000, 0.0))
    with grpc.insecure_channel(network.target) as channel:
        stub = rpc.PaymentServiceStub(channel)
        assert (
            stub.CreatePayment(request(network, "before"), timeout=CALL_S).payment.state == pb.PAYMENT_STATE_SUCCEEDED
        )
        under_way = stub.CreatePayment.future(request(network, "under-way"), timeout=CALL_S)
        wait_until(lambda: network.gateway.engine.in_flight == 1)
        # No file may grow: every write to a log fails as on a full disk (EFBIG instead of ENOSPC).
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        with pytest.raises(grpc.RpcError) as refused:
            stub.CreatePayment(request(network, "refused"), timeout=CALL_S)
        assert reason(refused.value) == "JOURNAL_UNAVAILABLE"
        assert not network.gateway.engine.writable
        with pytest.raises(grpc.RpcError) as again:
            stub.CreatePayment(request(network, "refused"), timeout=CALL_S)
        assert reason(again.value) == "JOURNAL_UNAVAILABLE"
        assert not under_way.done()
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        wait_until(lambda: network.gateway.engine.writable)
        assert under_way.result().payment.state == pb.PAYMENT_STATE_SUCCEEDED
        after = stub.CreatePayment(request(network, "refused"), timeout=CALL_S).payment
        assert after.state == pb.PAYMENT_STATE_SUCCEEDED
    assert network.close() is True
    report = check_folder(network.data)
    assert report.conserved, report.findings
    assert report.by_state == {"SUCCEEDED": 3}


def test_overload_is_refused_at_once_and_what_is_in_flight_is_not_harmed(network: Network) -> None:
    for participant in network.participants.values():
        participant.script = Script(latency=Latency(300_000, 0.0))
    with grpc.insecure_channel(network.target) as channel:
        stub = rpc.PaymentServiceStub(channel)
        first = [stub.CreatePayment.future(request(network, f"first-{i}"), timeout=CALL_S) for i in range(64)]
        wait_until(lambda: network.gateway.engine.in_flight == 64)
        with pytest.raises(grpc.RpcError) as refused:
            stub.CreatePayment(request(network, "one too many"), timeout=CALL_S)
        assert reason(refused.value) == "OVERLOADED"
        assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED  # type: ignore[attr-defined]
        assert {call.result().payment.state for call in first} == {pb.PAYMENT_STATE_SUCCEEDED}
        assert stub.CreatePayment(request(network, "one too many"), timeout=CALL_S).payment.payment_id


def test_drain_ends_what_is_in_flight_and_refuses_the_rest(network: Network) -> None:
    for participant in network.participants.values():
        participant.script = Script(latency=Latency(200_000, 0.0))
    with grpc.insecure_channel(network.target) as channel:
        stub = rpc.PaymentServiceStub(channel)
        calls = [stub.CreatePayment.future(request(network, f"drain-{i}"), timeout=CALL_S) for i in range(10)]
        wait_until(lambda: network.gateway.engine.in_flight == 10)
        closing = threading.Thread(target=network.close)
        closing.start()
        wait_until(network.gateway.engine._draining.is_set)
        with pytest.raises(grpc.RpcError) as refused:
            stub.CreatePayment(request(network, "late"), timeout=CALL_S)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE  # type: ignore[attr-defined]
        assert {call.result().payment.state for call in calls} == {pb.PAYMENT_STATE_SUCCEEDED}
        closing.join()
    report = check_folder(network.data)
    assert report.conserved, report.findings
    assert report.in_flight == 0


def test_what_is_in_flight_at_a_hard_end_is_settled_by_the_next_start(tmp_path: Path) -> None:
    with Network.start(options(tmp_path, drain_s=0.1)) as network:
        network.participants["issuer-a"].script = Script(latency=Latency(5_000_000, 0.0))
        with grpc.insecure_channel(network.target) as channel:
            call = rpc.PaymentServiceStub(channel).CreatePayment.future(request(network, "long"), timeout=CALL_S)
            wait_until(lambda: network.gateway.engine.in_flight == 1)
            assert network.close() is False
            with pytest.raises(grpc.RpcError):
                call.result()
    assert check_folder(tmp_path).in_flight == 1
    with Network.start(options(tmp_path)) as network:
        assert network.recovered == 1
        wait_until(lambda: network.gateway.engine.in_flight == 0)
        with grpc.insecure_channel(network.target) as channel:
            repeated = rpc.PaymentServiceStub(channel).CreatePayment(request(network, "long"), timeout=CALL_S)
            assert repeated.payment.state == pb.PAYMENT_STATE_SUCCEEDED
    report = check_folder(tmp_path)
    assert report.conserved, report.findings


@pytest.mark.slow
def test_holds_do_not_count_as_in_flight_and_survive_restarts(tmp_path: Path) -> None:
    """More are held than may be in flight; they need no memory, and the next start can capture them."""
    held: list[str] = []
    with (
        Network.start(options(tmp_path, in_flight_max=64)) as network,
        grpc.insecure_channel(network.target) as channel,
    ):
        stub = rpc.PaymentServiceStub(channel)
        for start in (0, 60, 120):
            batch = pb.BatchCreatePaymentsRequest()
            for number in range(start, start + 60):
                asked = request(network, f"hold-{number}")
                asked.hold.SetInParent()
                batch.requests.append(asked)
            results = stub.BatchCreatePayments(batch, timeout=CALL_S).results
            assert {result.payment.state for result in results} == {pb.PAYMENT_STATE_HELD}
            held += [result.payment.payment_id for result in results]
            assert network.gateway.engine.in_flight == 0
        assert stub.CreatePayment(request(network, "paid"), timeout=CALL_S).payment.state == pb.PAYMENT_STATE_SUCCEEDED
    assert len(check_folder(tmp_path).held) == 180
    with Network.start(options(tmp_path)) as network, grpc.insecure_channel(network.target) as channel:
        assert network.recovered == 0
        stub = rpc.PaymentServiceStub(channel)
        for payment_id in held[::20]:
            captured = stub.CapturePayment(pb.CapturePaymentRequest(payment_id=payment_id), timeout=CALL_S).payment
            assert captured.state == pb.PAYMENT_STATE_SUCCEEDED
    report = check_folder(tmp_path)
    assert report.conserved, report.findings
    assert report.by_state == {"HELD": 171, "SUCCEEDED": 10}
