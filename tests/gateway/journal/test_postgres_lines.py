"""Lines to the database that are cut in the middle of a tick, while the server's end stays open: nobody else waits."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import errors

from gateway.engine.model import Writes
from gateway.engine.ports import JournalUnavailableError
from gateway.journal import leases
from gateway.journal import postgres_sql as sql
from gateway.journal.conservation import compare
from gateway.journal.postgres import PostgresJournal
from gateway.journal.postgres_check import examine_postgresql
from gateway.journal.postgres_connection import TRANSACTION_MS, connect
from gateway.journal.postgres_sessions import LEASES, Sessions
from sandbox.participants.books import totals
from tests.deadlines import CALL_S, wait_until
from tests.gateway.journal.shared import Node, SharedLink, draft, open_participants
from verification.torture.line import Line

BY_THEMSELVES_S = 0.8 * TRANSACTION_MS / 1000
"""Sooner than the server itself, where it has a setting for that, would free what a cut line left."""
STATEMENTS = (
    "COMMIT",  # the line of numbers is locked
    "UPDATE numbering",  # only what the tick itself is about
    "INSERT INTO payments",  # only the engine's own lease
)


@pytest.fixture
def line(url: str) -> Iterator[Line]:
    with psycopg.connect(url) as connection:
        info = connection.info
        made = Line(f"{info.host}/.s.PGSQL.{info.port}", info.dbname, info.user)
    yield made
    made.close()


class Lined:
    """An engine behind a line, and one with the server to itself, on the same participants."""

    def __init__(self, url: str, line: Line, folder: Path) -> None:
        self.url = url
        self.books, participants = open_participants(folder)
        lock = threading.Lock()
        self.far = Node(line.url, SharedLink(lock, participants)).start()
        self.near = Node(url, SharedLink(lock, participants)).start()

    def check(self) -> None:
        report = examine_postgresql(self.url)
        compare(report, totals(self.books.path))
        assert report.conserved, report.findings
        assert report.in_flight == 0

    def close(self) -> None:
        self.near.stop()
        self.far.engine.drain(0.1)
        self.far.journal.disconnect()
        self.books.close()


@pytest.fixture
def lined(url: str, line: Line, tmp_path: Path) -> Iterator[Lined]:
    made = Lined(url, line, tmp_path)
    yield made
    made.close()


def open_transactions(url: str) -> list[str]:
    """Names of connections that hold locks."""
    with psycopg.connect(url, autocommit=True) as connection:
        rows = connection.execute("SELECT application_name FROM pg_stat_activity WHERE backend_xid IS NOT NULL")
        return [row[0] for row in rows]


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_machine_that_dies_in_a_tick_does_not_stop_the_others(lined: Lined, line: Line, statement: str) -> None:
    for node in (lined.far, lined.near):
        assert node.create(draft()).outcome == "SUCCEEDED"
    line.cut(before=statement, dies=True)
    lost = draft(key="lost")
    caller = lined.far.create(lost)
    assert line.was_cut.wait(CALL_S)
    assert len(open_transactions(lined.url)) == 1
    began_s = time.monotonic()
    assert lined.near.create(draft()).outcome == "SUCCEEDED"
    wait_until(lambda: not open_transactions(lined.url))
    assert time.monotonic() - began_s < BY_THEMSELVES_S
    assert caller.outcome == "JOURNAL_UNAVAILABLE"
    assert lined.near.create(draft(key="lost")).outcome == "SUCCEEDED"
    lined.check()


@pytest.mark.parametrize("statement", STATEMENTS)
def test_a_gateway_whose_line_is_cut_frees_what_it_left_and_goes_on(lined: Lined, line: Line, statement: str) -> None:
    assert lined.far.create(draft()).outcome == "SUCCEEDED"
    began_s = time.monotonic()
    line.cut(before=statement)
    first = lined.far.create(draft(key="k"))
    assert line.was_cut.wait(CALL_S)
    assert lined.near.create(draft()).outcome == "SUCCEEDED"
    assert first.outcome == "JOURNAL_UNAVAILABLE"
    wait_until(lambda: lined.far.engine.writable)
    assert lined.far.create(draft(key="k")).outcome == "SUCCEEDED"
    assert not open_transactions(lined.url)
    assert time.monotonic() - began_s < BY_THEMSELVES_S
    assert lined.far.engine.failure is None
    lined.check()


def test_a_takeover_that_is_cut_off_is_ended_by_the_next(url: str, line: Line) -> None:
    """The machine that looks after a dead engine dies too, in the middle of it."""
    dead, heir, other = PostgresJournal(url), PostgresJournal(line.url, lease_us=500_000), PostgresJournal(url)
    assert dead.commit(Writes(admissions=[draft()])) == [None]
    dead.disconnect()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE leases SET expires_us = 0 WHERE engine = %s", (dead.engine,))
    line.cut(before="UPDATE mail", dies=True)
    session = heir.open_session(LEASES)
    with pytest.raises(psycopg.OperationalError):
        leases.adopt(session, heir.lease, heir.standing.tick, dead.engine)
    session.close()
    heir.disconnect()
    mine = other.open_session(LEASES)
    mine.execute("SET lock_timeout = 50")
    with pytest.raises(errors.LockNotAvailable):
        leases.adopt(mine, other.lease, other.standing.tick, dead.engine)
    wait_until(lambda: bool(other.sessions.end_lapsed(mine, other.lease)))
    assert len(leases.adopt(mine, other.lease, other.standing.tick, dead.engine)) == 1
    mine.close()
    other.close()


def test_only_connections_of_lapsed_engines_are_ended(url: str) -> None:
    """Not of those that live, nor of another journal's, nor of those who wait for a lock or only read."""
    living, looker = PostgresJournal(url), PostgresJournal(url)
    lapsed = PostgresJournal(url)
    sessions = [living.open_session("a"), lapsed.open_session("writes"), lapsed.open_session("reads")]
    mine = looker.open_session(LEASES)
    other = connect(url)
    other.execute(f"SET application_name = 'hutong 1 engine {lapsed.engine} epoch {lapsed.lease.epoch} tick'")
    for number, session in enumerate((sessions[0], sessions[1], other)):
        session.execute("BEGIN")
        session.execute("INSERT INTO meta (name, value) VALUES (%s, 'x')", (f"test {number}",))
    sessions[2].execute("BEGIN")
    sessions[2].execute("SELECT 1")
    leases.release(mine, lapsed.lease)
    (ended,) = looker.sessions.end_lapsed(mine, looker.lease)
    assert ended.endswith(f"engine {lapsed.engine} epoch {lapsed.lease.epoch} writes")
    for session in (sessions[0], sessions[2], other):
        session.execute("ROLLBACK")
    with pytest.raises(psycopg.OperationalError):
        sessions[1].execute("COMMIT")
    assert looker.sessions.end_lapsed(mine, looker.lease) == []
    for session in (*sessions, other, mine):
        session.close()
    for journal in (living, looker, lapsed):
        journal.close()


def test_a_gateway_that_starts_again_ends_what_its_former_life_left(url: str, line: Line) -> None:
    """Its number's row is locked by a tick that was cut off, and its lease has not run out."""
    former = PostgresJournal(line.url, holder="one")
    line.cut(before="COMMIT", dies=True)
    with pytest.raises(JournalUnavailableError):
        former.commit(Writes(admissions=[draft()]))
    assert len(open_transactions(url)) == 1
    again = PostgresJournal(url, holder="one")
    assert again.engine == former.engine
    assert not open_transactions(url)
    again.close()


def test_what_was_found_not_to_be_there_never_comes(url: str) -> None:
    """A tick that was looked up and not found cannot be committed by what the server still has of it."""
    journal = PostgresJournal(url)
    assert journal.commit(Writes(admissions=[draft()])) == [None]
    last = journal.lease.tick + 1
    with psycopg.connect(url) as late:
        # Its statements are still on their way when the connection breaks.
        pid = journal._database().info.backend_pid
        late.execute("SELECT pg_terminate_backend(%s)", (pid,))
        late.commit()
        with pytest.raises(JournalUnavailableError):
            journal.commit(Writes(admissions=[draft()]))
        assert journal.last_was_taken() is False
        lease = journal.lease
        fence = (lease.epoch, last, lease.holder, last + 1, lease.duration_us, lease.engine)
        with pytest.raises(errors.NotNullViolation):
            late.execute(sql.FENCE, fence)
    assert journal.commit(Writes(admissions=[draft()])) == [None]
    journal.close()


def test_an_engine_that_was_kept_from_the_database_takes_nobody_over_at_once(url: str) -> None:
    """What kept it away may have kept the others away too: they have the time of a lease to say that they live."""
    now = [100.0]
    here = PostgresJournal(url, monotonic=lambda: now[0], lease_us=5_000_000)
    assert here.may_take_over()
    now[0] += 1
    here.commit(Writes(admissions=[draft()]))
    assert here.may_take_over()
    now[0] += 4
    assert not here.may_take_over()
    here.prolonged()
    assert not here.may_take_over()
    for _ in range(5):
        now[0] += 1
        here.prolonged()
    assert here.may_take_over()
    here.close()


def test_lines_are_watched_from_both_ends(line: Line) -> None:
    """Where nothing keeps a dead connection alive, either end notices by itself within seconds."""
    connection = connect(line.url, writer=True)
    assert connection.info.get_parameters()["tcp_user_timeout"] == "10000"
    assert connection.info.get_parameters()["keepalives_idle"] == "5"
    version = connection.info.server_version
    (timeout,) = connection.execute(
        "SELECT setting::int FROM pg_settings WHERE name = 'transaction_timeout'"
    ).fetchone() or (0,)
    assert timeout == (TRANSACTION_MS if version >= 170_000 else 0)
    connection.close()
    own = connect(f"{line.url}&keepalives_idle=77&connect_timeout=9")
    assert own.info.get_parameters()["keepalives_idle"] == "77"
    own.close()


def test_names_need_no_lease_to_be_told_apart(url: str) -> None:
    journal = PostgresJournal(url)
    with connect(url) as connection:
        Sessions(connection).name(connection, journal.lease, "other")
        (name,) = connection.execute("SHOW application_name").fetchone() or ("",)
        (table,) = connection.execute("SELECT 'leases'::regclass::oid").fetchone() or (0,)
    assert name == f"hutong {table} engine {journal.engine} epoch {journal.lease.epoch} other"
    journal.close()
