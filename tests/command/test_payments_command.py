"""Proves `hutong pay`, `refund` and `show` on a running network: what they print, and their exit status."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from command.main import main
from sandbox.cameras import Optics
from sandbox.network import Network
from sandbox.optics import GatewaySymbols, MerchantPrinter
from sandbox.options import NetworkOptions

SHOP = ("--merchant", "m1001", "--terminal", "m1001t1")


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    options = NetworkOptions(data=tmp_path_factory.mktemp("network"), seed=3, listen="127.0.0.1:0")
    with Network.start(options) as network:
        yield network


def hutong(network: Network | None, *arguments: str, given: str | None = None) -> Result:
    command, *rest = arguments
    target = ["--target", network.target if network else "127.0.0.1:1"]
    return CliRunner().invoke(main, [command, *target, *rest], input=given)


def token(network: Network, wallet: int = 0) -> str:
    return network.wallet_tokens[network.population.wallets[wallet].id].reveal()


def paid(network: Network, *arguments: str) -> dict[str, Any]:
    result = hutong(network, "pay", "--token", "-", *arguments, "--json", given=token(network) + "\n")
    assert result.exit_code == 0, result.output
    payment: dict[str, Any] = json.loads(result.output)
    return payment


def test_a_payment_is_made_refunded_and_shown(network: Network) -> None:
    payment = paid(network, *SHOP, "--amount", "12.50", "--reference", "order 7")
    assert payment["state"] == "PAYMENT_STATE_SUCCEEDED"
    assert payment["amount_minor"] == 1250
    assert payment["reference"] == "order 7"
    assert token(network) not in json.dumps(payment)

    part = hutong(network, "refund", payment["payment_id"], "--amount", "2.50", "--json")
    assert json.loads(part.output)["amount_minor"] == 250
    rest = hutong(network, "refund", payment["payment_id"])
    assert (rest.exit_code, "SUCCEEDED" in rest.output, "10.00 CNY" in rest.output) == (0, True, True)
    again = hutong(network, "refund", payment["payment_id"], "--amount", "0.01", "--json")
    assert again.exit_code == 1
    assert json.loads(again.output)["error"]["reason"] == "REFUND_EXCEEDS_PAYMENT"

    plain = json.loads(hutong(network, "show", payment["payment_id"], "--json").output)
    assert plain["payment"]["refunded_minor"] == 1250
    assert [leg["kind"] for leg in plain["legs"]] == ["debit", "credit"]
    assert plain["candidates"][0]["tried"] is True
    text = hutong(network, "show", payment["payment_id"]).output
    for word in ("SUCCEEDED", "12.50 CNY", "Legs", "Route", "Refunds", "order 7", payment["payment_id"]):
        assert word in text


def test_the_same_idempotency_key_pays_once(network: Network) -> None:
    first = paid(network, *SHOP, "--amount", "3.00", "--idempotency-key", "once")
    assert paid(network, *SHOP, "--amount", "3.00", "--idempotency-key", "once") == first


def test_a_merchants_image_is_paid(network: Network, tmp_path: Path) -> None:
    shop = network.population.merchants[2]
    optics = Optics(GatewaySymbols(), tmp_path)
    image = optics.show("code", MerchantPrinter().merchant_code(shop, shop.terminals[0], 777))
    payment = paid(network, "--image", str(image))
    assert (payment["merchant_id"], payment["terminal_id"], payment["amount_minor"]) == (
        shop.id,
        shop.terminals[0],
        777,
    )


def test_a_payment_code_is_charged(network: Network) -> None:
    code = network.tokens.reserve_code(network.wallet_tokens["wallet-02"]).code.reveal()
    arguments = ("pay", "--code", "-", *SHOP, "--amount", "4.20", "--json")
    charged = hutong(network, *arguments, given=code)
    assert charged.exit_code == 0, charged.output
    assert json.loads(charged.output)["payer_key"] == "KEY_KIND_PAYMENT_CODE"
    again = hutong(network, *arguments, given=code)
    assert (again.exit_code, json.loads(again.output)["error"]["reason"]) == (1, "CODE_SPENT")
    assert code not in again.output


def test_a_wallets_image_is_charged(network: Network, tmp_path: Path) -> None:
    code = network.tokens.reserve_code(network.wallet_tokens["wallet-03"]).code.reveal()
    image = Optics(GatewaySymbols(), tmp_path).show("screen", code, "code128")
    charged = hutong(network, "pay", "--payer-image", str(image), *SHOP, "--amount", "4.20")
    assert charged.exit_code == 0, charged.output
    assert "issuer-a by payment code" in charged.output


def test_a_decline_is_exit_status_1_with_its_reason(network: Network) -> None:
    result = hutong(network, "pay", "--token", "-", *SHOP, "--amount", "90.51", given=token(network))
    assert result.exit_code == 1
    assert "DECLINED: not enough money (51)" in result.output


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--code", "1", "--token", "2", *SHOP),
        ("--token", "2"),
        ("--token", "2", *SHOP, "--barcode", "x"),
        ("--token", "2", *SHOP, "--amount", "1.234"),
        ("--token", "2", *SHOP, "--amount", "-1"),
        ("--token", "2", *SHOP, "--amount", "1", "--currency", "XXX"),
        ("--token", "2", "--image", "/does/not/exist.png"),
    ],
)
def test_wrong_usage_is_exit_status_2(arguments: tuple[str, ...]) -> None:
    result = hutong(None, "pay", *arguments)
    assert result.exit_code == 2
    assert "Error:" in result.output


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("pay {ends} --amount 12,50", "--amount 12,50: that is not an amount. Write digits, decimals after a point"),
        ("pay {ends} --amount 12.50 --currency JPY", "JPY has no decimals: write it as 12."),
        ("pay {ends} --amount 1.2345 --currency KWD", "KWD has at most 3 decimals: write it as 12.500."),
        ("pay {ends} --amount 1.234", "CNY has at most 2 decimals: write it as 12.50."),
        ("pay {ends} --amount 0", "an amount is more than zero, such as 12.50."),
        ("pay {ends} --amount 0 --currency JPY", "an amount is more than zero, such as 12."),
        ("pay {ends} --amount 12345678901234", "at most 13 characters"),
        ("pay {ends}", "Give --amount: a merchant's id says none"),
        ("pay {ends} --amount 1 --currency cny", "Did you mean CNY?"),
        ("pay {ends} --amount 1 --currency RMB", "Did you mean CNY?"),
        ("pay {ends} --amount 1 --currency 156", "Did you mean CNY?"),
        ("pya", "Did you mean pay?"),
        ("token reqest", "Did you mean request"),
        ("barcode encode --account m --name n --amount 1,5", "--amount 1,5: that is not an amount."),
        ("barcode encode --account m --name n --currency hkd", "Did you mean HKD?"),
        ("token request --issuer i --account 1 --payment-max 1,5", "--payment-max 1,5: that is not an amount."),
        ("token request --issuer i --account 1 --spend-max 0", "--spend-max 0: an amount is more than zero"),
        ("token keys 1 --add barcode --payment-max x", "--payment-max x: that is not an amount."),
        ("risk explain --amount 1,5", "--amount 1,5: that is not an amount."),
    ],
)
def test_an_amount_or_word_that_is_wrong_is_answered_with_the_right_one(command: str, said: str) -> None:
    words = command.replace("{ends}", "--token 2 --merchant m1001").split()
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2, result.output
    assert said in " ".join(result.output.split())
    assert "with at most" not in result.output


def test_amounts_of_refunds_and_captures_are_refused_in_the_same_words(network: Network) -> None:
    held = paid(network, *SHOP, "--amount", "9.00", "--hold")["payment_id"]
    for words in (("capture", held), ("refund", held)):
        result = hutong(network, *words, "--amount", "abc")
        assert (result.exit_code, "--amount abc: that is not an amount." in result.output) == (2, True), result.output
    assert hutong(network, "capture", held, "--amount", "8").exit_code == 0


def test_a_code_without_an_amount_needs_one(network: Network) -> None:
    code = MerchantPrinter().merchant_code(network.population.merchants[0], "m1001t1", None)
    result = hutong(network, "pay", "--token", token(network), "--barcode", code)
    assert result.exit_code == 2
    assert "Give --amount: the payee's code says none." in result.output


def test_a_refund_goes_from_the_merchant_to_the_payer(network: Network) -> None:
    payment_id = paid(network, *SHOP, "--amount", "6.00")["payment_id"]
    lines = dict(
        line.split(maxsplit=1) for line in hutong(network, "refund", payment_id).output.splitlines() if line.strip()
    )
    assert lines["from"].startswith("m1001")
    assert lines["to"].startswith("issuer-a ····")


def test_a_response_code_is_said_in_words(network: Network) -> None:
    result = hutong(network, "pay", "--token", "-", *SHOP, "--amount", "90.14", given=token(network))
    assert "DECLINED: no such account (14)" in result.output
    payment_id = result.output.split()[1]
    assert "14 no such account" in hutong(network, "show", payment_id).output
    assert "no such account (14)" in hutong(network, "receipt", payment_id).output


def test_errors_say_what_to_do_and_never_the_secret(network: Network) -> None:
    secret = "6299999999999999995"
    result = hutong(network, "pay", "--token", secret, *SHOP, "--amount", "1")
    assert result.exit_code == 1
    assert "TOKEN" in result.output
    assert secret not in result.output
    unknown = hutong(network, "show", "00000000-0000-7000-8000-000000000000")
    assert (unknown.exit_code, "PAYMENT_NOT_FOUND" in unknown.output) == (1, True)


def test_no_gateway_says_how_to_start_one() -> None:
    result = hutong(None, "show", "x", "--json")
    assert result.exit_code == 1
    assert json.loads(result.output)["error"]["reason"] == "UNREACHABLE"
    assert "hutong up" in result.output


def test_a_hold_is_captured_and_its_receipt_printed(network: Network) -> None:
    payment = paid(network, *SHOP, "--amount", "12.50", "--hold-for", "1h", "--reference", "room 7")
    payment_id = payment["payment_id"]
    assert (payment["state"], payment["authorised_minor"]) == ("PAYMENT_STATE_HELD", 1250)
    slip = hutong(network, "receipt", payment_id).output
    assert "PRE-AUTHORISED, NOT PAID" in slip
    assert "12.50 CNY" in slip

    captured = hutong(network, "capture", payment_id, "--amount", "10.00")
    assert (captured.exit_code, "SUCCEEDED" in captured.output) == (0, True), captured.output
    again = hutong(network, "capture", payment_id, "--amount", "10.00", "--json")
    assert json.loads(again.output)["amount_minor"] == 1000
    other = hutong(network, "capture", payment_id, "--json")
    assert other.exit_code == 1
    assert json.loads(other.output)["error"]["reason"] == "CAPTURE_DIFFERS"

    hutong(network, "refund", payment_id, "--amount", "4.00")
    found = json.loads(hutong(network, "receipt", payment_id, "--json").output)
    assert (found["paid_minor"], found["refunded_minor"], found["refundable_minor"]) == (1000, 400, 600)
    for columns in (32, 40, 48):
        slip = hutong(network, "receipt", payment_id, "--text", "--columns", str(columns)).output
        assert max(map(len, slip.splitlines())) <= columns
        assert "room 7" in slip
        assert token(network) not in slip
    assert hutong(network, "receipt", payment_id, "--columns", "20").exit_code == 2


def test_a_hold_is_voided_once(network: Network) -> None:
    payment_id = paid(network, *SHOP, "--amount", "3.00", "--hold")["payment_id"]
    voided = hutong(network, "void", payment_id)
    assert (voided.exit_code, "CANCELLED" in voided.output) == (0, True)
    late = hutong(network, "capture", payment_id, "--json")
    assert json.loads(late.output)["error"]["reason"] == "PAYMENT_NOT_HELD"
    settled = paid(network, *SHOP, "--amount", "3.00")["payment_id"]
    refused = hutong(network, "void", settled)
    assert (refused.exit_code, "Refund it" in refused.output) == (1, True)


@pytest.mark.parametrize("lasts", ["1", "h", "0s", "-1h", "1.5h", "1w", "٣s"])
def test_a_hold_for_no_known_time_is_wrong_usage(network: Network, lasts: str) -> None:
    result = hutong(network, "pay", "--token", "-", *SHOP, "--amount", "1", "--hold-for", lasts, given="x\n")
    assert (result.exit_code, "90s, 45m, 1h or 7d" in result.output) == (2, True), result.output


def test_the_networks_own_codes_lead_where_it_says(network: Network, tmp_path: Path) -> None:
    shop = network.population.merchants[0]
    code = MerchantPrinter().merchant_code(shop, shop.terminals[0], None)
    picture = tmp_path / "code.png"
    picture.write_bytes(GatewaySymbols().render_png(code))
    environment = {"HUTONG_TARGET": network.target}
    for words in (["decode", code], ["scan", str(picture)]):
        result = CliRunner().invoke(main, ["barcode", *words, "--json"], env=environment)
        assert (result.exit_code, result.stderr) == (0, ""), result.output
        shape = json.loads(result.stdout)
        route = (shape["codes"][0]["decoded"] if words[0] == "scan" else shape)["route"]
        assert (route["status"], route["to"], route["merchant_id"]) == ("routed", shop.home, shop.id)
    foreign = CliRunner().invoke(main, ["barcode", "decode", "upi://pay?pa=a.b@icici", "--json"], env=environment)
    assert json.loads(foreign.stdout)["route"]["status"] == "recognised, no route"
