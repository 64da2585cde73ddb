"""`hutong check` on a network in use: payments that go on while it reads are no finding, money that is gone is one."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path

import pytest

from gateway.journal.report import Report
from hutong.gateway.v1 import payment_pb2 as pb
from hutong_client import keys
from hutong_client.client import HutongClient
from sandbox.checking import check_folder
from sandbox.journals import examine_journal
from sandbox.network import Network
from sandbox.options import NetworkOptions


def pay(network: Network) -> None:
    with HutongClient(network.target) as client:
        token = network.wallet_tokens["wallet-01"].reveal()
        payment = client.create_payment(
            payer=keys.token(token), payee=keys.merchant("m1001"), amount_minor=100, currency="CNY"
        )
    assert payment.state == pb.PAYMENT_STATE_SUCCEEDED


def test_payments_between_the_readings_are_no_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = 0
    with Network.start(NetworkOptions(data=tmp_path, seed=3, listen="127.0.0.1:0")) as network:
        examine = examine_journal

        def and_then_pay(folder: Path, journal: str) -> Report:
            nonlocal readings
            report = examine(folder, journal)
            pay(network)
            readings += 1
            return report

        pay(network)
        monkeypatch.setattr("sandbox.checking.examine_journal", and_then_pay)
        report = check_folder(tmp_path)
    assert (report.findings, report.payments, readings) == ([], 2, 2)


def test_what_differs_every_time_is_a_finding(tmp_path: Path) -> None:
    with Network.start(NetworkOptions(data=tmp_path, seed=3, listen="127.0.0.1:0")) as network:
        pay(network)
        with sqlite3.connect(tmp_path / "participants" / "books.db") as books:
            books.execute("UPDATE entries SET effect_minor = effect_minor + 1 WHERE participant LIKE 'acquirer%'")
        books.close()
        report = check_folder(tmp_path)
    assert len(report.findings) == 1
    assert re.search(r"but the books of acquirer-\w+ have 101$", report.findings[0])
