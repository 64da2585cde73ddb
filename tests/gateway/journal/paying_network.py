"""A network on PostgreSQL (HUTONG_JOURNAL) with payments in flight, to be killed by a test."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import grpc

from hutong.gateway.v1 import payment_pb2 as pb
from hutong.gateway.v1 import payment_pb2_grpc as rpc
from hutong.tokenization.v1 import token_pb2
from sandbox.network import Network
from sandbox.options import NetworkOptions
from sandbox.participants.script import Latency, Script


def main() -> None:
    """Runs until killed."""
    options = NetworkOptions(data=Path(sys.argv[1]), seed=4, listen="127.0.0.1:0", journal=os.environ["HUTONG_JOURNAL"])
    network = Network.start(options)
    for participant in network.participants.values():
        participant.script = Script(latency=Latency(300_000, 0.0))
    token = network.wallet_tokens["wallet-01"].reveal()
    stub = rpc.PaymentServiceStub(grpc.insecure_channel(network.target))
    calls = [
        stub.CreatePayment.future(
            pb.CreatePaymentRequest(
                idempotency_key=f"key-{number}",
                payer=pb.RoutingKey(token=token_pb2.TokenKey(token=token)),
                payee=pb.RoutingKey(merchant=pb.MerchantKey(merchant_id="m1001")),
                amount_minor=100,
                currency="CNY",
            )
        )
        for number in range(30)
    ]
    while network.gateway.engine.in_flight < len(calls):
        time.sleep(0.005)
    sys.stdout.write("in flight\n")
    sys.stdout.flush()
    time.sleep(60)


if __name__ == "__main__":
    main()
