"""Fault 20 on whole networks: windows are closed by several at once while payments, refunds, reversals and failovers
run, and while the process is killed; afterwards each success lies in exactly one, and every file adds up."""

from __future__ import annotations

import csv
import random
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import pytest

from gateway.clearing import messages
from gateway.clearing.closing import close_window
from gateway.clearing.files import folder_name, verify, write_files
from gateway.clearing.model import Window
from gateway.clearing.reader import ClearingReader
from gateway.clearing.statements import statements
from gateway.engine.model import Writes
from gateway.journal.sqlite import SqliteJournal
from gateway.journal.sqlite_reader import SqliteReader
from hutong.gateway.v1 import payment_pb2 as payments
from hutong.gateway.v1 import settlement_pb2 as pb
from hutong.gateway.v1 import settlement_pb2_grpc as rpc
from hutong_client import keys
from hutong_client.client import HutongClient
from hutong_client.errors import CallError
from hutong_contract.errors import HutongError
from sandbox.checking import check_folder
from sandbox.network import Network
from tests.deadlines import CALL_S, wait_until
from tests.gateway.clearing.settled_network import OPERATOR, start
from tests.gateway.test_kill import Gateway, Load, wallet_token

AMOUNTS = (100, 250, 9105, 9106, 9005, 9121)
LOAD_S = 1.5
CLOSERS = 3


def trade(network: Network, stop: threading.Event, seed: int, failures: list[BaseException]) -> None:
    rng = random.Random(seed)
    tokens = [token.reveal() for token in network.wallet_tokens.values()]
    try:
        with HutongClient(network.target) as client:
            while not stop.is_set():
                results = client.batch_create_payments(
                    payments.CreatePaymentRequest(
                        idempotency_key=f"{seed}-{rng.random()}",
                        payer=keys.token(rng.choice(tokens)),
                        payee=keys.merchant(rng.choice(("m1001", "m2001", "m3001"))),
                        amount_minor=rng.choice(AMOUNTS),
                        currency="CNY",
                    )
                    for _ in range(20)
                )
                for result in results[::4]:
                    if isinstance(result, payments.Payment) and result.state == payments.PAYMENT_STATE_SUCCEEDED:
                        client.refund_payment(result.payment_id, amount_minor=rng.randrange(1, 60))
    except BaseException as error:
        failures.append(error)
        raise


def close_in_turn(
    target: str, stop: threading.Event, seen: dict[int, set[bytes]], failures: list[BaseException]
) -> None:
    """Closes windows as fast as it can, against the other closers."""
    try:
        with grpc.insecure_channel(target) as channel:
            stub = rpc.SettlementServiceStub(channel)
            number = 1
            while not stop.is_set():
                window = stub.CloseWindow(pb.CloseWindowRequest(caller=OPERATOR, number=number), timeout=CALL_S).window
                seen.setdefault(number, set()).add(window.SerializeToString(deterministic=True))
                number += 1
                stop.wait(0.02)
    except BaseException as error:
        failures.append(error)
        raise


@contextmanager
def reading(folder: Path) -> Iterator[ClearingReader]:
    reader = ClearingReader(SqliteReader(folder / "gateway.db"))
    try:
        yield reader
    finally:
        reader.close()


def check_windows(folder: Path, out: Path) -> list[Window]:
    """Every success in exactly one window, nets that sum to zero, and files that add up to the positions."""
    with sqlite3.connect(folder / "gateway.db") as database:
        successes = [bytes(row[0]) for row in database.execute("SELECT payment_id FROM payments WHERE state = 7")]
    found: list[bytes] = []
    with reading(folder) as reader:
        windows = sorted(reader.windows(limit=10_000), key=lambda one: one.number)
        for window in windows:
            found += [one.payment_id for one in reader.settled(window)]
            positions = reader.positions(window)
            assert sum(one.net_minor for one in positions) == 0
            write_files(window, statements(positions), positions, reader.settled(window), out)
            target = out / folder_name(window.number)
            assert list(verify(target)) == []
            for one in positions:
                with (target / f"{one.participant}.csv").open(newline="") as file:
                    lines = list(csv.DictReader(file))
                sums = [int(line["amount_minor"]) * (1 if line["direction"] == "credit" else -1) for line in lines]
                assert (sum(sums), len(sums)) == (one.net_minor, one.count)
    assert sorted(found) == sorted(successes)
    return windows


@pytest.mark.slow
def test_several_close_while_payments_run(tmp_path: Path) -> None:
    seen: dict[int, set[bytes]] = {}
    failures: list[BaseException] = []
    with start(tmp_path) as network:
        stop = threading.Event()
        threads = [threading.Thread(target=trade, args=(network, stop, seed, failures)) for seed in range(2)]
        threads += [
            threading.Thread(target=close_in_turn, args=(network.target, stop, seen, failures)) for _ in range(CLOSERS)
        ]
        for thread in threads:
            thread.start()
        stop.wait(LOAD_S)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        wait_until(lambda: not network.gateway.engine.in_flight)
        with reading(tmp_path) as reader:
            last = reader.last()
            assert last is not None
            close_window(last.number + 1, reader, network.gateway.engine.inbox.put)
    assert len(seen) > 5
    assert all(len(answers) == 1 for answers in seen.values())  # whoever asked, the same window
    windows = check_windows(tmp_path, tmp_path / "out")
    assert any(window.carried for window in windows)
    assert sum(window.last_sequence > window.after_sequence for window in windows) > 5
    report = check_folder(tmp_path)
    assert report.conserved, report.findings


@pytest.mark.slow
def test_kill_while_closing(tmp_path: Path) -> None:
    """What a closer was told is still so after kill -9, and what was in flight falls into no window."""
    told: dict[int, set[bytes]] = {}
    gateway = Gateway(tmp_path)
    load, stop = Load(0), threading.Event()
    with HutongClient(gateway.target) as client:
        token = wallet_token(client)
    threads = [threading.Thread(target=load.run, args=(gateway.target, token, stop))]
    threads += [threading.Thread(target=_close_until_killed, args=(gateway.target, told)) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until(lambda: load.acknowledged and len(told) > 3)
    gateway.kill()
    stop.set()
    for thread in threads:
        thread.join()
    assert len(told) > 3
    with reading(tmp_path) as reader:
        for number, answers in told.items():
            assert answers == {messages.window(reader.window(number)).SerializeToString(deterministic=True)}
        last = reader.last()
    assert last is not None
    report = check_folder(tmp_path)
    assert report.conserved, report.findings
    with closing(SqliteJournal(tmp_path / "gateway.db")) as journal:  # as the next start does
        assert len(journal.load_open()) == report.in_flight
        journal.commit(Writes(closings=[(last.number + 1, last.closed_us)]))
    check_windows(tmp_path, tmp_path / "out")
    report = check_folder(tmp_path)
    assert report.conserved, report.findings


def _close_until_killed(target: str, told: dict[int, set[bytes]]) -> None:
    with HutongClient(target) as client:
        stub = rpc.SettlementServiceStub(client.channel)
        number = 1
        while True:
            request = pb.CloseWindowRequest(caller=OPERATOR, number=number)
            try:
                window = client.call(stub.CloseWindow, request, 5)
            except (CallError, HutongError):
                return
            told.setdefault(number, set()).add(window.window.SerializeToString(deterministic=True))
            number += 1
