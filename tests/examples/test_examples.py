"""Runs every program of examples/ against a real network, as an integrator would: as a process, on the client alone."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client import keys
from hutong_client.client import HutongClient
from sandbox.network import Network
from sandbox.optics import MerchantPrinter
from sandbox.options import NetworkOptions, Where
from tests.deadlines import CALL_S, START_S, wait_until

pytestmark = [pytest.mark.process, pytest.mark.slow]

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "examples" / "python"
NODE = ROOT / "examples" / "node"
CLIENT_ALONE = os.pathsep.join(str(ROOT / part) for part in ("proto/gen", "contract", "clients/python"))
IMPORTED = {"hutong", "hutong_client", "hutong_contract", "grpc", "google", "__future__"} | set(sys.stdlib_module_names)
"""What a program for integrators may import: the client's distribution and what that depends on."""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    options = NetworkOptions(data=tmp_path_factory.mktemp("network"), listen="127.0.0.1:0")
    with Network.start(options) as network:
        yield network


def start(name: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PYTHON / name), *arguments],
        env={**os.environ, "PYTHONPATH": CLIENT_ALONE, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(name: str, *arguments: str, status: int = 0) -> str:
    """What a program printed; fails unless it ended with `status`."""
    with start(name, *arguments) as process:
        said, complained = process.communicate(timeout=START_S)
    assert process.returncode == status, said + complained
    return said + complained


def payer(network: Network) -> Sequence[str]:
    wallet = network.population.wallets[0]
    return ("--target", network.target, "--issuer", wallet.issuer_id, "--account", wallet.account.reveal())


@pytest.mark.parametrize("file", sorted(PYTHON.glob("*.py")), ids=lambda file: file.name)
def test_the_python_programs_need_the_client_alone(file: Path) -> None:
    tree = ast.parse(file.read_text())
    found = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    found |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert {name.split(".")[0] for name in found} <= IMPORTED


@pytest.mark.parametrize("offline", [False, True], ids=["online", "offline"])
def test_the_terminal_charges_what_the_wallet_shows_once_for_each_order(network: Network, *, offline: bool) -> None:
    code = run("wallet.py", *payer(network), "show", *(["--offline"] if offline else [])).strip()
    assert re.fullmatch(r"6[67]\d{17}", code)
    terminal = ("--target", network.target, "--merchant", "m1001", "--terminal", "m1001t1")
    order = f"order {code[:2]}"
    first = run("terminal.py", *terminal, "charge", code, "1250", "--order", order)
    assert "PAID" in first
    assert "12.50 CNY" in first
    assert run("terminal.py", *terminal, "charge", code, "1250", "--order", order) == first
    assert "CODE_SPENT" in run("terminal.py", *terminal, "charge", code, "1250", "--order", "another", status=1)
    payment_id = first.split()[0]
    assert "REFUND" in run("terminal.py", *terminal, "refund", payment_id, "--amount", "500")
    assert "7.50 CNY" in run("terminal.py", *terminal, "receipt", payment_id)
    assert "REFUND_EXCEEDS_PAYMENT" in run("terminal.py", *terminal, "refund", payment_id, "--amount", "751", status=1)


def test_the_wallet_sees_that_its_code_was_paid(network: Network) -> None:
    """It is told of its own payment, and not of another wallet's that is made meanwhile."""
    with start("wallet.py", *payer(network), "show", "--wait", str(START_S)) as wallet:
        assert wallet.stdout is not None
        code = wallet.stdout.readline().strip()
        stranger = network.wallet_tokens[network.population.wallets[1].id].reveal()
        with HutongClient(network.target) as client:
            other = client.create_payment(
                payer=keys.token(stranger), payee=keys.merchant("m1001"), amount_minor=1, currency="CNY"
            )
            assert other.state == pb.PAYMENT_STATE_SUCCEEDED
        paid = run("terminal.py", "--target", network.target, "charge", code, "450").split()[0]
        said, complained = wallet.communicate(timeout=START_S)
    assert (wallet.returncode, said) == (0, f"{paid} SUCCEEDED 4.50 CNY to m1001\n"), complained


def test_the_wallet_pays_a_merchants_code(network: Network) -> None:
    shop = network.population.merchants[0]
    dynamic = MerchantPrinter().merchant_code(shop, shop.terminals[0], 777)
    assert "SUCCEEDED 7.77 CNY" in run("wallet.py", *payer(network), "pay", dynamic)
    static = MerchantPrinter().merchant_code(shop, shop.terminals[0], None)
    assert "SUCCEEDED 3.21 CNY" in run("wallet.py", *payer(network), "pay", static, "--amount", "321")
    assert "DECLINED" in run("wallet.py", *payer(network), "pay", static, "--amount", "9051", status=1)


def test_the_probe_measures(network: Network) -> None:
    said = run("probe.py", *payer(network), "--seconds", "0.5", "--callers", "4")
    count = re.match(r"(\d+) payments in", said)
    assert count is not None, said
    assert f"SUCCEEDED {count[1]}\n" in said
    assert re.search(r"p50 [\d.]+ ms  p95 [\d.]+ ms  p99 [\d.]+ ms", said)


def test_a_network_pays_through_participants_of_ones_own(tmp_path: Path) -> None:
    """Issuer and acquirer are the example, all others are away: payment, hold, capture, refund, void."""
    data = tmp_path / "data"
    with Network.start(NetworkOptions(data=data, listen="127.0.0.1:0")) as before:
        token = before.wallet_tokens["wallet-01"].reveal()
    secrets = {one["id"]: one["secret"] for one in json.loads((data / "directory.json").read_text())["participants"]}
    (data / "network.json").unlink()
    accounts = {"issuer-a": f"{token},CNY,100000\n", "acquirer-a": "m1001,CNY,0\n"}
    options = NetworkOptions(data=data, listen="127.0.0.1:0", participants=Where.CONNECT)
    processes = []
    with ThreadPoolExecutor(1) as thread:
        starting = thread.submit(Network.start, options)
        wait_until((data / "network.json").exists, START_S)
        target = str(json.loads((data / "network.json").read_text())["target"])
        for name, lines in accounts.items():
            (tmp_path / f"{name}.csv").write_text(lines)
            process = start(
                "participant.py",
                *("--target", target, "--id", name, "--role", name.partition("-")[0]),
                *("--accounts", str(tmp_path / f"{name}.csv"), "--file", str(tmp_path / f"{name}.db")),
                HUTONG_PARTICIPANT_SECRET=secrets[name],
            )
            processes.append(process)
        try:
            with starting.result(START_S) as network, HutongClient(network.target) as client:
                wait_until(lambda: all(network.gateway.reachable(name) for name in accounts), START_S)

                def pay(amount_minor: int, hold_s: int | None = None) -> pb.Payment:
                    payment = client.create_payment(
                        payer=keys.token(token),
                        payee=keys.merchant("m1001"),
                        currency="CNY",
                        amount_minor=amount_minor,
                        hold_s=hold_s,
                    )
                    return client.settled(payment)

                paid = pay(60_000)
                assert paid.state == pb.PAYMENT_STATE_SUCCEEDED
                poor = pay(60_000)
                assert (poor.state, poor.reason) == (pb.PAYMENT_STATE_DECLINED, "51")
                held = pay(40_000, hold_s=3600)
                assert held.state == pb.PAYMENT_STATE_HELD
                assert pay(1).state == pb.PAYMENT_STATE_DECLINED
                captured = client.settled(client.capture_payment(held.payment_id, amount_minor=30_000))
                assert captured.state == pb.PAYMENT_STATE_SUCCEEDED
                assert client.refund_payment(paid.payment_id).state == pb.PAYMENT_STATE_SUCCEEDED
                held = pay(70_000, hold_s=3600)
                assert client.cancel_payment(held.payment_id).state == pb.PAYMENT_STATE_CANCELLED
                assert pay(70_000).state == pb.PAYMENT_STATE_SUCCEEDED
        finally:
            for process in processes:
                process.terminate()
                process.communicate(timeout=CALL_S)


def test_node_needs_the_proto_files_alone(network: Network, tmp_path: Path) -> None:
    """`npm ci` from the lock file in a copy of the folder, and a copy of proto/ without anything generated."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node.js and npm are not on this machine")
    folder, proto = tmp_path / "node", tmp_path / "proto"
    shutil.copytree(NODE, folder, ignore=shutil.ignore_patterns("node_modules"))
    shutil.copytree(ROOT / "proto", proto, ignore=shutil.ignore_patterns("gen"))
    assert '"resolved"' not in (folder / "package-lock.json").read_text(), "a lock file names no registry"
    install = [npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts", "--cache", str(tmp_path / "cache")]
    installed = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=START_S, check=False)
    if installed.returncode and re.search(r"ENOTFOUND|ECONNREFUSED|EAI_AGAIN|ETIMEDOUT|ENETUNREACH", installed.stderr):
        pytest.skip("the package registry of Node.js cannot be reached")
    assert installed.returncode == 0, installed.stderr
    ran = subprocess.run(
        [node, "pay.mjs", *payer(network), "--amount", "1250"],
        cwd=folder,
        env={**os.environ, "HUTONG_PROTO": str(proto)},
        capture_output=True,
        text=True,
        timeout=START_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = {name: value for line in ran.stdout.splitlines() for name, value in json.loads(line).items()}
    assert (said["payment"]["state"], said["payment"]["amount_minor"]) == ("PAYMENT_STATE_SUCCEEDED", "1250")
    assert said["same_payment"] is True
    assert said["refused"]["reason"] == "CODE_SPENT"
    assert said["refund"]["state"] == "PAYMENT_STATE_SUCCEEDED"
