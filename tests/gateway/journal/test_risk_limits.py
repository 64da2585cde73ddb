"""Two gateways on one PostgreSQL: of 64 callers at once exactly what a limit has room for is let in; holds are one."""

from __future__ import annotations

import shutil
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from gateway.engine.model import RISK_HOLD, Capture
from gateway.journal.postgres_reader import PostgresReader
from gateway.risk.rule_file import default_rules
from hutong.gateway.v1 import barcode_pb2, barcode_pb2_grpc
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.gateway.v1 import payment_pb2_grpc as rpc
from hutong.tokenization.v1 import token_pb2
from hutong_contract.errors import from_rpc_error
from sandbox.checking import check_folder
from sandbox.network import Network
from sandbox.options import NetworkOptions
from tests.deadlines import CALL_S
from tests.gateway.journal.shared import CLOCK, Caller, Node, SharedLink, draft, open_participants

CALLERS = 64
AMOUNT = 1_000
CAP = default_rules().limits["D", "CNY"]


def start(folder: Path, url: str, vault: Path, front: str) -> Network:
    return Network.start(
        NetworkOptions(
            data=folder, seed=4, listen="127.0.0.1:0", journal=url, vault=vault, front=front, magic_amounts=False
        )
    )


def sticker(channel: grpc.Channel) -> str:
    """A merchant's static code."""
    asked = barcode_pb2.EncodeRequest(account="m1001", merchant_name="shop", merchant_city="Beijing", currency="CNY")
    return str(barcode_pb2_grpc.BarcodeServiceStub(channel).Encode(asked, timeout=CALL_S).payload)


def pay(stub: rpc.PaymentServiceStub, token: str, code: str, key: str, amount: int = AMOUNT) -> str:
    request = pb.CreatePaymentRequest(
        idempotency_key=key,
        payer=pb.RoutingKey(token=token_pb2.TokenKey(token=token)),
        payee=pb.RoutingKey(barcode=code),
        amount_minor=amount,
        currency="CNY",
    )
    try:
        state = stub.CreatePayment(request, timeout=CALL_S).payment.state
    except grpc.RpcError as failure:
        refusal = from_rpc_error(failure)
        return failure.code().name if refusal is None else refusal.name
    return pb.PaymentState.Name(state).removeprefix("PAYMENT_STATE_")


def test_64_callers_at_two_gateways_reach_the_limit_and_do_not_pass_it(url: str, tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    vault = tmp_path / "vault"
    with start(folders[0], url, vault, "native") as first:
        folders[1].mkdir()
        for name in ("gateway.key", "directory.json"):
            shutil.copy2(folders[0] / name, folders[1] / name)
        with (
            start(folders[1], url, vault, "aio") as second,
            grpc.insecure_channel(first.target) as one,
            grpc.insecure_channel(second.target) as two,
            ThreadPoolExecutor(CALLERS) as callers,
        ):
            stubs = [rpc.PaymentServiceStub(one), rpc.PaymentServiceStub(two)]
            code = sticker(one)
            token = first.wallet_tokens["wallet-01"].reveal()
            told = list(callers.map(lambda n: pay(stubs[n % 2], token, code, f"key-{n}"), range(CALLERS)))
            assert Counter(told) == {"SUCCEEDED": CAP // AMOUNT, "DAILY_LIMIT": CALLERS - CAP // AMOUNT}
            assert pay(stubs[0], token, code, "one more", 1) == "DAILY_LIMIT"
            other = first.wallet_tokens["wallet-02"].reveal()
            assert pay(stubs[1], other, code, "another payer", AMOUNT) == "SUCCEEDED"
    reader = PostgresReader(url)
    refused = reader.decisions(None, 500)
    reader.close()
    assert Counter(row.limit for row in refused) == {"day D": CALLERS - CAP // AMOUNT + 1}
    report = check_folder(folders[0], url)
    assert report.by_state["SUCCEEDED"] == CAP // AMOUNT + 1
    assert [finding for finding in report.findings if "counter" in finding or "judgement" in finding] == []


def test_what_rules_hold_at_one_gateway_the_operator_releases_at_another(url: str, tmp_path: Path) -> None:
    """Whoever is not the operator is refused at both."""
    books, participants = open_participants(tmp_path)
    link = SharedLink(threading.Lock(), participants)
    nodes = [Node(url, link).start() for _ in range(2)]
    now_us = CLOCK.now_us()
    payment = draft(5_000, authorised_minor=5_000, hold_until_us=now_us + 3_600_000_000, reason=RISK_HOLD)
    assert nodes[0].create(payment).outcome == "HELD"
    for operator, outcome in ((False, "RISK_HELD"), (True, "SUCCEEDED"), (True, "SUCCEEDED")):
        for node in reversed(nodes):
            caller = Caller()
            until_us = CLOCK.now_us() + 10_000_000
            node.engine.inbox.put([Capture(payment.payment_id, 0, caller, until_us, operator)])
            assert caller.outcome == outcome
    for node in nodes:
        node.stop()
    books.close()
