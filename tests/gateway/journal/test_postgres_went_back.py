"""A database that lost commits (a restored backup, a standby that lagged) is not a takeover: nobody serves on it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import psycopg
import pytest

from gateway.engine.ports import JournalFencedError
from gateway.journal.interface import JournalWentBackError
from gateway.journal.memory import FILE_NAME, Memory, Standing
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.gateway.v1 import payment_pb2_grpc as rpc
from sandbox.journals import JournalError, open_journal
from sandbox.network import Network, NetworkError
from sandbox.participants.books import totals
from tests.deadlines import CALL_S, wait_until
from tests.gateway.journal.shared import Node, Pair, SharedLink, draft, open_participants
from tests.gateway.journal.test_postgres_network import options, request

Backup = dict[str, bytes]


def back_up(url: str) -> Backup:
    """Every table, as one moment had it."""
    with psycopg.connect(url) as connection:
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        names = [row[0] for row in connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")]
        backup = {}
        for name in names:
            with connection.cursor().copy(f"COPY {name} TO STDOUT".encode()) as copy:
                backup[name] = b"".join(copy)
        return backup


def put_back(url: str, backup: Backup) -> None:
    """The database is as it was then, and every connection ends, as when another server takes over."""
    with psycopg.connect(url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid() "
            "AND datname = current_database() AND backend_type = 'client backend'"
        )
        connection.execute(f"TRUNCATE {', '.join(backup)}".encode())
        for name, rows in backup.items():
            with connection.cursor().copy(f"COPY {name} FROM STDIN".encode()) as copy:
                copy.write(rows)


@pytest.fixture
def pair(url: str, tmp_path: Path) -> Iterator[Pair]:
    pair = Pair(url, tmp_path)
    yield pair
    pair.close()


def pay(node: Node, key: str) -> str:
    return node.create(draft(key=key)).outcome


def test_an_idle_gateway_notices_and_says_what_is_gone(pair: Pair, url: str) -> None:
    here, there = pair.nodes
    assert pay(here, "kept") == "SUCCEEDED"
    backup = back_up(url)
    assert [pay(here, "one"), pay(here, "two")] == ["SUCCEEDED"] * 2
    wait_until(lambda: there.journal.memory.known.get(here.journal.engine) == here.journal.standing)
    put_back(url, backup)
    wait_until(lambda: here.engine.failure is not None)
    assert isinstance(here.engine.failure, JournalWentBackError)
    assert "2 payments that this gateway admitted since are gone" in str(here.engine.failure)
    assert f"engine {here.journal.engine} had committed tick" in str(here.engine.failure)
    # The neighbour committed nothing since, but had seen that more was there.
    wait_until(lambda: there.engine.failure is not None)
    assert isinstance(there.engine.failure, JournalWentBackError)


def test_the_first_tick_after_it_acknowledges_nothing(pair: Pair, url: str) -> None:
    here, _ = pair.nodes
    backup = back_up(url)
    assert pay(here, "key") == "SUCCEEDED"
    moved = totals(pair.books.path)
    put_back(url, backup)
    again = here.create(draft(key="key"))
    assert again.outcome == "JOURNAL_UNAVAILABLE"
    assert isinstance(here.engine.failure, JournalWentBackError)
    assert totals(pair.books.path) == moved  # the same key is not charged again


def test_an_epoch_raised_by_others_does_not_hide_it(url: str, tmp_path: Path) -> None:
    """Whoever takes an engine's number over raises its epoch, and never lowers its tick."""
    books, participants = open_participants(tmp_path)
    node = Node(url, SharedLink(threading.Lock(), participants)).start()
    backup = back_up(url)
    assert pay(node, "key") == "SUCCEEDED"
    put_back(url, backup)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE leases SET epoch = epoch + 5, holder = 'other'")
    wait_until(lambda: node.engine.failure is not None)
    assert isinstance(node.engine.failure, JournalWentBackError)
    node.journal.disconnect()
    books.close()


def test_a_takeover_is_still_called_one(url: str, tmp_path: Path) -> None:
    books, participants = open_participants(tmp_path)
    node = Node(url, SharedLink(threading.Lock(), participants)).start()
    assert pay(node, "key") == "SUCCEEDED"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE leases SET epoch = epoch + 1, holder = ''")
    wait_until(lambda: node.engine.failure is not None)
    failure = node.engine.failure
    assert isinstance(failure, JournalFencedError)
    assert not isinstance(failure, JournalWentBackError)
    node.journal.disconnect()
    books.close()


def test_a_lease_of_the_same_epoch_and_tick_but_another_holder_commits_nothing(url: str, tmp_path: Path) -> None:
    """Epochs repeat on a database that went back: the holder's name does not."""
    books, participants = open_participants(tmp_path)
    node = Node(url, SharedLink(threading.Lock(), participants)).start()
    assert pay(node, "key") == "SUCCEEDED"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE leases SET holder = 'other'")
    assert pay(node, "next") == "JOURNAL_UNAVAILABLE"
    assert isinstance(node.engine.failure, JournalFencedError)
    node.journal.disconnect()
    books.close()


def test_a_gateway_that_starts_on_it_refuses_until_an_operator_accepts(url: str, tmp_path: Path) -> None:
    first = options(tmp_path, url)
    with Network.start(first) as network, grpc.insecure_channel(network.target) as channel:
        token = network.wallet_tokens["wallet-01"].reveal()
        backup = back_up(url)
        paid = rpc.PaymentServiceStub(channel).CreatePayment(request(token, "key"), timeout=CALL_S)
        assert paid.payment.state == pb.PAYMENT_STATE_SUCCEEDED
    put_back(url, backup)
    for _ in range(2):  # also after it has refused
        with pytest.raises(NetworkError, match=r"has lost commits: engine 1 .* --accept-lost-commits"):
            Network.start(first)
    with Network.start(replace(first, accept_lost_commits=True)) as network:
        assert network.gateway.engine.writable
    with psycopg.connect(url) as connection:
        rows = connection.execute("SELECT value FROM meta WHERE name LIKE 'lost commits accepted %'").fetchall()
    assert len(rows) == 1
    assert "engine 1 had committed tick" in rows[0][0]
    with Network.start(first) as network:
        assert not network.failed


def test_another_database_than_the_folder_wrote_is_refused_too(url: str, tmp_path: Path) -> None:
    memory = Memory(tmp_path / FILE_NAME)
    memory.learn([Standing(7, 3, 1_000)])
    memory.save(durable=True)
    with pytest.raises(JournalError, match=r"engine 7 had committed tick 1,000, it has none \(1,000 lost\)"):
        open_journal(tmp_path, url)


def test_a_memory_that_is_torn_or_foreign_is_no_reason_not_to_start(tmp_path: Path) -> None:
    path = tmp_path / FILE_NAME
    memory = Memory(path)
    memory.learn([Standing(1, 2, 30), Standing(2, 1, 4)])
    memory.save(durable=False)
    read = Memory(path)
    assert dict(read.known) == dict(memory.known)
    assert not read.behind([Standing(1, 3, 30), Standing(2, 1, 5), Standing(3, 1, 0)])
    assert [one.known.engine for one in read.behind([Standing(1, 9, 29)])] == [1, 2]
    path.write_bytes(path.read_bytes()[:-5])
    assert not Memory(path).known
    path.write_bytes(b"\xff\xfe")
    assert not Memory(path).known
