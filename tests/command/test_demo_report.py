"""Proves that the demonstration's report finds every kind of thing that is not as it should be."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from command.printing.demonstration import picture, show
from command.printing.screen import Screen
from sandbox.demo.record import EVERYWHERE, Key, Line, percentile_us
from sandbox.demo.result import Result
from sandbox.population import populate

POPULATION = populate(1)


def matrix() -> list[Line]:
    lines = []
    for row, wallet in enumerate(POPULATION.wallets):
        for column, acquirer in enumerate(POPULATION.acquirers):
            keys = [*EVERYWHERE, *([Key.FACE] if row % 5 == column else [])]
            lines += [
                Line(
                    "scene",
                    wallet.id,
                    wallet.issuer_id,
                    "m",
                    acquirer.id,
                    "SUCCEEDED",
                    "SUCCEEDED",
                    key,
                    100,
                    "p",
                    9_000,
                )
                for key in keys
            ]
    return lines


def result(lines: list[Line], **changes: Any) -> Result:
    return replace(Result(POPULATION, lines, [], True, ["postings sum to zero"], 12.0), **changes)


def text_of(shown: Result) -> str:
    console = Screen(file=io.StringIO(), width=200)
    show(shown, console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_complete_matrix_is_all_as_it_should_be() -> None:
    complete = result(matrix())
    assert complete.ok
    assert complete.failures == []
    assert "all as it should be" in text_of(complete)
    plain = json.loads(json.dumps(complete.as_json()))
    assert plain["ok"] is True
    assert plain["payments"] == len(plain["matrix"]) == 12 * 5 * 5 + 12
    assert plain["latency_ms"] == {"p50": 9.0, "p99": 9.0, "max": 9.0}


@pytest.mark.parametrize("place", [0, 100, -1])
def test_one_missing_payment_is_found(place: int) -> None:
    lines = matrix()
    gone = lines.pop(place)
    broken = result(lines)
    assert not broken.ok
    assert any(gone.wallet_id in gap for gap in broken.gaps)
    assert "✗" in text_of(broken)


@pytest.mark.parametrize(
    "change", [{"outcome": "DECLINED"}, {"wrong": "the amount is 1, not 100"}, {"acquirer_id": "acquirer-z"}]
)
def test_one_wrong_payment_is_found(change: dict[str, str]) -> None:
    lines = matrix()
    lines[7] = replace(lines[7], **change)  # type: ignore[arg-type]
    assert not result(lines).ok


@pytest.mark.parametrize(
    "change", [{"differences": ["m1001 has 5, not 6"]}, {"conserved": False, "conservation": ["off by 5"]}]
)
def test_money_that_does_not_add_up_is_found(change: dict[str, Any]) -> None:
    broken = result(matrix(), **change)
    assert not broken.ok
    assert "not as it should be" in text_of(broken)


def test_an_expected_refusal_is_as_it_should_be() -> None:
    refused = Line("twice", "wallet-01", "issuer-a", "m", "", "CODE_SPENT", "CODE_SPENT")
    assert result([*matrix(), refused]).ok
    assert not result([*matrix(), replace(refused, outcome="SUCCEEDED")]).ok


def test_the_picture_is_an_image_and_nothing_else_is_written(tmp_path: Path) -> None:
    picture(result(matrix()), tmp_path / "demo.svg")
    assert [path.name for path in tmp_path.iterdir()] == ["demo.svg"]
    svg = (tmp_path / "demo.svg").read_text(encoding="utf-8")
    assert svg.startswith("<svg")
    assert "Lin Mei" in svg.replace("&#160;", " ")
    assert "url(" not in svg.replace("url(#", ""), "it loads nothing from elsewhere"


def test_percentiles_are_nearest_rank() -> None:
    assert percentile_us([], 0.5) == 0
    assert percentile_us([3, 1, 2], 0.5) == 2
    assert percentile_us(list(range(100)), 0.99) == 99
    assert percentile_us([5], 1.0) == 5


def test_net_positions_are_shown_and_must_sum_to_zero() -> None:
    nets = [("acquirer-a", "CNY", 1250), ("issuer-a", "CNY", -1250)]
    settled = result(matrix(), settlement=nets)
    assert settled.ok
    (line,) = (line for line in text_of(settled).splitlines() if "acquirer-a " in line and "issuer-a " in line)
    assert re.search(r"acquirer-a +12\.50 CNY +issuer-a +-12\.50 CNY", line)
    assert settled.as_json()["settlement"][0] == {"participant": "acquirer-a", "currency": "CNY", "net_minor": 1250}
    assert result(matrix(), settlement=nets[:1]).failures == ["net positions in CNY sum to 1250"]
