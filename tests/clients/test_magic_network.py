"""Proves on a real network that each magic amount comes to what its line in the table says, with money conserved."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from clients import keys
from clients.client import HutongClient
from clients.command.checking import check_folder
from clients.command.network import Network, NetworkOptions
from clients.participants.magic import MAGIC
from clients.wording import state_name
from gateway.engine.transitions import Timing
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.participant.v1 import participant_pb2 as participant

IMPATIENT = Timing(leg_timeout_us=400_000, inquiry_us=200_000, reversal_us=200_000)
PAYMENTS = {
    9005: ("DECLINED", "05"),
    9014: ("DECLINED", "14"),
    9051: ("DECLINED", "51"),
    9020: ("FAILED", ""),
    9105: ("FAILED", "05"),
    9120: ("FAILED", ""),
}
"""What payments of these amounts come to; all others succeed."""
REFUNDS = {9205: "DECLINED", 9220: "FAILED", 9221: "SUCCEEDED"}
UNKNOWN = {9020, 9021, 9022, 9024, 9120, 9121, 9122, 9124}
"""Amounts that must pass through an UNKNOWN state."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("network")


@pytest.fixture(scope="module")
def network(folder: Path) -> Iterator[Network]:
    with Network.start(NetworkOptions(data=folder, seed=9, listen="127.0.0.1:0", timing=IMPATIENT)) as network:
        yield network


def pay(client: HutongClient, network: Network, digits: int) -> pb.Payment:
    token = network.wallet_tokens["wallet-01"].reveal()
    payment = client.create_payment(
        payer=keys.token(token, "10000000002"),
        payee=keys.merchant("m1002"),
        amount_minor=20_000 + digits,
        currency="CNY",
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
            state, reason = PAYMENTS.get(digits, ("SUCCEEDED", ""))
            assert state_name(payment.state) == state, digits
            assert not reason or payment.reason == reason
            unknown = {name for name in states(client, payment) if name.endswith("UNKNOWN")}
            assert bool(unknown) is (digits in UNKNOWN), digits
        home = network.population.merchants[1].home
        assert payments[9106].acquirer_id != home
        assert payments[9023].acquirer_id == home
        for digits, expected in REFUNDS.items():
            refund = client.settled(client.refund_payment(payments[digits].payment_id, amount_minor=digits))
            assert state_name(refund.state) == expected, digits
    assert {digits for digits, line in MAGIC.items() if line.kind == participant.LEG_KIND_REFUND} == set(REFUNDS)
    report = check_folder(folder)
    assert report.findings == []
    assert report.in_flight == 0
