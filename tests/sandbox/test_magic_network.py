"""Proves on a real network that each magic amount comes to what its line in the table says, with money conserved."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gateway.engine.transitions import Timing
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.participant.v1 import participant_pb2 as participant
from hutong_client import keys
from hutong_client.client import HutongClient
from hutong_client.wording import state_name
from hutong_contract.names import WALLET_TRID
from sandbox.checking import check_folder
from sandbox.network import Network
from sandbox.options import NetworkOptions
from sandbox.participants.magic import MAGIC, Magic

IMPATIENT = Timing(leg_timeout_us=400_000, inquiry_us=200_000, reversal_us=200_000)
CODE = re.compile(r"\((\d\d)\)")
"""How a line of the table names a response code."""
PAYS = (participant.LEG_KIND_DEBIT, participant.LEG_KIND_CREDIT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("network")


@pytest.fixture(scope="module")
def network(folder: Path) -> Iterator[Network]:
    with Network.start(NetworkOptions(data=folder, seed=9, listen="127.0.0.1:0", timing=IMPATIENT)) as network:
        yield network


def check(line: Magic, payment: pb.Payment, digits: int) -> None:
    """That a payment or refund ended as its line of the table says."""
    assert state_name(payment.state) == line.ends, digits
    if code := CODE.search(line.text):
        assert payment.reason == code[1], digits


def pay(client: HutongClient, network: Network, digits: int, hold_s: int | None = None) -> pb.Payment:
    token = network.wallet_tokens["wallet-01"].reveal()
    payment = client.create_payment(
        payer=keys.token(token, WALLET_TRID),
        payee=keys.merchant("m1002"),
        amount_minor=20_000 + digits,
        currency="CNY",
        hold_s=hold_s,
    )
    return client.settled(payment)


def states(client: HutongClient, payment: pb.Payment) -> set[str]:
    seen = set()
    for event in client.watch_payments(payment_id=payment.payment_id, deadline_s=10):
        seen.add(state_name(event.state))
        if event.state == payment.state:
            break
    return seen


@pytest.mark.slow
def test_each_amount_comes_to_what_the_table_says(network: Network, folder: Path) -> None:
    with HutongClient(network.target) as client, ThreadPoolExecutor(len(MAGIC)) as workers:
        payments = dict(zip(MAGIC, workers.map(lambda digits: pay(client, network, digits), MAGIC), strict=True))
        for digits, payment in payments.items():
            line = MAGIC[digits]
            if line.kind not in PAYS:
                assert state_name(payment.state) == "SUCCEEDED", digits  # until it is refunded, or captured
                continue
            check(line, payment, digits)
            unknown = {name for name in states(client, payment) if name.endswith("UNKNOWN")}
            assert bool(unknown) is ("UNKNOWN" in line.text), digits
        home = network.population.merchants[1].home
        assert payments[9106].acquirer_id != home
        assert payments[9023].acquirer_id == home
        for digits, line in MAGIC.items():
            if line.kind == participant.LEG_KIND_REFUND:
                refund = client.refund_payment(payments[digits].payment_id, amount_minor=digits)
                check(line, client.settled(refund), digits)
            elif line.kind == participant.LEG_KIND_CAPTURE:
                held = pay(client, network, 0, hold_s=600)
                check(line, client.settled(client.capture_payment(held.payment_id, amount_minor=digits)), digits)
    report = check_folder(folder)
    assert report.findings == []
    assert report.in_flight == 0
