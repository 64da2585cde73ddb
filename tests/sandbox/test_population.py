"""Proves that a seed gives one population, of the size and form that the network needs."""

from __future__ import annotations

import json

import pytest

from sandbox.population import luhn_digit, populate


def test_the_same_seed_gives_the_same_people_and_another_seed_others() -> None:
    assert populate(7) == populate(7)
    assert populate(7).directory() == populate(7).directory()
    assert populate(7).wallets != populate(8).wallets


def test_there_are_enough_of_everybody() -> None:
    population = populate(1)
    assert len(population.issuers) >= 4
    assert len(population.acquirers) >= 5
    for issuer in population.issuers:
        assert len(population.wallets_of(issuer.id)) >= 2
    for acquirer in population.acquirers:
        homes = [shop for shop in population.merchants if shop.home == acquirer.id]
        assert homes
        assert all(len(shop.terminals) >= 2 for shop in homes)
        assert all(len(shop.acquirers) >= 2 for shop in homes), "failover is possible"
    assert {shop.scheme for shop in population.merchants} == {"hutong", "unionpay", "hkfps"}


@pytest.mark.parametrize("size", [3, 500])
def test_names_and_numbers_are_unique_and_account_numbers_pass_luhn(size: int) -> None:
    population = populate(2, wallets_per_issuer=size, merchants_per_acquirer=5)
    accounts = [wallet.account.reveal() for wallet in population.wallets]
    assert len(set(accounts)) == len(accounts) == 4 * size
    assert all(luhn_digit(account[:-1]) == account[-1] and len(account) == 16 for account in accounts)
    assert len({wallet.id for wallet in population.wallets}) == 4 * size
    assert len({wallet.device_id for wallet in population.wallets}) == 4 * size
    assert len({(shop.scheme, shop.account) for shop in population.merchants}) == 25


def test_the_home_acquirer_is_the_cheapest() -> None:
    for shop in populate(3).merchants:
        assert min(shop.acquirers, key=lambda terms: terms.cost_bp).id == shop.home


def test_the_directory_names_everybody_and_each_account_leads_to_one_merchant() -> None:
    population = populate(4)
    directory = json.loads(population.directory())
    assert {one["id"] for one in directory["participants"]} == {one.id for one in population.institutions}
    assert len({one["secret"] for one in directory["participants"]}) == 9
    accounts = [(one["scheme"], one["account"]) for shop in directory["merchants"] for one in shop["accounts"]]
    assert len(accounts) == len(set(accounts))
    for shop in population.merchants:
        assert (shop.scheme, shop.payee) in accounts
        assert ("hutong", shop.id) in accounts


def test_nothing_secret_is_in_a_repr() -> None:
    population = populate(5)
    text = repr(population)
    for wallet in population.wallets:
        assert wallet.account.reveal() not in text
        assert wallet.passcode.reveal() not in text
    for institution in population.institutions:
        assert institution.secret.reveal() not in text


@pytest.mark.parametrize(("body", "digit"), [("7992739871", "3"), ("411111111111111", "1"), ("0", "0")])
def test_luhn(body: str, digit: str) -> None:
    assert luhn_digit(body) == digit
