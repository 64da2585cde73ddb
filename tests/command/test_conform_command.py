"""`hutong participants conform` as a user runs it: it starts the example's participant, and says what it finds."""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from command.main import main

ROOT = Path(__file__).parents[2]
PROGRAM = ROOT / "examples" / "python" / "participant.py"


def conform(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["participants", "conform", *arguments])


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options that start an issuer with one account."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    monkeypatch.setenv("HUTONG_PARTICIPANT_SECRET", "a secret")
    accounts = tmp_path / "accounts.csv"
    accounts.write_text("t0,JPY,5000\n")
    command = [sys.executable, str(PROGRAM), "--target", "{target}", "--id", "issuer-z", "--role", "issuer"]
    command += ["--accounts", str(accounts), "--file", str(tmp_path / "issuer.db")]
    where = ["--id", "issuer-z", "--account", "t0", "--currency", "JPY", "--amount", "20", "--listen", "127.0.0.1:0"]
    return [*where, "--start", shlex.join(command)]


@pytest.mark.process
@pytest.mark.slow
def test_a_sound_participant_passes_and_a_wrong_one_is_told_what_it_failed(start: list[str]) -> None:
    sound = conform(*start, "--role", "issuer")
    assert sound.exit_code == 0, sound.output
    assert "issuer-z, issuer: 22 passed, 0 failed, 0 skipped" in sound.output
    assert "\npassed  restart\n" in sound.output

    wrong = conform(*start, "--role", "acquirer", "--only", "original", "--only", "unknown account")
    assert wrong.exit_code == 1
    assert "failed  original\n" in wrong.output
    assert "- the original: DECLINED (12), where APPROVED is right\n" in wrong.output
    assert wrong.output.endswith("issuer-z does not conform:\n  original\n  unknown account\n")

    told = conform(*start, "--role", "acquirer", "--only", "original", "--json")
    assert told.exit_code == 1
    report = json.loads(told.stdout)
    assert (report["participant"], report["role"], report["conforms"]) == ("issuer-z", "acquirer", False)
    verdicts = {check["name"]: check["verdict"] for check in report["checks"]}
    assert verdicts == {"original": "failed", "answers": "passed", "stream": "passed"}


def test_nobody_who_connects_is_a_failure_and_ends_in_time() -> None:
    result = conform(
        "--id", "p", "--role", "issuer", "--account", "t", "--listen", "127.0.0.1:0", "--connect-seconds", "1"
    )
    assert result.exit_code == 1
    assert "it did not connect within 1 s" in result.output
    assert "not connected after 'original'" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "everything"], "the checks of an issuer are original, repeat"),
        (["--listen", "0.0.0.0:0"], "would be reachable in plaintext"),
        (["--listen", "here"], "is not HOST:PORT"),
        (["--amount", "1.001"], "at most 2 decimals"),
        (["--amount", "0.03"], "at least 4 minor units"),
        (["--currency", "CNX"], "no ISO 4217 code"),
        (["--start", "'"], "--start: No closing quotation"),
        (["--tls-cert", str(PROGRAM)], "--tls-cert and --tls-key belong together"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_asked_wrongly_is_said(arguments: list[str], said: str) -> None:
    result = conform("--id", "p", "--role", "issuer", "--account", "t", "--listen", "127.0.0.1:0", *arguments)
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_the_group_alone_still_wants_its_folder(tmp_path: Path) -> None:
    assert "Missing option '--data'" in CliRunner().invoke(main, ["participants"]).output
    mixed = CliRunner().invoke(main, ["participants", "--data", str(tmp_path), "conform", "--id", "p"])
    assert mixed.exit_code == 2
    assert "--data and --target are not for conform" in mixed.output
