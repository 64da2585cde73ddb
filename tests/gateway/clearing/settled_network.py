"""A network for tests of settlement: pays, declines, fails over, reverses and refunds through the public contract."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gateway.engine.transitions import Timing
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.gateway.v1 import settlement_pb2 as settlement
from hutong_client import keys
from hutong_client.client import HutongClient
from hutong_contract.names import OPERATOR_TRID
from sandbox.network import Network
from sandbox.options import NetworkOptions

OPERATOR = settlement.SettlementCaller(requestor_id=OPERATOR_TRID)
TIMING = Timing(leg_timeout_us=150_000, inquiry_us=50_000, inquiries_max=3, reversal_us=50_000)
PLAIN = (1_00, 25_50, 3_07, 8_88)
TROUBLED = (90_05, 90_51, 91_05, 91_06, 90_21, 91_20, 91_21)
"""Declined, declined, refused by every acquirer, failed over, answers lost and found by inquiry; see magic amounts."""


def start(folder: Path, **changes: object) -> Network:
    return Network.start(
        NetworkOptions(data=folder, seed=4, listen="127.0.0.1:0", timing=TIMING, **changes)  # type: ignore[arg-type]
    )


def pay(
    network: Network,
    client: HutongClient,
    amounts: Sequence[int],
    *,
    wallet: str = "wallet-01",
    merchant: str = "m1001",
) -> list[pb.Payment]:
    """Payments with these amounts, as they ended."""
    token = network.wallet_tokens[wallet].reveal()
    made = [
        client.create_payment(
            payer=keys.token(token), payee=keys.merchant(merchant), amount_minor=amount, currency="CNY"
        )
        for amount in amounts
    ]
    return [client.settled(payment) for payment in made]


def trade(network: Network, client: HutongClient) -> list[pb.Payment]:
    """Something of everything; returns what succeeded, refunds among it."""
    done = [
        *pay(network, client, PLAIN),
        *pay(network, client, PLAIN, wallet="wallet-04", merchant="m2001"),
        *pay(network, client, TROUBLED, merchant="m1001"),
    ]
    succeeded = [payment for payment in done if payment.state == pb.PAYMENT_STATE_SUCCEEDED]
    assert len(PLAIN) * 2 < len(succeeded) < len(done)
    refunds = [
        client.refund_payment(succeeded[0].payment_id, amount_minor=30),
        client.refund_payment(succeeded[1].payment_id),
    ]
    return succeeded + [client.settled(refund) for refund in refunds]
