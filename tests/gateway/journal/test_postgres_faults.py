"""A PostgreSQL journal that fails: lost connections, commits in doubt, conflicts, damage; and what it refuses."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from gateway.engine.model import Leg, LegKind, Payment, Refused, Writes
from gateway.engine.ports import JournalUnavailableError
from gateway.journal import postgres_schema
from gateway.journal.conservation import compare
from gateway.journal.interface import JournalMismatchError
from gateway.journal.postgres import ATTEMPTS_MAX, PostgresJournal
from gateway.journal.postgres_check import examine_postgresql
from gateway.journal.postgres_connection import check_durable, safe_url
from gateway.journal.postgres_reader import PostgresReader
from gateway.journal.schema import LEG_COLUMNS, PAYMENT_COLUMNS, VERSION
from hutong_contract.errors import Reason
from sandbox.participants.books import totals
from tests.gateway.engine.world import World
from tests.gateway.journal.shared import draft
from tokenization.interface import Condition


def admissions(*payments: Payment) -> Writes:
    for payment in payments:
        payment.legs.append(Leg(1, LegKind.DEBIT, payment.debtor, sent_us=payment.created_us))
    return Writes(admissions=list(payments))


def counted(url: str) -> int:
    with psycopg.connect(url) as connection:
        ((count,),) = connection.execute("SELECT count(*) FROM payments").fetchall()
    return int(count)


def cut(url: str) -> None:
    """The server ends every other connection, as a restart does."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid != pg_backend_pid()")


class Faulty(PostgresJournal):
    """Fails after, or before, a transaction was carried out."""

    fault: Callable[[], None] | None = None
    late = False
    pauses: int = 0

    def _transact(self, db: Any, writes: Any, decisions: Any) -> None:
        if self.fault is not None and not self.late:
            self.fault()
        super()._transact(db, writes, decisions)
        if self.fault is not None:
            self.fault()


def test_a_lost_connection_before_a_tick_is_a_refused_tick_and_then_nothing(url: str) -> None:
    journal = PostgresJournal(url)
    assert journal.commit(admissions(draft())) == [None]
    cut(url)
    with pytest.raises(JournalUnavailableError):
        journal.commit(admissions(draft()))
    assert journal.last_was_taken() is False
    assert journal.commit(admissions(draft())) == [None]
    cut(url)
    assert len(journal.load_open()) == 2  # a read connects again by itself
    journal.close()


def test_a_commit_whose_answer_was_lost_is_looked_up(url: str) -> None:
    """The connection breaks after COMMIT took effect: the verdicts are right, and nothing is done twice."""
    journal = Faulty(url)
    first = draft(key="k")
    journal.fault, journal.late = lambda: cut_then_fail(url), True
    assert journal.commit(admissions(first, draft(key="k")))[0] is None
    journal.fault = None
    (verdict,) = journal.commit(admissions(draft(key="k")))
    assert isinstance(verdict, Refused)
    assert verdict.standing is not None
    assert verdict.standing.payment_id == first.payment_id
    assert counted(url) == 1
    journal.close()


def cut_then_fail(url: str) -> None:
    cut(url)
    raise psycopg.OperationalError("the connection is gone")


@pytest.mark.parametrize("late", [False, True])
def test_a_commit_in_doubt_stays_so_until_the_database_answers(url: str, late: bool) -> None:
    journal = Faulty(url)
    journal.late = late

    def vanish() -> None:
        journal._url = "postgresql:///postgres?host=/nowhere"
        raise psycopg.OperationalError("the server is gone")

    journal.fault = vanish
    with pytest.raises(JournalUnavailableError):
        journal.commit(admissions(draft()))
    with pytest.raises(JournalUnavailableError):
        journal.last_was_taken()
    with pytest.raises(JournalUnavailableError):
        journal.load_open()
    journal._url, journal.fault = url, None
    assert journal.last_was_taken() is late
    assert len(journal.load_open()) == counted(url) == int(late)
    assert journal.commit(admissions(draft())) == [None]
    journal.close()


@pytest.mark.parametrize("conflict", [errors.SerializationFailure, errors.DeadlockDetected, errors.LockNotAvailable])
def test_a_conflict_is_tried_again_and_then_given_up(url: str, conflict: type[psycopg.Error]) -> None:
    pauses: list[float] = []
    journal = Faulty(url, sleep=pauses.append)
    left = [3]

    def fail() -> None:
        if left[0]:
            left[0] -= 1
            raise conflict("another transaction")

    journal.fault = fail
    assert journal.commit(admissions(draft(spends=(b"s" * 16,)))) == [None]
    assert len(pauses) == 3
    assert pauses == sorted(pauses)
    left[0] = 10**6
    with pytest.raises(JournalUnavailableError, match="other engines"):
        journal.commit(admissions(draft()))
    assert len(pauses) == 3 + ATTEMPTS_MAX - 1
    journal.fault = None
    assert journal.last_was_taken() is False
    assert journal.commit(admissions(draft())) == [None]
    assert counted(url) == 2
    journal.close()


def test_a_real_conflict_on_one_counter_is_waited_for(url: str) -> None:
    """Another transaction holds the counter's row, and ends."""
    journal = PostgresJournal(url)
    limit = (Condition(b"c" * 16, 1, 2, int(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT)),)
    assert journal.commit(admissions(draft(counters=limit))) == [None]
    with psycopg.connect(url) as other:
        other.execute("UPDATE counters SET used = used + 1")
        journal._database().execute("SET lock_timeout = 50")
        with pytest.raises(JournalUnavailableError, match="lock timeout"):
            journal.commit(admissions(draft(counters=limit)))
    (verdict,) = journal.commit(admissions(draft(counters=limit)))
    assert isinstance(verdict, Refused)
    assert verdict.reason == Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT
    journal.close()


def test_a_code_changes_hands_within_a_tick_and_is_spent_after_it(url: str) -> None:
    """The first is refused by its limit, the second has the code, and what the first alone wanted is free again."""
    journal = PostgresJournal(url)
    none_left = (Condition(b"c" * 16, 1, 0, int(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT)),)
    first, second = draft(spends=(b"x" * 16, b"y" * 16), counters=none_left), draft(spends=(b"x" * 16,))
    third = draft(spends=(b"x" * 16,))
    verdicts = journal.commit(admissions(first, second, third))
    assert [verdict and verdict.reason for verdict in verdicts] == [
        Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT,
        None,
        Reason.ERROR_REASON_CODE_SPENT,
    ]
    again, free = journal.commit(admissions(draft(spends=(b"x" * 16,)), draft(spends=(b"y" * 16,))))
    assert again is not None
    assert again.reason == Reason.ERROR_REASON_CODE_SPENT
    assert free is None
    with psycopg.connect(url) as connection:
        owners: dict[bytes, bytes] = dict(connection.execute("SELECT spend, payment_id FROM spends").fetchall())
    assert owners[b"x" * 16] == second.payment_id
    assert counted(url) == 2
    journal.close()


def test_text_from_outside_cannot_stop_the_journal(url: str) -> None:
    """A NUL is valid in a request, and no value of a text column."""
    journal, reader = PostgresJournal(url), PostgresReader(url)
    payment = draft(reference="a\0b", merchant_id="商户", terminal_id="\U0001f600")
    assert journal.commit(admissions(payment)) == [None]
    stored = reader.payment(payment.payment_id)
    assert stored is not None
    assert (stored.reference, stored.merchant_id, stored.terminal_id) == ("a\ufffdb", "商户", "\U0001f600")
    journal.close()
    reader.close()


def test_what_was_written_is_read_back(url: str) -> None:
    journal, reader = PostgresJournal(url), PostgresReader(url)
    payment = draft(
        999_999_999_999,
        caller="c",
        route='[["acquirer-a",1,[]]]',
        route_id=-(2**63),
        account_ref=b"a" * 16,
        key_ref=b"k" * 9,
        last_four="1234",
        payer_key=3,
        payee_key=1,
        counters=(Condition(b"c" * 16, 5, 9, int(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT)),),
    )
    assert journal.commit(admissions(payment, *(draft(original_id=None) for _ in range(3)))) == [None] * 4
    (stored,) = journal.load([payment.payment_id, bytes(16)])
    read = reader.payment(payment.payment_id)
    assert read is not None
    assert read.route == payment.route
    for column in ("amount_minor", "caller", "route_id", "account_ref", "key_ref", "last_four", "created_us", "legs"):
        assert getattr(stored, column) == getattr(payment, column) == getattr(read, column)
    assert stored.counters == (Condition(b"c" * 16, 5, cap=0, reason=0),)
    assert [row.payment_id for row in reader.events_of({payment.payment_id: 0}, 10)] == [payment.payment_id]
    assert reader.events(4, 10) == []
    assert reader.refunds([payment.payment_id]) == []
    assert reader.payment(bytes(16)) is None
    assert list(journal.repeats([payment.idempotency, bytes(16)])) == [payment.idempotency]
    journal.close()
    reader.close()


def test_the_events_of_one_payment_are_found_among_many(url: str) -> None:
    PostgresJournal(url).close()
    first, second = b"1" * 16, b"2" * 16
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO events (sequence, payment_id, state, time_us) "
            "SELECT n, decode(lpad(to_hex(n), 32, '0'), 'hex'), 1, n FROM generate_series(10, 100000) AS n"
        )
        for sequence, key in ((1, first), (2, second), (100_001, first), (100_002, second)):
            connection.execute("INSERT INTO events VALUES (%s, %s, 1, 1)", (sequence, key))
    reader = PostgresReader(url)
    begun_s = time.perf_counter()
    assert len(reader.events(0, 200_000)) == 99_995
    all_s = time.perf_counter() - begun_s
    took_s = all_s
    for _ in range(20):  # the quickest of some: others use this machine too
        begun_s = time.perf_counter()
        found = reader.events_of({first: 0, second: 2, bytes(16): 0}, 10)
        took_s = min(took_s, time.perf_counter() - begun_s)
    assert took_s < all_s / 5
    assert [(row.sequence, row.payment_id) for row in found] == [(1, first), (100_001, first), (100_002, second)]
    assert [row.sequence for row in reader.events_of({second: 0}, 1)] == [2]
    assert reader.events_of({}, 10) == []
    reader.close()


def test_a_database_that_may_lose_commits_is_refused() -> None:
    class Off:
        def execute(self, query: str) -> Any:
            return self

        def fetchone(self) -> tuple[str]:
            return ("off",)

    with pytest.raises(JournalMismatchError, match="fsync = off"):
        check_durable(Off())  # type: ignore[arg-type]


def test_another_version_and_no_server_are_refused_without_showing_the_password(url: str) -> None:
    PostgresJournal(url).close()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("UPDATE meta SET value = '99' WHERE name = 'version'")
    with pytest.raises(JournalMismatchError, match="schema version 99"):
        PostgresJournal(url)
    with pytest.raises(JournalMismatchError, match="schema version 99"):
        examine_postgresql(url)
    with pytest.raises(JournalMismatchError) as refused:
        PostgresJournal("postgresql://user:hunter2@127.0.0.1:1/x")
    assert "hunter2" not in str(refused.value)
    assert safe_url("postgresql://h/x?password=hunter2&a=1") == "postgresql://h/x?password=***&a=1"


def test_older_tables_are_refused_before_anything_is_changed_in_them(url: str) -> None:
    """Also where they name no version, or call themselves of this one."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA older")
        try:
            connection.execute("SET search_path = older")
            connection.execute("CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL)")
            connection.execute("CREATE TABLE payments (payment_id BYTEA PRIMARY KEY, amount BIGINT)")
            older = f"{url}{'&' if '?' in url else '?'}options=-csearch_path%3Dolder"
            for version, said in (
                (None, "payments lacks engine"),
                ("1", "schema version 1"),
                (str(VERSION), "payments lacks"),
            ):
                connection.execute("DELETE FROM meta")
                if version is not None:
                    connection.execute("INSERT INTO meta VALUES ('version', %s)", (version,))
                with pytest.raises(JournalMismatchError, match=said):
                    PostgresJournal(older)
            names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'older' ORDER BY 1")
            assert [row[0] for row in names] == ["meta", "payments"]
        finally:
            connection.execute("DROP SCHEMA older CASCADE")


def test_every_column_has_a_type_and_no_number_comes_from_a_sequence() -> None:
    assert len(postgres_schema.PAYMENT_TYPES) == len(PAYMENT_COLUMNS)
    assert len(postgres_schema.LEG_TYPES) == len(LEG_COLUMNS)
    text = ";".join(postgres_schema.statements())
    assert "IDENTITY" not in text
    assert "{" not in text


DAMAGES = {
    "UPDATE postings SET amount_minor = amount_minor + 1 WHERE posting = (SELECT min(posting) FROM postings)": "sum to",
    "UPDATE payments SET engine = 77, open = 1 WHERE kind = 1": "an engine that does not exist",
    "UPDATE payments SET refunded_minor = 0": "differs from the sum of their refunds",
    "UPDATE counters SET used = used + 1": "counter",
    "DELETE FROM legs WHERE number = 1": "their first leg has no answer",
    "UPDATE numbering SET last = 0": "above the last number",
}


def test_the_conservation_check_finds_damage(url: str, tmp_path: Path) -> None:
    world = World(
        tmp_path,
        open_journal=lambda: PostgresJournal(url, 1, holder="world"),
        open_reader=lambda: PostgresReader(url),
    )
    limits = (Condition(b"c" * 16, 1000, 10_000, int(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT)),)
    first = world.create(world.draft(counters=limits, spends=(b"s" * 16,)))
    world.run()
    world.refund(first.payment, 300)
    world.run()
    report = examine_postgresql(url)
    compare(report, totals(world.books.path))
    assert report.conserved, report.findings
    assert (report.payments, report.by_state) == (2, {"SUCCEEDED": 2})
    world.close()
    for damage, finding in DAMAGES.items():
        with psycopg.connect(url) as connection:
            before = _dump(connection)
            connection.execute(damage.encode())
            connection.commit()
            found = examine_postgresql(url).findings
            assert any(finding in one for one in found), (damage, found)
            _restore(connection, before)
    assert examine_postgresql(url).conserved


TABLES = ("payments", "legs", "postings", "counters", "numbering")


def _dump(connection: psycopg.Connection[Any]) -> dict[str, list[Any]]:
    return {table: connection.execute(f"SELECT * FROM {table}".encode()).fetchall() for table in TABLES}


def _restore(connection: psycopg.Connection[Any], rows: dict[str, list[Any]]) -> None:
    for table, kept in rows.items():
        connection.execute(f"DELETE FROM {table}".encode())
        for row in kept:
            connection.execute(f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(row))})".encode(), row)
    connection.commit()


@pytest.mark.parametrize("forbidden", ["", "enable_nestloop", "enable_hashjoin", "enable_mergejoin", "enable_sort"])
def test_events_of_payments_are_in_order_however_the_server_joins(url: str, forbidden: str) -> None:
    """A watcher that gets a later event first believes that it has seen all before, and misses them for good."""
    journal = PostgresJournal(url)
    payments = [draft() for _ in range(20)]
    assert journal.commit(admissions(*payments)) == [None] * 20
    journal.close()
    keys = [payment.payment_id for payment in payments]
    rows = [(1000 + at * 20 + number, key, at) for at in range(12) for number, key in enumerate(keys)]
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("DELETE FROM events")
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO events VALUES (%s, %s, 1, %s)", rows)
    joiner = "&" if "?" in url else "?"
    reader = PostgresReader(f"{url}{joiner}options=-c%20{forbidden}%3Doff" if forbidden else url)
    for limit in (1000, 30, 7):
        found = reader.events_of(dict.fromkeys(keys, 0), limit)
        assert len(found) == min(limit, 240)
        for key in keys:
            got = [row.sequence for row in found if row.payment_id == key]
            everything = [sequence for sequence, one, _ in rows if one == key]
            assert got == everything[: len(got)], "its events from the first on, none left out between"
    reader.close()
