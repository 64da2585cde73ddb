"""Proves wallet and terminal on a running network: codes online and offline, scanning both ways, tokens, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from hutong.gateway.v1 import payment_pb2 as pb
from hutong.tokenization.v1 import token_pb2
from hutong_client import FINAL_STATES, AsyncHutongClient, NoOpticsError, keys
from hutong_client.client import HutongClient
from hutong_client.optics import CODE_128, QR
from hutong_client.terminal import EmulatedTerminal
from hutong_client.wallet import EmulatedWallet, NotActivatedError
from hutong_contract.errors import HutongError, Reason
from hutong_contract.payment_code import DAY_US, STEP_US
from sandbox.cameras import Optics
from sandbox.network import Network
from sandbox.optics import GatewaySymbols, MerchantPrinter
from sandbox.options import NetworkOptions
from sandbox.population import Merchant, Wallet
from tests.deadlines import CALL_S

SUCCEEDED = pb.PAYMENT_STATE_SUCCEEDED


class Clock:
    """The phone's clock, which a test can put forward."""

    def __init__(self, real: int) -> None:
        self.now_us = real

    def __call__(self) -> int:
        return self.now_us


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    options = NetworkOptions(data=tmp_path_factory.mktemp("network"), seed=5, listen="127.0.0.1:0")
    with Network.start(options) as network:
        yield network


@pytest.fixture
def client(network: Network) -> Iterator[HutongClient]:
    with HutongClient(network.target) as client:
        yield client


@pytest.fixture
def optics(tmp_path: Path) -> Optics:
    return Optics(GatewaySymbols(), tmp_path)


@pytest.fixture
def clock() -> Clock:
    import time

    return Clock(time.time_ns() // 1_000)


@pytest.fixture
def wallet(network: Network, client: HutongClient, optics: Optics, clock: Clock) -> EmulatedWallet[Wallet]:
    wallet = EmulatedWallet(network.population.wallets[0], client, optics, clock)
    wallet.activate()
    return wallet


@pytest.fixture
def terminal(network: Network, client: HutongClient, optics: Optics) -> EmulatedTerminal[Merchant]:
    shop = network.population.merchants[0]
    return EmulatedTerminal(shop, shop.terminals[0], client, optics, MerchantPrinter())


def test_the_token_service_gives_the_account_its_one_token(network: Network, wallet: EmulatedWallet[Wallet]) -> None:
    assert wallet.activate() == wallet.activate() == network.wallet_tokens[wallet.person.id]
    assert wallet.token.reveal() not in repr(wallet.__dict__)


@pytest.mark.parametrize("row", range(0, 10, 2))
def test_a_wallet_scans_and_pays_static_and_dynamic_codes(
    network: Network, client: HutongClient, optics: Optics, wallet: EmulatedWallet[Wallet], row: int
) -> None:
    shop = network.population.merchants[row]
    terminal = EmulatedTerminal(shop, shop.terminals[1], client, optics, MerchantPrinter())
    static = wallet.pay_scanned(terminal.print_static(), 321)
    dynamic = wallet.pay_scanned(terminal.show_dynamic(654))
    for payment, amount in ((static, 321), (dynamic, 654)):
        assert (payment.state, payment.amount_minor, payment.merchant_id) == (SUCCEEDED, amount, shop.id)
        assert payment.terminal_id == shop.terminals[1]
        assert payment.payee_key == pb.KEY_KIND_MERCHANT_CODE


def test_a_dynamic_code_is_not_paid_with_another_amount(
    wallet: EmulatedWallet[Wallet], terminal: EmulatedTerminal[Merchant]
) -> None:
    with pytest.raises(HutongError) as refused:
        wallet.pay_scanned(terminal.show_dynamic(500), 499)
    assert refused.value.reason == Reason.ERROR_REASON_CURRENCY_MISMATCH


@pytest.mark.parametrize("symbology", [QR, CODE_128])
def test_a_terminal_scans_an_online_code_once(
    wallet: EmulatedWallet[Wallet], terminal: EmulatedTerminal[Merchant], symbology: str
) -> None:
    image = wallet.show(wallet.online_code(), symbology)
    payment = terminal.charge_scanned(image, 250, idempotency_key=f"online {symbology}")
    assert (payment.state, payment.payer_key) == (SUCCEEDED, pb.KEY_KIND_PAYMENT_CODE)
    with pytest.raises(HutongError, match="CODE_SPENT"):
        terminal.charge_scanned(image, 250)
    assert terminal.charge_scanned(image, 250, idempotency_key=f"online {symbology}") == payment


def test_an_offline_code_needs_no_network_works_once_and_not_for_long(
    wallet: EmulatedWallet[Wallet], terminal: EmulatedTerminal[Merchant], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotActivatedError):
        wallet.offline_code()
    wallet.provision()
    with monkeypatch.context() as offline:
        offline.setattr("hutong_client.calls.Calls.repeated", None)  # every call goes through it
        code = wallet.offline_code()
        clock.now_us -= 3 * STEP_US
        old = wallet.offline_code()
        clock.now_us += 2 * DAY_US
        with pytest.raises(NotActivatedError):
            wallet.offline_code()
    assert terminal.charge_scanned(wallet.show(code), 250).state == SUCCEEDED
    with pytest.raises(HutongError, match="CODE_SPENT"):
        terminal.charge_scanned(wallet.show(code), 250)
    with pytest.raises(HutongError, match=r"CODE_EXPIRED|CODE_UNKNOWN"):
        terminal.charge_scanned(wallet.show(old), 250)


def test_a_merchants_code_is_no_payers_key_and_a_wallets_no_payees(
    wallet: EmulatedWallet[Wallet], terminal: EmulatedTerminal[Merchant]
) -> None:
    with pytest.raises(HutongError, match="KEY_NOT_PAYER"):
        terminal.charge_scanned(terminal.print_static(), 250)
    with pytest.raises(HutongError, match="KEY_NOT_PAYEE"):
        wallet.pay_scanned(wallet.show(wallet.online_code()), 250)


def test_a_terminal_charges_a_token_and_refunds_in_parts(
    wallet: EmulatedWallet[Wallet], terminal: EmulatedTerminal[Merchant]
) -> None:
    payment = terminal.charge(wallet.payer_key(), 900)
    assert payment.state == SUCCEEDED
    assert terminal.refund(payment.payment_id, 400).amount_minor == 400
    assert terminal.refund(payment.payment_id).amount_minor == 500
    with pytest.raises(HutongError, match="REFUND_EXCEEDS_PAYMENT"):
        terminal.refund(payment.payment_id, 1)


def test_a_wallet_suspends_resumes_and_deletes_its_token(network: Network, client: HutongClient) -> None:
    person = network.population.wallets[1]
    wallet = EmulatedWallet(person, client)
    token = wallet.activate()
    terminal = EmulatedTerminal(network.population.merchants[0], network.population.merchants[0].terminals[0], client)
    view = client.suspend_token(token, reason="lost phone")
    assert (view.state, view.last_four) == (token_pb2.TOKEN_STATE_SUSPENDED, token.last_four())
    with pytest.raises(HutongError, match="TOKEN_NOT_ACTIVE"):
        terminal.charge(wallet.payer_key(), 300)
    assert client.resume_token(view.token_ref).state == token_pb2.TOKEN_STATE_ACTIVE, "its reference names it too"
    assert terminal.charge(wallet.payer_key(), 300).state == SUCCEEDED
    assert client.get_token(token).view.token_ref == view.token_ref
    assert client.delete_token(token).state == token_pb2.TOKEN_STATE_DELETED
    with pytest.raises(HutongError, match="TOKEN_NOT_ACTIVE"):
        terminal.charge(wallet.payer_key(), 300)


def test_without_optics_nothing_is_shown_or_scanned(network: Network, client: HutongClient, tmp_path: Path) -> None:
    wallet = EmulatedWallet(network.population.wallets[2], client)
    wallet.activate()
    shop = network.population.merchants[0]
    terminal = EmulatedTerminal(shop, shop.terminals[0], client)
    assert terminal.charge(keys.payment_code(wallet.online_code().reveal()), 300).state == SUCCEEDED
    assert wallet.pay(keys.merchant(shop.id, shop.terminals[0]), 400).amount_minor == 400
    for refused in (
        lambda: wallet.show(wallet.online_code()),
        lambda: wallet.pay_scanned(tmp_path / "sticker.png"),
        lambda: terminal.charge_scanned(tmp_path / "code.png", 300),
        terminal.print_static,
        lambda: terminal.show_dynamic(300),
    ):
        with pytest.raises(NoOpticsError, match="give it"):
            refused()


def test_an_asyncio_client_pays_as_the_blocking_one_does(network: Network) -> None:
    person, shop = network.population.wallets[3], network.population.merchants[0]

    async def scene() -> list[pb.PaymentState.ValueType]:
        async with AsyncHutongClient(network.target) as client:
            token = await client.request_token(person.issuer_id, person.account.reveal())
            code = await client.reserve_code(token)
            made = await client.create_payment(
                payer=keys.payment_code(code.reveal()),
                payee=keys.merchant(shop.id, shop.terminals[0]),
                amount_minor=500,
                currency=shop.currency,
            )
            payment = await client.settled(made)
            with pytest.raises(HutongError, match="CODE_SPENT"):
                await client.create_payment(
                    payer=keys.payment_code(code.reveal()),
                    payee=keys.merchant(shop.id, shop.terminals[0]),
                    amount_minor=500,
                    currency=shop.currency,
                )
            states = []
            async for event in client.watch_payments(payment_id=payment.payment_id, deadline_s=CALL_S):
                states.append(event.state)
                if event.state in FINAL_STATES:
                    break
            return states

    assert asyncio.run(scene())[-1] == SUCCEEDED
