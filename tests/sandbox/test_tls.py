"""Proves mutual TLS from the command to the gateway: certificates on both sides, and refusals without them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from click.testing import CliRunner

from command.main import main
from gateway import listen
from sandbox.network import Network
from sandbox.options import NetworkOptions
from tests.certificates import Pair, issue

NAME = "gateway.hutong.example"


@dataclass(frozen=True)
class Secured:
    """A network that asks for certificates, and certificates for it."""

    network: Network
    authority: Pair
    client: Pair
    desk: Pair


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    folder = tmp_path_factory.mktemp("tls")
    authority = issue(folder, "authority")
    gateway, client = issue(folder, NAME, authority), issue(folder, "shop", authority)
    desk = issue(folder, "desk", authority)
    options = NetworkOptions(
        face_operators=frozenset({"desk"}),
        data=folder / "data",
        listen="127.0.0.1:0",
        front="aio",
        tls=listen.Tls(gateway.certificate, gateway.key, authority.certificate),
    )
    with Network.start(options) as network:
        yield Secured(network, authority, client, desk)


def pay(secured: Secured, *options: str) -> tuple[int, str]:
    network = secured.network
    command = ["pay", "--target", network.target, "--token", "-", "--merchant", "m1001", "--amount", "1", "--json"]
    token = next(iter(network.wallet_tokens.values())).reveal()
    result = CliRunner().invoke(main, [*command, *options], input=token)
    return result.exit_code, result.output


def test_with_certificates_on_both_sides_a_payment_is_made(secured: Secured) -> None:
    mine = ["--tls-cert", str(secured.client.certificate), "--tls-key", str(secured.client.key)]
    code, output = pay(secured, "--tls-ca", str(secured.authority.certificate), "--tls-name", NAME, *mine)
    assert code == 0, output
    assert json.loads(output)["state"] == "PAYMENT_STATE_SUCCEEDED"


def test_without_a_certificate_of_its_own_nobody_is_let_in(secured: Secured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("command.options.connection.CALL_S", 3.0)
    code, output = pay(secured, "--tls-ca", str(secured.authority.certificate), "--tls-name", NAME)
    assert code == 1
    assert json.loads(output)["error"]["reason"] == "UNREACHABLE"


def test_half_a_certificate_is_wrong_usage(secured: Secured) -> None:
    code, output = pay(secured, "--tls-cert", str(secured.client.certificate))
    assert code == 2
    assert "--tls-key" in output


def test_faces_are_enrolled_with_the_operators_certificate_only(secured: Secured) -> None:
    def face(command: str, pair: Pair, *options: str) -> tuple[int, str]:
        where = ["--target", secured.network.target, "--tls-name", NAME, "--json"]
        tls = ["--tls-ca", secured.authority.certificate, "--tls-cert", pair.certificate, "--tls-key", pair.key]
        result = CliRunner().invoke(main, ["face", command, *options, *where, *(str(one) for one in tls)])
        return result.exit_code, result.stdout

    enrol = ("anna", "--person", "5", "--passcode", "271828")
    code, output = face("enroll", secured.client, *enrol)
    assert (code, json.loads(output)["error"]["reason"]) == (1, "FACE_OPERATOR_ONLY")
    assert face("enroll", secured.desk, *enrol)[0] == 0
    assert json.loads(face("status", secured.client)[1])["persons"] == 1
    code, output = face("delete", secured.client, "anna")
    assert (code, json.loads(output)["error"]["reason"]) == (1, "FACE_OPERATOR_ONLY")
    assert face("delete", secured.desk, "anna")[0] == 0


def test_tokens_codes_and_keys_are_asked_for_over_tls(secured: Secured) -> None:
    mine = ["--tls-cert", str(secured.client.certificate), "--tls-key", str(secured.client.key)]
    where = ["--target", secured.network.target, "--tls-ca", str(secured.authority.certificate), "--tls-name", NAME]
    wallet = secured.network.population.wallets[0]
    asked = ["--issuer", wallet.issuer_id, "--account", wallet.account.reveal()]
    made = CliRunner().invoke(main, ["token", "request", *asked, *where, *mine])
    assert made.exit_code == 0, made.output
    token = made.stdout.strip()
    for command in (["token", "show", token], ["code", "show", token], ["keys", "status"]):
        done = CliRunner().invoke(main, [*command, *where, *mine])
        assert done.exit_code == 0, done.output
