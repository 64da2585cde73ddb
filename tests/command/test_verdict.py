"""A measurement or check that ends with 1 says on standard error what was not as it should be, with --json too."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from command.main import main
from command.printing import verdict
from gateway.journal.report import Report
from loadtest import barcodes as barcode_bench
from loadtest import tokens as bench

COMMANDS = Path(__file__).parents[2] / "command"
OUTCOMES = {"payments.py", "risk.py", "connection.py"}
"""Where an exit status of 1 goes with a payment's state or an error that was printed, also as JSON."""


def hutong(*words: str) -> Result:
    return CliRunner().invoke(main, words)


def test_a_token_bench_names_the_targets_it_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(bench.TARGETS, "resolve_per_s", 10**12)
    monkeypatch.setitem(bench.TARGETS, "start_s", 0)
    monkeypatch.setattr(bench, "SECONDS", 0.05)
    result = hutong("token", "bench", "--accounts", "1000", "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert {name for name, good in report["met"].items() if not good} >= {"resolve_per_s", "start_s"}
    assert f"resolve_per_s is {report['resolve_per_s']:,}, and should be at least 1,000,000,000,000" in result.stderr
    assert "start_s is " in result.stderr


@pytest.mark.parametrize("as_json", [(), ("--json",)])
def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, as_json: tuple[str, ...]) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    result = hutong("barcode", "scan", str(tmp_path / "notes.txt"), *as_json)
    assert result.exit_code == 1
    assert "1 of 1 files could not be read" in result.stderr
    assert "notes.txt" in result.stderr


def test_a_fuzz_that_fails_names_its_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    report = {"failures": [{"input": 7, "problem": "ZeroDivisionError"}]}
    monkeypatch.setattr(barcode_bench, "fuzz", lambda *_: report)
    result = hutong("barcode", "fuzz", "--inputs", "1", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, report)
    assert "input 7: ZeroDivisionError" in result.stderr


def test_books_that_do_not_agree_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Report()
    found.find("postings of one payment sum to 5")
    monkeypatch.setattr("command.check.check_folder", lambda *_: found)
    (tmp_path / "gateway.db").write_bytes(b"")
    result = hutong("check", str(tmp_path), "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["findings"] == ["postings of one payment sum to 5"]
    assert "postings of one payment sum to 5" in result.stderr


def test_many_findings_are_counted() -> None:
    with pytest.raises(Exception, match="and 5 more") as ended:
        verdict.failed("wrong", [str(number) for number in range(verdict.NAMED_MAX + 5)])
    assert str(ended.value).count("\n") == verdict.NAMED_MAX + 1


def test_no_command_ends_with_1_without_a_word() -> None:
    """Neither sys.exit(1) nor SystemExit(1) stands in a command but where its outcome was just printed."""

    def silent(call: ast.Call) -> bool:
        name = ast.unparse(call.func)
        ends = name.endswith(("exit", "SystemExit", "Exit"))
        return ends and any(isinstance(given, ast.Constant) and given.value == 1 for given in call.args)

    found: dict[str, int] = {}
    for path in sorted(COMMANDS.rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.Call)]
        if count := sum(map(silent, calls)):
            found[path.name] = count
    assert set(found) <= OUTCOMES, found
    assert found, "the rule found no module at all"
