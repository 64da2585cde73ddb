"""The conservation check finds what it is there to find: each planted damage is named."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from gateway.journal.conservation import compare, compare_holds, examine
from gateway.journal.report import Report
from hutong_contract.errors import Reason
from sandbox.participants.books import holds, totals
from sandbox.participants.script import Behaviour, Plan
from tests.gateway.engine.world import World
from tokenization.interface import Condition


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    world = World(tmp_path)
    counters = (Condition(b"c" * 16, 1000, 10_000, int(Reason.ERROR_REASON_AMOUNT_ABOVE_LIMIT)),)
    first = world.create(world.draft(counters=counters, spends=(b"s" * 16,)))
    world.run()
    world.refund(first.payment, 300)
    world.run()
    world.participants["acquirer-a"].plan_next(Plan(Behaviour.LOSE_REQUEST))
    world.create()
    world.participants["issuer-a"].plan_next(Plan(Behaviour.DECLINE, code="05"))
    world.run()
    world.create(world.hold(500))
    captured = world.hold(700)
    world.create(captured)
    world.run(seconds=60)
    world.capture(captured.payment_id, 600)
    world.run(seconds=60)
    world.close()
    return tmp_path


def checked(folder: Path) -> Report:
    report = examine(folder / "gateway.db")
    compare(report, totals(folder / "books.db"))
    compare_holds(report, holds(folder / "books.db"))
    return report


def test_a_right_journal_is_right(folder: Path) -> None:
    report = checked(folder)
    assert report.conserved, report.findings
    assert report.payments == 5
    assert sum(report.held.values()) == 500
    assert report.postings > 0


DAMAGES = {
    "DELETE FROM postings WHERE posting = 1": "sum to",
    "UPDATE postings SET amount_minor = amount_minor * 2": "postings to",
    "UPDATE payments SET state = 8 WHERE state = 7 AND kind = 1": "its state requires 0",
    "UPDATE payments SET state = 3, open = 0 WHERE kind = 2": "in flight, but not marked open",
    "UPDATE payments SET open = 1 WHERE kind = 1": "marked open",
    "UPDATE legs SET state = 1 WHERE kind = 3": "a reversal under way, but are not marked open",
    "UPDATE payments SET ended_us = 0": "no time of ending",
    "UPDATE payments SET open = 0 WHERE state = 12": "in flight, but not marked open",
    "UPDATE payments SET open = 2 WHERE state = 8": "marked held without a hold",
    "UPDATE payments SET hold_until_us = 0 WHERE state = 12": "marked held without a hold",
    "UPDATE payments SET authorised_minor = 599 WHERE state = 7 AND authorised_minor > 0": "for more than was held",
    "UPDATE payments SET authorised_minor = 501 WHERE state = 12": "have set aside 500",
    "UPDATE legs SET kind = 1 WHERE kind = 6": "no authorisation as their first leg",
    "UPDATE payments SET refunded_minor = 0": "differs from the sum of their refunds",
    "DELETE FROM legs WHERE number = 1": "their first leg has no answer",
    "DELETE FROM payments WHERE kind = 2": "name a payment that does not exist",
    "UPDATE spends SET payment_id = x'00'": "spent by a payment that does not exist",
    "UPDATE counters SET used = used + 1": "counter",
    "INSERT INTO events (payment_id, state, time_us) VALUES (x'00', 7, 0)": "events name a payment that does not exist",
    "INSERT INTO postings (payment_id, number, account, currency, amount_minor, posted_us) "
    "SELECT payment_id, 1, 'issuer-a', 'CNY', -5, 0 FROM payments WHERE kind = 1 UNION ALL "
    "SELECT payment_id, 1, 'suspense', 'CNY', 5, 0 FROM payments WHERE kind = 1": "suspense",
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_is_named(folder: Path, damage: str) -> None:
    database = sqlite3.connect(folder / "gateway.db")
    database.execute(damage)
    database.commit()
    database.close()
    findings = checked(folder).findings
    assert any(DAMAGES[damage] in finding for finding in findings), findings


def test_books_that_differ_are_named(folder: Path) -> None:
    database = sqlite3.connect(folder / "books.db")
    database.execute(
        "UPDATE entries SET effect_minor = effect_minor - 1 WHERE effect_minor < 0 AND participant = 'issuer-a'"
    )
    database.commit()
    database.close()
    assert any("but the books of issuer-a have" in finding for finding in checked(folder).findings)


def test_money_that_the_gateway_does_not_know_of_is_named(folder: Path) -> None:
    database = sqlite3.connect(folder / "gateway.db")
    database.execute("DELETE FROM postings")
    database.commit()
    database.close()
    assert any("the gateway has no posting for them" in finding for finding in checked(folder).findings)
