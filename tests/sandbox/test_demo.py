"""Proves the demonstration on a real network: the matrix is complete, every expectation holds, the books agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from command.demo import demo
from sandbox.demo.record import EVERYWHERE, Key
from sandbox.demo.run import run
from sandbox.options import NetworkOptions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo")


@pytest.mark.slow
def test_every_wallet_pays_through_every_acquirer_by_every_key(folder: Path) -> None:
    told: list[str] = []
    options = NetworkOptions(folder, 11, "127.0.0.1:0", wallets_per_issuer=1, merchants_per_acquirer=2)
    result = run(options, lambda scene, *_: told.append(scene))
    assert told[-1] == "the books are checked"
    assert result.failures == []
    assert result.ok
    done = {(line.wallet_id, line.acquirer_id, line.key) for line in result.lines if line.ok and line.key}
    for wallet in result.population.wallets:
        for acquirer in result.population.acquirers:
            assert {key for key in EVERYWHERE if (wallet.id, acquirer.id, key) in done} == set(EVERYWHERE)
    assert {wallet for wallet, _, key in done if key is Key.FACE} == {one.id for one in result.population.wallets}
    scenes = {line.scene for line in result.lines}
    assert scenes >= {
        "refund of a part",
        "refund of more than is left",
        "not enough money",
        "one code at two terminals",
        "an acquirer refuses",
        "an acquirer is down",
        "an answer is lost",
        "a portrait on paper",
        "a face and a small amount",
        "a face and a larger amount",
        "a face, its passcode and a larger amount",
    }
    assert list((folder / "images").glob("*.png"))
    assert json.loads(json.dumps(result.as_json()))["conserved"] is True


def test_a_folder_in_use_is_refused(folder: Path) -> None:
    (folder / "something").touch()
    result = CliRunner().invoke(demo, ["--data", str(folder)])
    assert result.exit_code == 2
    assert "not empty" in result.output
