"""`hutong load`: scenarios with all their errors, a run with its report and page, a gateway that dies in the middle."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from command.main import main
from loadtest.page import page
from loadtest.scenario import BUILT_IN, ScenarioError, Stage, parse, read, with_rate
from sandbox.network import Network
from sandbox.options import NetworkOptions
from tests.deadlines import START_S
from tests.gateway.test_kill import Gateway

WRONG = """
[load]
seconds = -1
rate = "fast"
arrival = "poisson"
processes = 1.5

[mix]
tokens = 3
refund = 0

[knee]
slo = 50
"""


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    options = NetworkOptions(data=tmp_path_factory.mktemp("load"), listen="127.0.0.1:0", magic_amounts=False)
    with Network.start(options) as network:
        yield network


def test_every_error_of_a_scenario_is_told_with_its_path() -> None:
    with pytest.raises(ScenarioError) as caught:
        parse(WRONG)
    said = str(caught.value)
    for path in ("load.seconds", "load.rate", "load.arrival", "load.processes", "mix.tokens", "mix.refund", "knee.slo"):
        assert path in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[load", "scenario"),
        ("[load]\nrate = 1\nin_flight = 2", "one of them"),
        ("stage = 3", "stage"),
        ("[[stage]]\nseconds = 1", "one of them"),
        ("[knee]\n[[stage]]\nrate = 1", "makes its own stages"),
        ("mix = {}", "mix"),
        ("[load]\nrate = nan", "load.rate"),
        ("[load]\nconnections = 100000", "load.connections"),
    ],
)
def test_a_scenario_that_makes_no_sense_is_refused(text: str, said: str) -> None:
    with pytest.raises(ScenarioError, match=said):
        parse(text)


def test_a_scenario_is_read_and_its_rate_replaced() -> None:
    scenario = parse("[[stage]]\nrate = 5\nseconds = 2\n[[stage]]\nin_flight = 7\nseconds = 3\n")
    assert scenario.stages == (Stage(2.0, 5.0), Stage(3.0, in_flight=7))
    assert with_rate(scenario, 9.0).stages == (Stage(2.0, 9.0), Stage(3.0, 9.0))
    assert {read(name).name for name in BUILT_IN} == set(BUILT_IN)
    with pytest.raises(ScenarioError, match="built in are"):
        read("nothing.toml")


@pytest.mark.slow
@pytest.mark.process
def test_a_run_says_what_callers_saw(network: Network, tmp_path: Path) -> None:
    file = tmp_path / "three.toml"
    file.write_text(
        "[load]\nconnections = 2\n[mix]\ntoken = 2\nrefund = 1\ncode = 1\n"
        "[[stage]]\nrate = 60\nseconds = 1\n[[stage]]\nin_flight = 4\nseconds = 1\n"
    )
    report = tmp_path / "report.html"
    words = ["load", str(file), "--data", str(network.data), "--report", str(report), "--json"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["conserved"] is True
    assert (result["refusals"], result["missed"], result["unanswered"]) == ({}, 0, 0)
    assert result["stages"][0]["offered_per_s"] == pytest.approx(60, abs=25)
    assert set(result["latency_from_due_ms"]) == {"p50", "p90", "p99", "p99.9", "p99.99"}
    assert result["lines"]["refund"] == result["lines"]["pay, to refund"]
    assert result["generator_cpu_share"] > 0
    assert well_formed(report.read_text("utf-8"))


@pytest.mark.slow
@pytest.mark.process
def test_a_knee_search_ends_by_itself(network: Network, tmp_path: Path) -> None:
    file = tmp_path / "knee.toml"
    file.write_text("[knee]\nrate_from = 20\nrate_to = 160\nstep = 2.0\nstage_s = 1\nslo_p99_ms = 60000\n")
    done = CliRunner().invoke(main, ["load", str(file), "--data", str(network.data), "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert len(result["stages"]) == 4
    assert 0 < result["slo_per_s"] <= result["knee_per_s"] <= 160


@pytest.mark.slow
@pytest.mark.process
def test_a_gateway_that_dies_in_the_middle_is_said(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path / "data")
    file = tmp_path / "long.toml"
    file.write_text("[load]\nrate = 50\nseconds = 60\n")
    killer = threading.Timer(4.0, gateway.kill)
    killer.start()
    words = ["load", str(file), "--target", gateway.target, "--seed", "6", "--json"]
    done = CliRunner().invoke(main, words)
    killer.join(START_S)
    assert done.exit_code == 1
    result = json.loads(done.stdout)
    assert result["connection_lost"]
    assert "the connection was lost" in done.stderr


def test_nothing_at_the_target_is_said() -> None:
    done = CliRunner().invoke(main, ["load", "token", "--target", "127.0.0.1:1"])
    assert done.exit_code == 1
    assert "nothing answers" in done.output


def test_a_page_is_one_file_and_shows_texts_as_texts() -> None:
    stage = {
        "offered_per_s": 100.0,
        "goodput_per_s": 90.0,
        "seconds": 5.0,
        "refusals": {},
        "latency_from_due_ms": {"p50": 1.0, "p99": 2.0},
        "latency_from_send_ms": {"p50": 1.0, "p99": 2.0},
        "missed": 3,
        "generator_cpu_share": 0.9,
    }
    made = page(
        {
            "scenario": "<script>alert(1)</script>",
            "target": "t",
            "offered_per_s": 1.0,
            "goodput_per_s": 1.0,
            "lines": {"<b>": 1},
            "refusals": {"OVERLOADED": 2},
            "latency_from_due_ms": {},
            "missed": 3,
            "runqueue_wait_share": 0.5,
            "connection_lost": None,
            "interrupted": False,
            "stages": [stage, stage],
            "knee_per_s": 100.0,
            "slo_per_s": 50.0,
            "usl": None,
            "conserved": False,
        }
    )
    assert well_formed(made)
    assert "<script>" not in made
    assert "NOT CONSERVED" in made
    assert "http" not in made.replace("http-equiv", "")


class _Tags(HTMLParser):
    EMPTY = frozenset({"meta", "circle", "line", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        """Closes itself."""

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def well_formed(text: str) -> bool:
    tags = _Tags()
    tags.feed(text)
    return not tags.open and not tags.wrong
