"""Storms of queries and of payments on a running network: payments succeed, the excess is refused with its reason."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway import admission
from gateway.budgets import QueryLimits
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.gateway.v1 import payment_pb2_grpc as rpc
from hutong.tokenization.v1 import token_pb2
from hutong_client.client import HutongClient
from hutong_client.options import ClientOptions, RetryOptions
from hutong_contract.errors import HutongError, from_rpc_error
from hutong_contract.names import CALLER_METADATA
from sandbox.checking import check_folder
from sandbox.network import Network
from sandbox.options import NetworkOptions
from tests.deadlines import CALL_S

BURST = 5
CALLERS = 4
WAVES_MAX = 50
_numbers = itertools.count()


@pytest.fixture(scope="module", params=["native", "aio"])
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp(str(request.param))
    limits = QueryLimits(rate_per_s=0.001, burst=BURST)  # nothing is refilled while the tests run
    options = NetworkOptions(data=folder, seed=3, listen="127.0.0.1:0", front=str(request.param), queries=limits)
    with Network.start(options) as network:
        yield network
    report = check_folder(folder)
    assert report.conserved, report.findings


def payment(network: Network) -> pb.CreatePaymentRequest:
    token = network.wallet_tokens["wallet-01"].reveal()
    return pb.CreatePaymentRequest(
        idempotency_key=f"storm-{next(_numbers)}",
        payer=pb.RoutingKey(token=token_pb2.TokenKey(token=token)),
        payee=pb.RoutingKey(merchant=pb.MerchantKey(merchant_id="m1001")),
        amount_minor=7,
        currency="CNY",
    )


def said(call: Callable[[], Any]) -> Any:
    """A call's answer, or its typed error."""
    try:
        return call()
    except grpc.RpcError as failure:
        return from_rpc_error(failure) or failure


def test_payments_succeed_in_a_storm_of_queries_whose_excess_is_refused(network: Network) -> None:
    with grpc.insecure_channel(network.target) as channel:
        stub = rpc.PaymentServiceStub(channel)
        known = stub.CreatePayment(payment(network), timeout=CALL_S).payment
        ask = pb.GetPaymentRequest(payment_id=known.payment_id)
        queries, payments = [], []
        for _ in range(50):
            for caller in range(CALLERS):
                name = ((CALLER_METADATA, f"storm-{caller}"),)
                queries.append(stub.GetPayment.future(ask, timeout=CALL_S, metadata=name))
            payments.append(stub.CreatePayment.future(payment(network), timeout=CALL_S))
        paid = [one.result().payment for one in payments]
        answers = [said(one.result) for one in queries]
        assert {one.state for one in paid} == {pb.PAYMENT_STATE_SUCCEEDED}
        refused = [answer for answer in answers if isinstance(answer, HutongError)]
        assert len(answers) - len(refused) == CALLERS * BURST
        assert {error.name for error in refused} == {"QUERY_BUDGET_SPENT"}
        assert all(error.retry_us > 0 for error in refused)
        assert {one.payment.payment_id for one in answers if isinstance(one, pb.GetPaymentResponse)} == {
            known.payment_id
        }

        storm = ((CALLER_METADATA, "storm-0"),)
        stream = stub.WatchPayments(pb.WatchPaymentsRequest(), timeout=CALL_S, metadata=storm)
        assert said(lambda: next(iter(stream))).name == "QUERY_BUDGET_SPENT"
        # Health is nobody's query, and another caller's budget is its own.
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=CALL_S)
        assert health.status == health_pb2.HealthCheckResponse.SERVING
        assert stub.GetPayment(ask, timeout=CALL_S, metadata=((CALLER_METADATA, "other"),)).payment == known


@pytest.mark.slow
def test_callers_without_a_name_have_a_budget_for_each_connection(network: Network) -> None:
    ask = pb.GetPaymentRequest(payment_id="00000000-0000-7000-8000-000000000000")
    for _ in range(2):
        with grpc.insecure_channel(network.target, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            stub = rpc.PaymentServiceStub(channel)
            seen = Counter(said(lambda stub=stub: stub.GetPayment(ask, timeout=CALL_S)).name for _ in range(2 * BURST))
        assert seen == {"PAYMENT_NOT_FOUND": BURST, "QUERY_BUDGET_SPENT": BURST}


def test_an_overload_is_refused_and_what_is_repeated_is_paid_once(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WAITING_MIN", "WAITING_MAX"):
        monkeypatch.setattr(admission, name, 2)
    network.gateway.gate.bound = 2
    refused: list[tuple[pb.CreatePaymentRequest, HutongError]] = []
    paid = 0
    with grpc.insecure_channel(network.target) as channel:
        stub = rpc.PaymentServiceStub(channel)
        for _ in range(WAVES_MAX):
            requests = [payment(network) for _ in range(100)]
            calls = [stub.CreatePayment.future(request, timeout=CALL_S) for request in requests]
            for request, call in zip(requests, calls, strict=True):
                answer = said(call.result)
                if isinstance(answer, HutongError):
                    refused.append((request, answer))
                else:
                    assert answer.payment.state == pb.PAYMENT_STATE_SUCCEEDED
                    paid += 1
            if refused:
                break
    assert paid
    assert {error.name for _, error in refused} == {"OVERLOADED"}
    assert {error.retry_us for _, error in refused} == {admission.RETRY_US}
    with HutongClient(network.target, ClientOptions(retry=RetryOptions(attempts_max=10))) as client:
        for request, _ in refused[:20]:
            first = client.call(rpc.PaymentServiceStub(client.channel).CreatePayment, request, repeatable=True)
            again = client.call(rpc.PaymentServiceStub(client.channel).CreatePayment, request, repeatable=True)
            assert first.payment.state == pb.PAYMENT_STATE_SUCCEEDED
            assert again == first
