"""Through a whole gateway: what is spent once, what a budget allows, what a suspension stops."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from hutong.gateway.v1 import payment_pb2 as pb
from hutong.tokenization.v1 import token_pb2
from hutong_client import keys
from hutong_client.client import HutongClient
from hutong_contract import transit
from hutong_contract.cryptogram import cryptogram
from hutong_contract.errors import HutongError
from hutong_contract.secret import Secret
from sandbox.network import Network
from sandbox.options import NetworkOptions
from tokenization.domain import Budget
from tokenization.key_kinds import KeyKind
from tokenization.lifecycle import Event


class Shop:
    """A running network, one payer and one merchant."""

    def __init__(self, folder: Path) -> None:
        options = NetworkOptions(data=folder, listen="127.0.0.1:0", magic_amounts=False, opening_minor=10_000_000)
        self.network = Network.start(options)
        self.tokens = self.network.tokens
        self.client = HutongClient(self.network.target)
        wallet = self.network.population.wallets[0]
        self.token: Secret[str] = self.network.wallet_tokens[wallet.id]
        self.payee = keys.merchant(self.network.population.merchants[0].id)

    def pay(self, payer: pb.RoutingKey, amount: int = 100) -> str:
        """The state's name, or the refusal's."""
        try:
            made = self.client.create_payment(payer=payer, payee=self.payee, amount_minor=amount, currency="CNY")
        except HutongError as refusal:
            return refusal.name
        return pb.PaymentState.Name(made.state).removeprefix("PAYMENT_STATE_")

    def close(self) -> None:
        self.client.close()
        self.network.close()


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    made = Shop(tmp_path_factory.mktemp("network"))
    yield made
    made.close()


def test_a_ride_is_paid_once(shop: Shop) -> None:
    rider = ec.generate_private_key(ec.SECP256R1())
    _, certificate = shop.tokens.issue_transit(shop.token, transit.compress(rider.public_key()), 500, "CNY")
    now_us = time.time_ns() // 1000
    code = keys.barcode(transit.build_code(certificate, rider, now_us))
    assert shop.pay(code, 300) == "SUCCEEDED"
    assert shop.pay(code, 300) == "CODE_SPENT", "the second gate's submission"
    assert shop.pay(keys.barcode(transit.build_code(certificate, rider, now_us)), 300) == "CODE_SPENT"
    assert shop.pay(keys.barcode(transit.build_code(certificate, rider, now_us - 1_000_000)), 300) == "SUCCEEDED"
    assert (
        shop.pay(keys.barcode(transit.build_code(certificate, rider, now_us - 2_000_000)), 501) == "AMOUNT_ABOVE_LIMIT"
    )


def test_a_cryptogram_is_used_once(shop: Shop) -> None:
    made = shop.tokens.add_key(shop.token, KeyKind.DEVICE, device_id="phone")
    assert made.number is not None
    assert made.device_key is not None
    number = made.number.reveal()
    value = cryptogram(number, made.device_key.reveal(), 100, "CNY", 1, 77, shop.tokens.suite)
    proof = token_pb2.Cryptogram(value=value, counter=1, unpredictable_number=77)
    assert shop.pay(keys.token(number, cryptogram=proof)) == "SUCCEEDED"
    assert shop.pay(keys.token(number, cryptogram=proof)) == "CRYPTOGRAM_INVALID"
    assert shop.pay(keys.token(number, cryptogram=proof), 101) == "CRYPTOGRAM_INVALID"
    assert shop.pay(keys.token(number)) == "TOKEN_DOMAIN"


def test_a_hundred_presentations_of_one_code_at_once(shop: Shop) -> None:
    for _ in range(5):
        code = keys.payment_code(shop.tokens.reserve_code(shop.token).code.reveal())
        outcomes: list[str] = []
        start = threading.Barrier(20)

        def present(code: pb.RoutingKey = code, start: threading.Barrier = start, out: list[str] = outcomes) -> None:
            start.wait()
            out.extend(shop.pay(code) for _ in range(5))

        threads = [threading.Thread(target=present) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(outcomes) == ["CODE_SPENT"] * 99 + ["SUCCEEDED"]


def test_a_suspension_stops_the_next_payment(shop: Shop) -> None:
    code = keys.payment_code(shop.tokens.reserve_code(shop.token).code.reveal())
    shop.tokens.change_state(shop.token, Event.SUSPEND)
    assert shop.pay(code) == "TOKEN_NOT_ACTIVE"
    assert shop.pay(keys.token(shop.token.reveal())) == "TOKEN_NOT_ACTIVE"
    shop.tokens.change_state(shop.token, Event.RESUME)
    assert shop.pay(code) == "SUCCEEDED"


def test_a_shared_budget_is_exact_under_a_rush(shop: Shop) -> None:
    wallet = shop.network.population.wallets[1]
    token = shop.network.wallet_tokens[wallet.id]
    shop.tokens.update_terms(token, budget=Budget(1_000, "CNY"))
    codes = [keys.payment_code(shop.tokens.reserve_code(token).code.reveal()) for _ in range(15)]
    payers = codes + [keys.token(token.reveal())] * 15
    outcomes: list[str] = []
    threads = [threading.Thread(target=lambda payer=payer: outcomes.append(shop.pay(payer))) for payer in payers]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["SUCCEEDED"] * 10 + ["TOKEN_BUDGET_SPENT"] * 20
