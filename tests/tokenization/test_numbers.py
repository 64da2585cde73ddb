"""Tokens are Luhn-valid, unique, random, and never an account number; PARs have the standard's form."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hutong_contract.errors import HutongError
from hutong_contract.secret import Secret
from loadtest import tokens as bench
from tests.tokenization.world import World
from tokenization import numbers
from tokenization.interface import Account


# ISO/IEC 7812-1 annex B's own example, and published test card numbers.
@pytest.mark.parametrize("number", ["49927398716", "4111111111111111", "5500005555555559", "6200000000000005"])
def test_luhn_vectors(number: str) -> None:
    assert numbers.passes_luhn(number)
    assert numbers.check_digit(number[:-1]) == number[-1]


@given(st.text("0123456789", min_size=12, max_size=18), st.integers(0, 17), st.integers(1, 9))
def test_luhn_finds_every_single_wrong_digit(body: str, at: int, shift: int) -> None:
    number = body + numbers.check_digit(body)
    at %= len(number)
    wrong = number[:at] + str((int(number[at]) + shift) % 10) + number[at + 1 :]
    assert numbers.passes_luhn(number)
    assert not numbers.passes_luhn(wrong)


@pytest.mark.parametrize("digits", range(13, 20))
def test_tokens_of_every_length(digits: int) -> None:
    source = numbers.TokenRange("9156", digits)
    for _ in range(50):
        token = numbers.new_token(source, secrets.randbelow)
        assert len(token) == digits
        assert numbers.is_token(token)
        assert token.startswith("9156")


@pytest.mark.parametrize(
    ("token_bin", "digits"), [("9156", 12), ("9156", 20), ("0156", 16), ("915600000000", 16), ("x", 16)]
)
def test_impossible_ranges_are_refused(token_bin: str, digits: int) -> None:
    with pytest.raises(ValueError, match="token"):
        numbers.TokenRange(token_bin, digits)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1",
        "915610000000000000",
        "９１５６１０００００００００００００",
        "91561000000000000000",
        "9156 1000 0000 0000",
    ],
)
def test_what_is_not_a_token(text: str) -> None:
    assert not numbers.is_token(text)


def test_par_has_29_characters_and_depends_on_every_byte() -> None:
    first = numbers.par_of(bytes(32))
    assert len(first) == 29
    assert numbers.par_of(bytes(31) + b"\1") != first
    assert set(first) <= set("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def test_tokens_of_many_accounts(tmp_path: Path) -> None:
    """The same check as `hutong token check --count 1000000`, smaller."""
    assert bench.check_tokens(tmp_path, 5_000, lambda *_: None) == {"tokens": 5_000, "unique": 5_000, "broken": 0}


def test_no_account_number_comes_from_a_token_bin(world: World) -> None:
    """So no token can ever equal a live account number."""
    for token_bin in numbers.TOKEN_BINS:
        number = token_bin + "0123456789"
        with pytest.raises(HutongError, match="account_number"):
            world.service.register_account(Account("issuer-a", Secret(number)))


def test_one_account_has_one_token_and_one_par(world: World) -> None:
    accounts = [Account("issuer-a", Secret(number)) for number in ("622588000001", "622588000002", "622588000001")]
    first = world.service.register_accounts(accounts)
    assert [answer.created for answer in first] == [True, True, False]
    assert first[0].token == first[2].token
    again = world.service.register_accounts(accounts)
    assert [answer.token for answer in again] == [answer.token for answer in first]
    assert not any(answer.created for answer in again)
    elsewhere = world.service.register_account(Account("issuer-b", Secret("622588000001")))
    assert elsewhere.token != first[0].token
    assert elsewhere.par == first[0].par, "the PAR names the account, whoever asks"


@pytest.mark.parametrize(
    "number",
    ["", "1234567", "1" * 31, "6225 8801", "62258801123a5678", "-62258801", "6225880112345675", "6225880112345"],
)
def test_account_numbers_that_are_refused(world: World, number: str) -> None:
    with pytest.raises(HutongError, match="account_number"):
        world.service.register_account(Account("issuer-a", Secret(number)))
    assert len(world.service) == 0


def test_an_account_that_has_a_token_keeps_it_whatever_its_check_digit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Vaults may have numbers from before the check."""
    account = Account("issuer-a", Secret("6225880112345675"))
    with monkeypatch.context() as before:
        before.setattr(numbers, "is_mistyped", lambda _: False)
        made = world.service.register_account(account)
    assert world.service.register_account(account).token == made.token
    assert world.service.replace_token(made.token_ref).token != made.token
