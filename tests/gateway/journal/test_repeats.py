"""Idempotency keys in SQLite: whether in memory or in the table, a key has one payment, also after a restart, with a
second engine on the file, and when nobody knew whether a commit was taken."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.engine.core import Core
from gateway.engine.model import Create, Kind, Payment, Refused, Writes
from gateway.journal.conservation import examine
from gateway.journal.repeats import PARTS
from gateway.journal.sqlite import SqliteJournal

NEWEST_MAX = 300
NOW_US = 1_790_000_000_000_000


class Nobody:
    """A caller who does not listen."""

    def answer(self, payload: bytes) -> None:
        """Nothing."""

    def fail(self, error: Exception) -> None:
        """Nothing."""


def draft(number: int, key: int) -> Payment:
    spread = (key * 2_654_435_761 % 2**32).to_bytes(4, "big")  # as a hash would be: neighbours lie far apart
    return Payment(
        payment_id=number.to_bytes(16, "big"),
        kind=Kind.PAYMENT,
        amount_minor=100,
        currency="CNY",
        debtor="issuer-a",
        creditors=("acquirer-a",),
        created_us=NOW_US,
        deadline_us=NOW_US + 30_000_000,
        idempotency=spread + key.to_bytes(12, "big"),
    )


def admit(journal: SqliteJournal, payments: list[Payment]) -> list[Refused | None]:
    """A tick as the engine makes it."""
    out = Core().step([Create(payment, Nobody(), NOW_US + 1_000_000) for payment in payments], NOW_US)
    return journal.commit(out.writes)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "gateway.db"


@pytest.fixture
def filled(path: Path) -> Iterator[SqliteJournal]:
    """2,000 payments with keys 0 to 1,999, most of which are not in memory any more."""
    journal = SqliteJournal(path, newest_keys_max=NEWEST_MAX)
    for start in range(0, 2000, 50):
        assert admit(journal, [draft(one, one) for one in range(start, start + 50)]) == [None] * 50
    yield journal
    journal.close()


def holders(verdicts: list[Refused | None]) -> list[int]:
    return [
        int.from_bytes(verdict.standing.payment_id, "big") if verdict is not None and verdict.standing else -1
        for verdict in verdicts
    ]


def test_old_and_new_keys_are_found_and_new_ones_get_in(filled: SqliteJournal, path: Path) -> None:
    with sqlite3.connect(path) as database:
        ((written,),) = database.execute("SELECT count(*) FROM keys").fetchall()
        assert 2000 - NEWEST_MAX <= written < 2000
        assert database.execute("SELECT value FROM meta WHERE name = 'keyed'").fetchone() is not None
    keys = [0, 1999, 5000, 777, 5000, 1500, 1]
    verdicts = admit(filled, [draft(10_000 + at, key) for at, key in enumerate(keys)])
    assert holders(verdicts) == [0, 1999, -1, 777, 10_002, 1500, 1]
    assert verdicts[2] is None
    found = filled.repeats([draft(0, key).idempotency for key in (3, 1998, 5000, 6000)])
    assert sorted(int.from_bytes(one.payment_id, "big") for one in found.values()) == [3, 1998, 10_002]
    assert examine(path).conserved


def test_a_restart_forgets_no_key(filled: SqliteJournal, path: Path) -> None:
    filled.close()
    again = SqliteJournal(path, newest_keys_max=NEWEST_MAX)
    assert holders(admit(again, [draft(10_000 + key, key) for key in range(2000)])) == list(range(2000))
    again.close()


def test_a_second_engine_learns_the_keys_of_the_first(filled: SqliteJournal, path: Path) -> None:
    second = SqliteJournal(path, 2, newest_keys_max=NEWEST_MAX)
    for start in range(3000, 4000, 40):
        assert admit(filled, [draft(one, one) for one in range(start, start + 20)]) == [None] * 20
        # A tick without admissions goes by, then one that repeats and adds.
        second.commit(Writes(events=[(start.to_bytes(16, "big"), 3, NOW_US)]))
        mixed = [draft(20_000 + one, one) for one in range(start, start + 40)]
        assert holders(admit(second, mixed)) == [*range(start, start + 20), *[-1] * 20]
        assert holders(admit(filled, [draft(30_000 + start, start + 39)])) == [20_000 + start + 39]
    second.close()
    with sqlite3.connect(path) as database:
        database.execute("DELETE FROM events WHERE state = 3")  # the made-up ones
    database.close()
    assert examine(path).conserved


class _Lying(sqlite3.Connection):
    """Its commits can fail although they are done."""

    lie = False

    def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
        done = super().execute(statement, *values)  # type: ignore[arg-type]
        if statement == "COMMIT" and _Lying.lie:
            _Lying.lie = False
            raise sqlite3.OperationalError("disk I/O error")
        return done


def test_a_commit_that_failed_and_is_there_counts(path: Path) -> None:
    journal = SqliteJournal(path, newest_keys_max=2, factory=_Lying)
    for start in range(0, 4 * PARTS, 8):
        _Lying.lie = start % 3 == 0
        assert admit(journal, [draft(one, one) for one in range(start, start + 8)]) == [None] * 8
    assert holders(admit(journal, [draft(9_000 + key, key) for key in range(100)])) == list(range(100))
    journal.close()
    assert examine(path).conserved


DAMAGES = {
    "DELETE FROM keys WHERE is_first(idempotency)": "missing from the index of idempotency keys",
    "UPDATE keys SET payment_id = x'00' WHERE is_first(idempotency)": "for a payment that has another key",
    "UPDATE payments SET idempotency = (SELECT max(idempotency) FROM payments)": "have the same idempotency key",
}


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("damage", DAMAGES)
def test_the_conservation_check_names_damage(path: Path, damage: str) -> None:
    database = sqlite3.connect(path)
    key = draft(0, 0).idempotency
    database.create_function("is_first", 1, lambda other: other == key)
    database.execute(damage)
    database.commit()
    database.close()
    findings = examine(path).findings
    assert any(DAMAGES[damage] in finding for finding in findings), findings
