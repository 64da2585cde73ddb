"""`hutong token`, `code` and `keys` against a real server: output, JSON, exit statuses; keys of a folder at rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from command.main import main
from hutong_contract.payment_code import is_payment_code
from loadtest import tokens as bench
from tests.tokenization.test_server import Served
from tests.tokenization.world import PASSPHRASE
from tokenization.numbers import is_token
from tokenization.passphrase import VARIABLE

ACCOUNT = "6225880112345674"


class Line:
    """A command line at a served vault."""

    def __init__(self, served: Served) -> None:
        self.served = served
        self.environment = {"HUTONG_TARGET": f"127.0.0.1:{served.port}", VARIABLE: PASSPHRASE.reveal()}

    def run(self, *words: str, status: int = 0, given: str = "") -> Result:
        result = CliRunner().invoke(main, words, env=self.environment, input=given)
        assert result.exit_code == status, result.output
        return result

    def json(self, *words: str, status: int = 0, given: str = "") -> Any:
        return json.loads(self.run(*words, "--json", status=status, given=given).stdout)

    def token(self) -> str:
        return str(self.run("token", "request", "--issuer", "issuer-a", "--account", ACCOUNT).stdout.strip())


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    served = Served(tmp_path / "vault")
    yield Line(served)
    served.close()


def test_a_tokens_life(line: Line) -> None:
    token = line.token()
    assert is_token(token)
    again = line.json("token", "request", "--issuer", "issuer-a", "--account", "-", given=ACCOUNT + "\n")
    assert again["token"] == token
    ref = again["view"]["token_ref"]
    assert line.json("token", "suspend", ref, "--reason", "lost")["state"] == "suspended"
    assert line.json("token", "resume", "-", given=token + "\n")["state"] == "active"
    refusal = line.json("token", "resume", ref, status=1)["error"]
    assert refusal["reason"] == "TOKEN_TRANSITION"
    made = line.json("token", "keys", token, "--add", "device", "--device", "phone")
    key = made["view"]["key_ref"]
    assert len(made["device_key"]) == 64
    assert line.json("token", "suspend", token, "--key", key)["state"] == "active"
    assert line.json("token", "show", token)["keys"][0]["state"] == "suspended"
    assert key in line.run("token", "keys", token).stdout
    assert line.json("token", "delete", ref)["state"] == "deleted"
    kinds = [event["kind"] for event in line.json("token", "history", ref)]
    assert kinds == ["suspended", "resumed", "key_added", "suspended", "deleted", "deleted"]
    shown = line.run("token", "history", ref).stdout + line.run("token", "show", ref).stdout
    assert token not in shown
    assert ACCOUNT not in shown


def test_terms(line: Line) -> None:
    words = ("--channel", "token", "--mcc", "5411", "--payment-max", "9", "--currency", "CNY", "--spend-max", "50")
    view = line.json("token", "request", "--issuer", "issuer-a", "--account", ACCOUNT, *words, "--inactive")["view"]
    assert view["state"] == "requested"
    assert view["domain"] == {
        "channels": ["token"], "merchant_categories": ["5411"], "amount_max_minor": 900, "currency": "CNY"
    }  # fmt: skip
    assert view["budget"] == {"amount_minor": 5000, "currency": "CNY"}
    assert "50.00 CNY" in line.run("token", "show", view["token_ref"]).stdout
    assert line.json("token", "activate", view["token_ref"])["state"] == "active"


def test_codes(line: Line, tmp_path: Path) -> None:
    token = line.token()
    assert is_payment_code(line.run("code", "show", token).stdout.strip())
    assert line.json("code", "show", token)["offline"] is False
    png = tmp_path / "code.png"
    offline = line.json("code", "show", token, "--offline", "--png", str(png))
    assert is_payment_code(offline["code"])
    assert png.read_bytes().startswith(b"\x89PNG")
    day = line.json("code", "provision", token)
    assert offline["code"][2:11] == day["alias"]


def test_keys_of_a_running_network_and_of_a_folder(line: Line) -> None:
    token = line.token()
    assert line.json("keys", "status")["active_version"] == 1
    assert line.json("keys", "rotate")["remaining"] == 0
    assert line.json("keys", "status")["active_version"] == 2
    folder = str(line.served.world.folder)
    assert line.json("keys", "rotate", "--data", folder)["active_version"] == 3
    assert "retired" in line.run("keys", "status", "--data", folder).stdout
    line.run("keys", "erase", token, status=1, given="n\n")
    assert line.json("keys", "erase", token, "--yes")["erased"] is True
    assert line.json("keys", "erase", token, "--yes", "--data", folder, status=1)["error"]["reason"] == "ACCOUNT_ERASED"
    line.environment[VARIABLE] = "wrong"
    assert line.json("keys", "status", "--data", folder, status=1)["error"]["reason"] == "VAULT_NOT_OPENED"
    line.run("keys", "status", "--data", str(Path(__file__).parent), status=2)


def test_failures(line: Line) -> None:
    token = line.token()
    assert line.json("token", "show", "123", status=1)["error"]["reason"] == "TOKEN_MALFORMED"
    wrong = line.json("token", "show", token, "--requestor", "99999999999", status=1)["error"]
    assert wrong["reason"] == "REQUESTOR_NOT_ALLOWED"
    line.run("token", "show", "x" * 32, status=2)
    line.run("token", "suspend", token, "--key", "abc", status=2)
    line.run("token", "bench", "--accounts", "1", status=2)
    unreachable = line.json("token", "show", token, "--target", "127.0.0.1:1", status=1)["error"]
    assert unreachable["reason"] == "UNREACHABLE"


@pytest.mark.slow
def test_bench_and_check_in_small(line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is measured is a command's business; here only that it runs, refuses nothing and says what it says."""
    monkeypatch.setattr(bench, "SECONDS", 0.05)
    result = CliRunner().invoke(main, ["token", "bench", "--accounts", "2000", "--data", str(tmp_path / "b"), "--json"])
    report = json.loads(result.stdout)
    assert report["accounts"] == 2000
    assert report["failed_while_rewrapping"] == 0
    assert set(report["met"]) == {*report["targets"]}
    assert line.json("token", "check", "--count", "500") == {"tokens": 500, "unique": 500, "broken": 0}
