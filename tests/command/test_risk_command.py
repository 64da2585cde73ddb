"""`hutong risk` on a running network: status, reload, a bad file refused, decisions, explain, release, reject."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from command.main import main
from command.options.operators import OPERATOR_VARIABLE
from gateway.risk.book import RuleBook
from gateway.risk.rule_file import RulesError
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.gateway.v1 import risk_pb2, risk_pb2_grpc
from hutong_client.client import HutongClient
from hutong_client.keys import merchant, token
from hutong_contract.errors import HutongError
from hutong_contract.names import WALLET_TRID
from hutong_contract.secret import Secret
from sandbox.network import Network, NetworkError
from sandbox.options import NetworkOptions
from tests.deadlines import wait_until
from tokenization.requestors import Requestor, Role

RULES = """version = 1
[[rule]]
name = "watch this merchant"
merchants = ["m1001"]
points = 10
[[rule]]
name = "not this terminal"
terminals = ["m1001t2"]
action = "decline"
[[rule]]
name = "look at large ones"
currency = "CNY"
amount_above = 50_000
action = "hold"
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("risk")
    rules = folder / "rules.toml"
    rules.write_text(RULES)
    options = NetworkOptions(data=folder / "data", seed=5, listen="127.0.0.1:0", magic_amounts=False, risk_rules=rules)
    with Network.start(options) as running:
        yield running


@pytest.fixture
def rules(network: Network) -> Iterator[Path]:
    path = network.options.risk_rules
    assert path is not None
    yield path
    path.write_text(RULES)
    network.gateway.risk.reload()


def run(network: Network, *arguments: str, fails: bool = False) -> Any:
    done = CliRunner().invoke(main, ["risk", *arguments, "--target", network.target, "--json"])
    assert done.exit_code == int(fails), done.output
    return json.loads(done.stdout)


def pay(network: Network, amount: int = 1000, terminal: str = "m1001t1") -> pb.Payment:
    with HutongClient(network.target) as client:
        payer = token(network.wallet_tokens["wallet-01"].reveal())
        return client.create_payment(
            payer=payer, payee=merchant("m1001", terminal), amount_minor=amount, currency="CNY"
        )


def test_decisions_are_listed_and_a_payment_shows_its_own(network: Network) -> None:
    paid = pay(network)
    with pytest.raises(HutongError, match="RISK_DECLINED") as refused:
        pay(network, terminal="m1001t2")
    newest, before = run(network, "decisions", "--limit", "2")
    assert (newest["refused"], newest["payment_id"]) == ("RISK_DECLINED", refused.value.fields["decision"])
    assert newest["judgement"]["findings"][1] == {"rule": "not this terminal", "action": "decline"}
    assert (before["payment_id"], before["state"]) == (paid.payment_id, "PAYMENT_STATE_SUCCEEDED")
    shown = CliRunner().invoke(main, ["show", paid.payment_id, "--target", network.target])
    assert "watch this merchant" in shown.output
    with HutongClient(network.target) as client:
        judged = client.get_payment(paid.payment_id).risk
    assert (judged.action, judged.score, judged.tier) == ("approve", 10, "A")
    assert judged.version == network.gateway.risk.judge.rules.version
    table = CliRunner().invoke(main, ["risk", "decisions", "--target", network.target])
    assert table.exit_code == 0


def test_decisions_come_by_pages(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        pay(network)
    whole = run(network, "decisions", "--limit", "5")
    monkeypatch.setattr("hutong_client.risk.PAGE", 2)
    assert run(network, "decisions", "--limit", "5") == whole
    assert len({one["payment_id"] for one in whole}) == 5


def test_a_held_payment_is_released_or_rejected(network: Network) -> None:
    held = [pay(network, 60_000) for _ in range(2)]
    assert {(one.state, one.reason) for one in held} == {(pb.PAYMENT_STATE_HELD, "risk_hold")}
    with HutongClient(network.target) as client, pytest.raises(HutongError, match="RISK_HELD"):
        client.capture_payment(held[0].payment_id)
    assert run(network, "release", held[0].payment_id)["state"] == "PAYMENT_STATE_SUCCEEDED"
    assert run(network, "reject", held[1].payment_id)["state"] == "PAYMENT_STATE_CANCELLED"
    assert run(network, "reject", held[1].payment_id)["state"] == "PAYMENT_STATE_CANCELLED"
    assert run(network, "reject", held[0].payment_id, fails=True)["error"]["reason"] == "PAYMENT_NOT_HELD"
    again = run(network, "release", held[1].payment_id, fails=True)
    assert again["error"]["reason"] == "PAYMENT_NOT_HELD"


METHODS = {
    "GetRiskStatus": risk_pb2.GetRiskStatusRequest,
    "ReloadRiskRules": risk_pb2.ReloadRiskRulesRequest,
    "ListRiskDecisions": risk_pb2.ListRiskDecisionsRequest,
    "ExplainRisk": risk_pb2.ExplainRiskRequest,
    "ReleaseHeldPayment": risk_pb2.ReleaseHeldPaymentRequest,
    "RejectHeldPayment": risk_pb2.RejectHeldPaymentRequest,
}


@pytest.mark.parametrize("method", METHODS)
def test_operators_alone_are_served(network: Network, method: str) -> None:
    with HutongClient(network.target) as client:
        call = getattr(risk_pb2_grpc.RiskServiceStub(client.channel), method)
        for who, reason in (("", "FIELD_MISSING"), (WALLET_TRID, "REQUESTOR_NOT_ALLOWED"), ("x", "REQUESTOR_NOT_")):
            with pytest.raises(HutongError, match=reason):
                client.call(call, METHODS[method](requestor_id=who))
    assert {one.name for one in risk_pb2.DESCRIPTOR.services_by_name["RiskService"].methods} == set(METHODS)


def test_who_is_no_operator_releases_nothing(network: Network) -> None:
    held = pay(network, 60_000)
    refused = run(network, "release", held.payment_id, "--operator", WALLET_TRID, fails=True)["error"]
    assert (refused["reason"], refused["fields"]["action"]) == ("REQUESTOR_NOT_ALLOWED", "operate")
    assert run(network, "reject", held.payment_id, "--operator", WALLET_TRID, fails=True)
    with HutongClient(network.target) as client:
        assert client.get_payment(held.payment_id).payment.state == pb.PAYMENT_STATE_HELD
    assert run(network, "release", held.payment_id)["state"] == "PAYMENT_STATE_SUCCEEDED"


def test_an_operator_with_a_secret_sends_it(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    network.tokens.register_requestor(Requestor("10000000009", "night desk", Role.OPERATOR), Secret("swordfish"))
    desk = ("--operator", "10000000009")
    for wrong in ("", "guess"):
        monkeypatch.setenv(OPERATOR_VARIABLE, wrong)
        assert run(network, "status", *desk, fails=True)["error"]["reason"] == "REQUESTOR_NOT_ALLOWED"
    monkeypatch.setenv(OPERATOR_VARIABLE, "swordfish")
    assert run(network, "status", *desk)["rules"]


def test_explain_says_what_would_fire_and_makes_nothing(network: Network) -> None:
    paid = pay(network)
    count = run(network, "status")["actions"]
    found = run(network, "explain", "--payment", paid.payment_id, "--terminal", "m1001t2")
    assert (found["refused"], found["judgement"]["action"]) == ("RISK_DECLINED", "decline")
    assert len(found["account"]) == 32
    found = run(network, "explain", "--amount", "500.01", "--merchant", "m1001", "--assurance", "12")
    assert (found["judgement"]["action"], found["judgement"]["tier"]) == ("hold", "B")
    assert run(network, "explain", "--payment", paid.payment_id, "--account", "x", fails=True)
    assert run(network, "status")["actions"] == count
    assert CliRunner().invoke(main, ["risk", "explain"]).exit_code == 2


def test_a_changed_file_is_in_force_and_a_wrong_one_is_refused(network: Network, rules: Path) -> None:
    old = run(network, "status")
    rules.write_text(RULES.replace("50_000", "900"))
    new = run(network, "reload")["version"]
    assert new != old["version"]
    assert pay(network).state == pb.PAYMENT_STATE_HELD
    rules.write_text(RULES.replace("points = 10", "ponits = 10"))
    refused = run(network, "reload", fails=True)["error"]
    assert refused["reason"] == "RISK_RULES_INVALID"
    assert "line 5" in refused["fields"]["2"] + refused["fields"]["1"]
    status = run(network, "status")
    assert (status["version"], status["refused_files"]) == (new, old["refused_files"] + 1)
    assert any("ponits" in problem for problem in status["problems"])
    assert pay(network).state == pb.PAYMENT_STATE_HELD
    assert "not in force" in CliRunner().invoke(main, ["risk", "status", "--target", network.target]).output


def test_the_gateway_follows_the_file_by_itself(network: Network, rules: Path) -> None:
    """The loop looks at the file's times: the test waits for that, and no longer."""
    book = network.gateway.risk
    before = book.status().version
    rules.write_text(RULES + "# changed\n")
    wait_until(lambda: book.status().version != before)


def test_a_book_reads_a_file_again_when_it_changes_or_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("version = 1\n")
    book = RuleBook(path, now_us=lambda: 7)
    first = book.status()
    assert (first.path, first.loaded_us, book.stale) == (str(path), 7, False)
    path.write_text("version = 1 # longer\n")
    assert book.stale
    book.poll()
    second = book.status()
    assert (second.version != first.version, book.stale) == (True, False)
    path.write_text("version = 12345\n")
    book.poll()
    refused = book.status()
    assert (refused.version, refused.refused_files, len(refused.problems), book.stale) == (second.version, 1, 1, False)
    path.unlink()
    book.poll()
    assert "cannot be read" in book.status().problems[0]
    path.write_text("version = 1\n")
    book.ask()
    assert book.stale
    book.poll()
    mended = book.status()
    assert (mended.version, mended.problems, mended.refused_files) == (first.version, (), 2)


def test_a_network_does_not_start_on_a_wrong_file(tmp_path: Path) -> None:
    path = tmp_path / "rules.toml"
    path.write_text("version = 2\n")
    with pytest.raises(RulesError, match="line 1"):
        RuleBook(path)
    with pytest.raises(NetworkError, match="line 1"):
        Network.start(NetworkOptions(data=tmp_path / "data", listen="127.0.0.1:0", risk_rules=path))
