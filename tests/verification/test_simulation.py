"""The whole switch under faults from seeds: nothing breaks, runs replay exactly, and planted bugs are found."""

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from command.simulate import simulate
from gateway.engine.model import Movement, Writes
from gateway.engine.states import TABLE, Action, Event, Rule, State
from gateway.journal.sqlite import SqliteJournal
from gateway.journal.sqlite_connection import connect
from verification.simulation.disk import Disk
from verification.simulation.draw import draw
from verification.simulation.mutations import PatchError, apply, concerns, hunt
from verification.simulation.plan import PARTICIPANTS
from verification.simulation.run import Runner
from verification.simulation.shrink import shrink
from verification.simulation.storage import TornError
from verification.simulation.summary import REACHABLE, UNREACHABLE, Summary

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
MUTATIONS = sorted((Path(__file__).parents[2] / "verification" / "planted").glob("*.patch"))
RUNNER = Runner()
QUICK = (
    "answers_before_commit",
    "code_spent_twice",
    "commits_not_synced",
    "failover_past_unknown_credit",
    "key_hash_over_payload",
    "late_reversal_lost_in_restart",
    "limit_ignored",
    "limit_passed_together",
    "refund_not_reserved",
    "silence_is_failure",
    "window_place_kept_when_given_up",
    "window_without_shares",
)
"""Found by the first few seeds; `hutong simulate --mutations` looks for all."""


def test_fifty_seeds_break_nothing() -> None:
    summary = Summary()
    for seed in range(50):
        summary.add(RUNNER.play_seed(seed))
    assert not summary.failures
    assert summary.states == set(State)
    assert summary.payments > 1000
    assert {"stream_broken", "stream_stalled", "stream_taken_over", "not_sent"} <= set(summary.faults)
    assert {"power_cut", "crash", "request_dropped", "answer_hours_late", "participant_restarted"} <= set(
        summary.faults
    )


def test_a_seed_replays_exactly() -> None:
    first, second = RUNNER.play_seed(7, trace=True), RUNNER.play_seed(7)
    assert first.digest == second.digest
    assert len(first.trace) > 100


def test_a_seed_replays_exactly_in_another_process() -> None:
    """Also where strings hash differently."""
    done = subprocess.run(
        [sys.executable, "-c", "from verification.simulation.run import Runner; print(Runner().play_seed(12).digest)"],
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto' / 'gen'}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == RUNNER.play_seed(12).digest


def test_recorded_fates_are_the_run() -> None:
    """What shrinking starts from is the run itself."""
    result = RUNNER.play_seed(4)
    assert result.fates
    assert RUNNER.play(replace(draw(4), fates=result.fates)).digest == result.digest


def test_calm_weather_pays_everything() -> None:
    """Without faults nearly all payments succeed, so that runs are not about failures only."""
    plan = draw(3)
    calm = replace(
        plan, weather=dict.fromkeys(PARTICIPANTS, 0.0), items=tuple(i for i in plan.items if hasattr(i, "op"))
    )
    result = RUNNER.play(calm)
    assert not result.violations
    assert result.payments > 10


def test_the_list_of_unreachable_transitions_is_right_about_actions() -> None:
    """What is listed as unreachable ends nothing, but for the first state, which cannot be exhausted or late."""
    listed = set().union(*(cells for _, cells in UNREACHABLE))
    acting = {cell for cell in listed if TABLE[cell[0]][cell[1]].actions}
    assert acting == {
        (State.DEBITING, Event.LATE_APPROVAL),
        (State.DEBIT_UNKNOWN, Event.LATE_APPROVAL),
        (State.CAPTURING, Event.LATE_APPROVAL),
        (State.CAPTURE_UNKNOWN, Event.LATE_APPROVAL),
        (State.CANCELLED, Event.CANCEL),
    }
    assert listed.isdisjoint(REACHABLE)


@pytest.mark.parametrize("path", [path for path in MUTATIONS if path.stem in QUICK], ids=lambda path: path.stem)
def test_a_planted_bug_is_found(path: Path) -> None:
    found = hunt(path)
    assert found.rule, f"{found.about} was not found within {found.seeds} seeds"


def test_every_planted_bug_fits_the_code(tmp_path: Path) -> None:
    patches = [path.read_text(encoding="utf-8") for path in MUTATIONS]
    assert all(sum(concerns(patch, postgres=postgres) for patch in patches) >= 15 for postgres in (False, True))
    assert set(QUICK) <= {path.stem for path in MUTATIONS}
    for path in MUTATIONS:
        patch = path.read_text(encoding="utf-8")
        assert patch.startswith("# ")
        for name in {line[6:] for line in patch.splitlines() if line.startswith("+++ b/")}:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text((ROOT / name).read_text(encoding="utf-8"), encoding="utf-8")
        apply(patch, tmp_path)


def test_a_patch_that_fits_nowhere_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\n")
    with pytest.raises(PatchError, match="0 times"):
        apply("--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-two\n+three\n", tmp_path)


def test_a_failing_run_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    """A guessed failure needs a payment or two and what delays a message to be seen."""
    guess = Rule(State.DECLINED, (Action.END,))
    monkeypatch.setitem(TABLE[State.DEBIT_UNKNOWN], Event.DEBIT_NOT_FOUND, guess)
    seed, result = next((seed, result) for seed in range(50) if (result := RUNNER.play_seed(seed)).violations)
    plan, least = shrink(draw(seed), result)
    assert least.violations[0].rule == result.violations[0].rule
    assert len(plan.items) + len(plan.fates or {}) <= 10 < len(draw(seed).items) + len(result.fates)
    assert len(least.trace) < len(RUNNER.play_seed(seed, trace=True).trace)
    assert any("VIOLATION" in line for line in least.trace[-10:])


@pytest.mark.parametrize(("synchronous", "kept"), [("FULL", 3), ("OFF", 0)])
def test_a_power_cut_keeps_what_was_synced(tmp_path: Path, synchronous: str, kept: int) -> None:
    disk = Disk(tmp_path)
    process = disk.connections(lambda: None)
    connection = connect(disk.path, factory=process.factory)
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    _insert(connection, 3)
    connection.execute("BEGIN")
    connection.execute("INSERT INTO t VALUES (99)")
    disk.power_cut()
    process.close_all()
    assert _rows(disk) == kept


@pytest.mark.parametrize(("part", "kept"), [(0.0, 3), (0.5, 3), (0.9, 3), (1.0, 4)])
def test_a_torn_commit_is_there_whole_or_not_at_all(tmp_path: Path, part: float, kept: int) -> None:
    disk = Disk(tmp_path)
    process = disk.connections(lambda: None)
    connection = connect(disk.path, factory=process.factory)
    _insert(connection, 3)
    disk.torn_part = part
    connection.execute("BEGIN")
    connection.execute("INSERT INTO t VALUES (99)")
    with pytest.raises(TornError):
        connection.execute("COMMIT")
    disk.power_cut()
    process.close_all()
    assert _rows(disk) == kept


def test_a_commit_whose_sync_failed_is_written_anew(tmp_path: Path) -> None:
    """Later syncs do not write what a failed one left out, so the journal writes it itself before it believes it."""
    disk = Disk(tmp_path)
    process = disk.connections(lambda: None)
    journal = SqliteJournal(disk.path, factory=process.factory)
    writes = Writes(movements=[Movement(bytes(16), 1, "a", "CNY", 1, 1)])
    disk.mode = "commit_taken"
    assert journal.commit(writes) == []
    assert disk.failed == 1
    disk.power_cut()
    process.close_all()
    with closing(sqlite3.connect(disk.path)) as connection:
        assert connection.execute("SELECT count(*) FROM postings").fetchone() == (2,)


def _insert(connection: sqlite3.Connection, count: int) -> None:
    connection.execute("BEGIN")
    connection.execute("CREATE TABLE t (x INTEGER)")
    connection.execute("COMMIT")
    for number in range(count):
        connection.execute("BEGIN")
        connection.execute("INSERT INTO t VALUES (?)", (number,))
        connection.execute("COMMIT")


def _rows(disk: Disk) -> int:
    connection = sqlite3.connect(disk.path)
    try:
        if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            return 0
        (count,) = connection.execute("SELECT count(*) FROM t").fetchone()
        return int(count)
    finally:
        connection.close()


def test_the_command_reports_json() -> None:
    done = CliRunner().invoke(simulate, ["--seeds", "3", "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert {"seeds", "payments", "faults", "violations", "coverage"} <= set(report)
    assert report["seeds"] == 3
    assert report["violations"] == []
    assert report["coverage"]["transitions"][1] == len(REACHABLE)


def test_the_command_prints_the_shortest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TABLE[State.DEBIT_UNKNOWN], Event.DEBIT_NOT_FOUND, Rule(State.DECLINED, (Action.END,)))
    done = CliRunner().invoke(simulate, ["--seeds", "10"])
    assert done.exit_code == 1
    assert "shortest run" in done.stdout
    assert "VIOLATION" in done.stdout


def test_a_trace_needs_a_seed() -> None:
    assert CliRunner().invoke(simulate, ["--trace"]).exit_code == 2
    done = CliRunner().invoke(simulate, ["--seed", "5", "--trace"])
    assert done.exit_code == 0
    assert "all is repaired" in done.stdout
