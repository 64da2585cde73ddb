"""`hutong payments`, `watch`, `merchants` and `wallets` on a running network: filters, text, JSON, refusals."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from click.testing import CliRunner, Result

from command.main import main
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client import keys
from hutong_client.client import HutongClient
from sandbox.network import Network
from sandbox.options import NetworkOptions
from tests.deadlines import CALL_S

HOSTILE = "order\x1b[2J\u202e7"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    options = NetworkOptions(data=tmp_path_factory.mktemp("network"), seed=3, listen="127.0.0.1:0")
    with Network.start(options) as network:
        yield network


@pytest.fixture(scope="module")
def client(network: Network) -> Iterator[HutongClient]:
    with HutongClient(network.target) as client:
        yield client


def hutong(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(main, arguments, input=given)


def rows(result: Result) -> list[dict[str, Any]]:
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.output.splitlines()]


def pay(network: Network, client: HutongClient, wallet: int = 0, merchant: str = "m1001", **more: Any) -> pb.Payment:
    token = network.wallet_tokens[network.population.wallets[wallet].id].reveal()
    fields = {"amount_minor": 1250, "currency": "CNY", **more}
    return client.create_payment(payer=keys.token(token), payee=keys.merchant(merchant), **fields)


def _hex(base64_text: str) -> str:
    return base64.b64decode(base64_text).hex()


def test_payments_are_listed_by_filters(network: Network, client: HutongClient) -> None:
    first = pay(network, client, reference=HOSTILE)
    second = pay(network, client, wallet=1, merchant="m1002")
    back = client.refund_payment(second.payment_id, amount_minor=50)
    target = ("--target", network.target)
    listed = rows(hutong("payments", *target, "--json"))
    assert [row["payment_id"] for row in listed[:3]] == [back.payment_id, second.payment_id, first.payment_id]
    token = network.wallet_tokens[network.population.wallets[1].id].reveal()
    mine = rows(hutong("payments", *target, "--token", "-", "--json", given=token + "\n"))
    assert [row["payment_id"] for row in mine] == [back.payment_id, second.payment_id]
    assert token not in json.dumps(mine)
    again = rows(hutong("payments", *target, "--token-ref", _hex(mine[0]["token_ref"]), "--json"))
    assert again == mine
    for options, expected in (
        (("--merchant", "m1002"), [back.payment_id, second.payment_id]),
        (("--merchant", "m1002", "--kind", "refund"), [back.payment_id]),
        (("--kind", "payment", "--state", "succeeded", "--most", "1"), [second.payment_id]),
        (("--state", "failed"), []),
        (("--until", "1h"), []),
        (("--since", "1h", "--merchant", "m1001"), [first.payment_id]),
    ):
        found = rows(hutong("payments", *target, *options, "--json"))
        assert [row["payment_id"] for row in found] == expected, options
    shown = hutong("payments", *target, "--most", "2")
    assert shown.exit_code == 0
    assert second.payment_id in shown.output
    assert "and older ones" in shown.output
    hostile = hutong("payments", *target, "--merchant", "m1001")
    assert "\x1b" not in hostile.output
    assert "\u202e" not in hostile.output
    assert "12.50 CNY" in hostile.output
    assert hutong("payments", *target, "--state", "failed").output == "no payments\n"


def test_events_are_printed_as_they_happen(network: Network, client: HutongClient) -> None:
    begin = client.newest_sequence()
    paid = pay(network, client, wallet=2)
    target = ("--target", network.target, "--after", str(begin))
    events = rows(hutong("watch", *target, "--most", "3", "--json"))
    assert {event["payment_id"] for event in events} == {paid.payment_id}
    assert events[-1]["state"] == "PAYMENT_STATE_SUCCEEDED"
    assert (events[-1]["amount_minor"], events[-1]["merchant_id"]) == (1250, "m1001")
    text = hutong("watch", *target, "--state", "succeeded", "--most", "1").output
    assert text.count("\n") == 1
    assert "12.50 CNY  m1001" in text
    none = hutong("watch", *target, "--merchant", "m1002", "--for", "1s")
    assert (none.exit_code, none.output) == (0, "")
    with ThreadPoolExecutor(1) as pool:
        now = pool.submit(hutong, "watch", "--target", network.target, "--most", "1", "--json")
        while not now.done():  # it begins when the gateway has its stream
            pay(network, client, wallet=2, amount_minor=777)
        (event,) = rows(now.result(CALL_S))
    assert event["amount_minor"] == 777


def test_merchants_and_wallets_are_listed_from_the_data_folder(network: Network) -> None:
    data = ("--data", str(network.data))
    shops = rows(hutong("merchants", *data, "--json"))
    assert {row["merchant_id"] for row in shops} == {shop.id for shop in network.population.merchants}
    one = network.population.merchants[0]
    (found,) = rows(hutong("merchants", *data, "--search", one.id.upper(), "--json"))
    assert (found["name"], found["terminal_ids"]) == (one.name, sorted(one.terminals))
    acquirer = one.acquirers[0].id
    assert {acquirer} <= set(rows(hutong("merchants", *data, "--acquirer", acquirer, "--json"))[0]["acquirer_ids"])
    assert one.id in hutong("merchants", *data).output
    assert hutong("merchants", *data, "--acquirer", "nobody").output == "no merchants\n"

    people = rows(hutong("wallets", *data, "--json"))
    assert [row["wallet_id"] for row in people] == [wallet.id for wallet in network.population.wallets]
    wallet = network.population.wallets[0]
    assert wallet.account.reveal() not in hutong("wallets", *data).output
    assert wallet.account.reveal() in hutong("wallets", *data, "--accounts").output
    assert {row["issuer_id"] for row in rows(hutong("wallets", *data, "--issuer", "issuer-a", "--json"))} == {
        "issuer-a"
    }


def test_what_cannot_be_listed_is_said_how(network: Network, tmp_path: Any) -> None:
    target = ("--target", network.target)
    for arguments, said in (
        (("payments", *target, "--terminal", "t1"), "Give --merchant"),
        (("payments", *target, "--token-ref", "ab"), "32 hexadecimal digits"),
        (("payments", *target, "--token", "1", "--token-ref", "ab"), "exclude each other"),
        (("watch", *target, "--since", "soon"), "no length of time"),
        (("merchants", "--data", str(tmp_path)), "has no directory.json"),
        (("wallets", "--data", str(tmp_path)), "is no network's"),
    ):
        result = hutong(*arguments)
        assert (result.exit_code, said in result.output) == (2, True), result.output
    unreachable = hutong("payments", "--target", "127.0.0.1:1", "--json")
    assert json.loads(unreachable.output)["error"]["reason"] == "UNREACHABLE"
