"""The benches measure what they say: small runs of each, by the command itself."""

from __future__ import annotations

import json
from typing import Any

import pytest
from click.testing import CliRunner

from command.main import main

pytestmark = pytest.mark.process


def bench(*arguments: str) -> dict[str, Any]:
    outcome = CliRunner().invoke(main, ["bench", *arguments, "--json"])
    assert outcome.exit_code == 0, outcome.output
    result: dict[str, Any] = json.loads(outcome.stdout)
    assert result["conserved"], result["findings"]
    return result


def test_recovery_settles_everything_that_was_in_flight() -> None:
    result = bench("--recovery", "600")
    assert result["in_flight_at_kill"] == result["in_flight_found"] >= 600
    assert result["in_flight_left"] == 0
    # Half of the debits had been done although nobody answered, the others never arrived.
    assert result["by_state"]["SUCCEEDED"] > 200
    assert result["by_state"]["FAILED"] > 200
    assert 0 < result["start_s"] < result["first_payment_s"] <= result["settled_s"]


def test_overload_keeps_serving_and_refuses_the_rest() -> None:
    result = bench("--overload", "--seconds", "1")
    assert result["goodput_per_s"] > 0
    assert result["other_failures"] == {}
    assert result["offered_per_s"] > result["peaks_per_s"][0]
    assert result["refusal_ms"].keys() == ({"p50", "p99"} if result["refused"] else set())
