"""A payment whose texts try to command printers, terminals and spreadsheets, through the commands that show it."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from command.main import main
from gateway.barcode.build import MerchantCode, build_merchant_code
from gateway.barcode.tlv import crc
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client import keys
from hutong_client.client import HutongClient
from hutong_contract.cleaning import MARK, UNSAFE
from sandbox.network import Network
from sandbox.options import NetworkOptions

PRINTING = ("command", "clients/python", "loadtest", "sandbox", "verification")
"""Folders of the packages that print for people."""

REFERENCES = {
    "a line on the paper": "order\n   PAID 0.00\x1b@",
    "a terminal's sequences": "\x1b[2J\x1b[31m\x9b1mred\x1b]0;t\x07",
    "a formula": '=HYPERLINK("http://127.0.0.1","a")',
    "another formula": "@SUM(1)",
    "a formula behind a tab": "\t-1+1",
    "text turned round": "\u202e00.0 DIAP\u2066",
    "separators of lines": "a\u2028b\u2029c\x85d\re",
    "rich's markup": "[red]x[/red] [/] [link=http://127.0.0.1]y[/link]",
}
PLACE = "REFERENCE-PLACE"


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    options = NetworkOptions(data=tmp_path_factory.mktemp("network"), seed=3, listen="127.0.0.1:0")
    with Network.start(options) as network:
        yield network


def hutong(network: Network, *arguments: str) -> Result:
    command, *rest = arguments
    result = CliRunner().invoke(main, [command, "--target", network.target, *rest])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def test_commands_print_through_what_cleans() -> None:
    """Whoever adds a command finds the way: rich's own console, and JSON that leaves controls as they are, stay out."""
    root = Path(__file__).parents[2]
    for path in (path for package in PRINTING for path in (root / package).rglob("*.py")):
        text = path.read_text("utf-8")
        if path.name != "screen.py":
            assert "import Console" not in text, f"{path}: use command.printing.screen.Screen"
        assert "ensure_ascii=False" not in text, f"{path}: use command.printing.said.say_json"


def code_with(reference: str) -> str:
    """A merchant's code as an attacker prints it: its own reference, the check sum made to fit."""
    made = build_merchant_code(MerchantCode("m1001", "Shop", "City", reference=PLACE))
    field = f"05{len(PLACE):02}{PLACE}"
    at = made.index(field)
    outer = made.rindex("62", 0, at)
    inner = made[outer + 4 : outer + 4 + int(made[outer + 2 : outer + 4])]
    changed = inner.replace(field, f"05{len(reference):02}{reference}")
    body = made[:outer] + f"62{len(changed):02}{changed}" + made[outer + 4 + len(inner) : -4]
    return body + crc(body)


def paid(network: Network, reference: str) -> pb.Payment:
    """By the merchant's code where that can hold the reference, which is ASCII then."""
    with HutongClient(network.target) as client:
        by_code = reference.isascii() and len(reference) <= 25
        payment = client.create_payment(
            payer=keys.token(next(iter(network.wallet_tokens.values())).reveal()),
            payee=keys.barcode(code_with(reference)) if by_code else keys.merchant("m1001"),
            amount_minor=1250,
            currency="CNY",
            reference="" if by_code else reference,
        )
        assert payment.state == pb.PAYMENT_STATE_SUCCEEDED
        assert payment.reference == reference, "what is stored is what came"
        return payment


def check_screen(output: str) -> None:
    assert not UNSAFE.search(output.replace("\n", "")), repr(output)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_hostile_reference_is_shown_and_commands_nothing(network: Network, name: str) -> None:
    reference = REFERENCES[name]
    payment = paid(network, reference)
    harmless = UNSAFE.sub(MARK, reference)

    receipt = hutong(network, "receipt", payment.payment_id)
    assert receipt.exit_code == 0
    check_screen(receipt.output)
    assert harmless in "".join(line.strip() for line in receipt.output.split("\n")) or harmless in receipt.output
    assert not any(line.strip().startswith("PAID 0.00") for line in receipt.output.split("\n"))

    shown = hutong(network, "show", payment.payment_id)
    assert shown.exit_code == 0
    check_screen(shown.output)
    (line,) = [line for line in shown.output.split("\n") if line.strip().startswith("reference")]
    assert harmless[:20] in line
    assert not any(line.strip().startswith("PAID") for line in shown.output.split("\n"))

    for command in ("show", "receipt"):
        told = hutong(network, command, payment.payment_id, "--json")
        check_screen(told.output)
        plain = json.loads(told.output)
        kept = plain["payment"]["reference"] if command == "show" else plain["reference"]
        assert kept == (reference if command == "show" else harmless)

    for option in ((), ("--json",)):
        check_screen(hutong(network, "refund", payment.payment_id, "--reference", reference, *option).output)


@pytest.mark.parametrize("name", [name for name, text in REFERENCES.items() if text.isascii() and len(text) <= 25])
def test_a_hostile_code_is_decoded_and_commands_nothing(name: str) -> None:
    for option in ((), ("--json",)):
        result = CliRunner().invoke(main, ["barcode", "decode", code_with(REFERENCES[name]), *option])
        check_screen(result.output)


def test_an_error_names_what_came_and_commands_nothing(network: Network) -> None:
    for arguments in (
        ("show", "\x1b[2Jx"),
        ("pay", "--token", "\x1b]0;x\x07", "--merchant", "\u202em", "--amount", "1"),
    ):
        for option in ((), ("--json",)):
            result = hutong(network, *arguments, *option)
            assert result.exit_code == 1
            check_screen(result.output)


def test_statements_calculate_nothing(network: Network, tmp_path: Path) -> None:
    made = {paid(network, reference).payment_id: reference for reference in REFERENCES.values()}
    for arguments in (("close",), ("files", "--out", str(tmp_path))):
        result = CliRunner().invoke(main, ["settle", *arguments, "--target", network.target])
        assert result.exit_code == 0, result.output
        check_screen(result.output)
    seen = set()
    for path in tmp_path.rglob("*.csv"):
        content = path.read_bytes().decode()
        assert not UNSAFE.search(content.replace("\r\n", ""))
        for row in csv.DictReader(content.splitlines(), strict=True):
            assert not any(value.startswith(("=", "+", "-", "@")) for value in row.values())
            if row["payment_id"] in made:
                seen.add(row["payment_id"])
                reference = UNSAFE.sub(MARK, made[row["payment_id"]])
                assert row["reference"] == ("'" if reference[0] in "=@" else "") + reference
    assert seen == set(made)
    for path in tmp_path.rglob("*.xml"):
        assert not UNSAFE.search(path.read_text("utf-8").replace("\n", ""))
