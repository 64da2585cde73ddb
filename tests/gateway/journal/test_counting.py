"""SQLite counts a tick together where it can: the verdicts are those of payments that take turns."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from gateway.engine.model import Kind, Payment, Refused, Writes
from gateway.journal.postgres_decisions import Decisions
from gateway.journal.sqlite import SqliteJournal
from hutong_contract.errors import Reason

NOW_US = 1_790_000_000_000_000
LIMIT = int(Reason.ERROR_REASON_DAILY_LIMIT)
COUNTERS = [bytes([number]) * 16 for number in range(4)]


def payment(number: int, rng: random.Random, most_minor: int) -> Payment:
    counters = tuple(
        (counter, rng.choice((1, rng.randrange(1, most_minor))), rng.choice((400, 500)), LIMIT)
        for counter in rng.sample(COUNTERS, rng.randrange(3))
    )
    return Payment(
        payment_id=number.to_bytes(16, "big"),
        kind=Kind.PAYMENT,
        amount_minor=1,
        currency="CNY",
        debtor="issuer-a",
        creditors=("acquirer-a",),
        created_us=NOW_US,
        deadline_us=NOW_US + 1,
        idempotency=number.to_bytes(16, "little"),
        fingerprint=bytes(16),
        spends=(rng.randrange(200).to_bytes(16, "big"),) if rng.random() < 0.1 else (),
        counters=counters,
    )


def said(verdicts: list[Refused | None]) -> list[int]:
    return [0 if one is None else one.reason for one in verdicts]


@pytest.mark.parametrize("most_minor", [5, 30, 300])
def test_verdicts_and_counters_are_those_of_payments_in_turn(tmp_path: Path, most_minor: int) -> None:
    rng = random.Random(most_minor)
    journal = SqliteJournal(tmp_path / "gateway.db")
    used: dict[bytes, int] = {}
    owners: dict[bytes, bytes] = {}
    number = together = refused = 0
    for _ in range(250):
        tick = [payment(number := number + 1, rng, most_minor) for _ in range(rng.randrange(1, 12))]
        turns = Decisions(tick)
        turns.take_turns(dict(owners), dict(used))
        for counter, added in turns.counted.items():
            used[counter] = used.get(counter, 0) + added
        owners.update(turns.spent)
        verdicts = said(journal.commit(Writes(admissions=tick)))
        assert verdicts == said(turns.verdicts)
        together += not any(verdicts)
        refused += sum(map(bool, verdicts))
        rows = journal._connection.execute("SELECT counter, used FROM counters WHERE used != 0").fetchall()
        assert dict(rows) == {counter: value for counter, value in used.items() if value}
        if rng.random() < 0.01:
            given_back = [(value, counter) for counter, value in used.items() if value]
            journal.commit(Writes(releases=given_back))
            used.clear()
    assert together
    assert refused
    journal.close()
