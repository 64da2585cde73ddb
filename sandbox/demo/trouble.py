"""The scenes in which a fault is provoked, and the required outcome."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Final

from hutong_client.client import FINAL_STATES, HutongClient
from hutong_client.wording import money, state_name
from sandbox.demo.attempts import SUCCEEDED, attempt
from sandbox.demo.everyday import Task
from sandbox.demo.record import Line
from sandbox.demo.stage import SimulatedWallet, Stage
from sandbox.population import Merchant

INSUFFICIENT_FUNDS_MINOR: Final = 9_051
FIRST_ACQUIRER_DECLINES_MINOR: Final = 9_106
CREDIT_ANSWER_LOST_MINOR: Final = 19_121
"""Magic amounts, see sandbox.participants.magic."""
REFUND_SCENE: Final = "refund of"
"""Prefix of the names of scenes in which money is returned."""
SETTLE_S: Final = 20.0
"""Longest time until a payment of unknown fate is settled, in seconds."""


def refunds(stage: Stage) -> list[Task]:
    """One wallet of each issuer is refunded in parts; more than what is left is refused."""
    shops = [stage.home_merchant(acquirer.id) for acquirer in stage.population.acquirers]
    return [
        partial(_refund, stage, wallet, shops[row % len(shops)])
        for row, wallet in enumerate(_one_for_each_issuer(stage))
    ]


def _refund(stage: Stage, wallet: SimulatedWallet, merchant: Merchant) -> list[Line]:
    terminal = stage.terminal_of(merchant)
    amount = 5_000
    at = partial(attempt, stage.client, wallet=wallet.person, merchant=merchant)
    paid = at("a payment to refund", pay=lambda: terminal.charge(wallet.payer_key(), amount), amount_minor=amount)
    part = at(f"{REFUND_SCENE} a part", pay=lambda: terminal.refund(paid.payment_id, 2_000), amount_minor=2_000)
    excess = at(
        f"{REFUND_SCENE} more than is left",
        pay=lambda: terminal.refund(paid.payment_id, 3_001),
        expected="REFUND_EXCEEDS_PAYMENT",
    )
    rest = at(f"{REFUND_SCENE} the rest", pay=lambda: terminal.refund(paid.payment_id), amount_minor=3_000)
    seen = stage.client.get_payment(paid.payment_id)
    if seen.payment.refunded_minor != amount or len(seen.refunds) != 2:
        rest = replace(rest, wrong=f"{seen.payment.refunded_minor} refunded in {len(seen.refunds)} refunds")
    return [paid, part, excess, replace(rest, note=f"{money(amount, 'CNY')} in two parts")]


def decline(stage: Stage) -> list[Task]:
    """A payer has not enough money: the payment is declined, and nothing moves."""

    def run(wallet: SimulatedWallet) -> list[Line]:
        merchant = stage.population.merchants[0]
        own = [(wallet.person.issuer_id, wallet.person.id), *((terms.id, merchant.id) for terms in merchant.acquirers)]
        before = [stage.balances()[holder] for holder in own]
        pay = partial(stage.terminal_of(merchant).charge, wallet.payer_key(), INSUFFICIENT_FUNDS_MINOR)
        line = attempt(stage.client, "not enough money", wallet.person, merchant, pay, expected="DECLINED")
        wrong = "" if line.note == "51" else f"the reason is {line.note!r}, not '51'"
        if [stage.balances()[holder] for holder in own] != before:
            wrong += " money moved"
        return [replace(line, wrong=wrong, note="51, nothing moved")]

    return [partial(run, _one_for_each_issuer(stage)[0])]


def one_code_two_terminals(stage: Stage) -> list[Task]:
    """One code shown at two shops at once: one of them is paid."""
    return [partial(_present_twice, stage, wallet) for wallet in _one_for_each_issuer(stage)]


def _present_twice(stage: Stage, wallet: SimulatedWallet) -> list[Line]:
    shops = stage.population.merchants[:2]
    image = wallet.show(wallet.online_code())
    with ThreadPoolExecutor(len(shops)) as both:
        lines = list(
            both.map(
                lambda shop: attempt(
                    stage.client,
                    "one code at two terminals",
                    wallet.person,
                    shop,
                    partial(stage.terminal_of(shop).charge_scanned, image, 1_000),
                ),
                shops,
            )
        )
    outcomes = sorted(line.outcome for line in lines)
    if outcomes != ["CODE_SPENT", SUCCEEDED]:
        return [replace(line, wrong=f"both came to {' and '.join(outcomes)}") for line in lines]
    return [
        line if line.outcome == SUCCEEDED else replace(line, expected="CODE_SPENT", note="one winner") for line in lines
    ]


def acquirer_refuses(stage: Stage) -> list[Task]:
    """The first acquirer declines the credit: the next one is credited, once."""

    def run(wallet: SimulatedWallet, merchant: Merchant) -> list[Line]:
        pay = partial(stage.terminal_of(merchant).charge, wallet.payer_key(), FIRST_ACQUIRER_DECLINES_MINOR)
        line = attempt(stage.client, "an acquirer refuses", wallet.person, merchant, pay)
        return [_failed_over(stage.client, line, merchant.home)]

    return [partial(run, _one_for_each_issuer(stage)[1], stage.population.merchants[-1])]


def acquirer_down(stage: Stage) -> list[Task]:
    """An acquirer cannot be reached: its shop is paid through another one meanwhile."""

    def run(wallet: SimulatedWallet, merchant: Merchant) -> list[Line]:
        home = stage.participants[merchant.home]
        before = home.script
        home.script = replace(before, down=True)
        try:
            amount = 2_500
            pay = partial(stage.terminal_of(merchant).charge, wallet.payer_key(), amount)
            line = attempt(stage.client, "an acquirer is down", wallet.person, merchant, pay, amount_minor=amount)
        finally:
            home.script = before
        if line.acquirer_id == merchant.home:
            return [replace(line, wrong=f"{merchant.home} was credited while it was down")]
        return [replace(line, note=f"{merchant.home} → {line.acquirer_id}")]

    return [partial(run, _one_for_each_issuer(stage)[2], stage.population.merchants[0])]


def answer_lost(stage: Stage) -> list[Task]:
    """An acquirer carries out the credit, but its answer is lost: UNKNOWN, then settled by inquiry."""

    def run(wallet: SimulatedWallet, merchant: Merchant) -> list[Line]:
        pay = partial(stage.terminal_of(merchant).charge, wallet.payer_key(), CREDIT_ANSWER_LOST_MINOR)
        line = attempt(stage.client, "an answer is lost", wallet.person, merchant, pay)
        if not line.payment_id:
            return [line]
        states = _states(stage.client, line.payment_id)
        if "CREDIT_UNKNOWN" not in states:
            return [replace(line, wrong=f"it was never UNKNOWN: {', '.join(states)}")]
        return [replace(line, note=" → ".join(states))]

    # Acquirer c: no other scene of trouble depends on how healthy it looks.
    return [partial(run, _one_for_each_issuer(stage)[3], stage.home_merchant(stage.population.acquirers[2].id))]


def _states(client: HutongClient, payment_id: str) -> list[str]:
    """The states that an ended payment went through."""
    states = []
    for event in client.watch_payments(payment_id=payment_id, deadline_s=SETTLE_S):
        states.append(state_name(event.state))
        if event.state in FINAL_STATES:
            break
    return states


def _failed_over(client: HutongClient, line: Line, first: str) -> Line:
    """Checks by the legs that another acquirer was credited, and only that one."""
    if not line.payment_id:
        return line
    credits_ = [leg for leg in client.get_payment(line.payment_id).legs if leg.kind == "credit"]
    seen = [(leg.participant_id, leg.state) for leg in credits_]
    paid = [name for name, state in seen if state == "approved"]
    if len(paid) != 1 or first in paid or (first, "declined") not in seen:
        return replace(line, wrong=f"credits: {seen}")
    return replace(line, note=f"{first} → {paid[0]}")


def _one_for_each_issuer(stage: Stage) -> list[SimulatedWallet]:
    firsts = [stage.population.wallets_of(issuer.id)[0] for issuer in stage.population.issuers]
    return [stage.wallets[person.id] for person in firsts]
