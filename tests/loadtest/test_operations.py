"""Operations against a real gateway through the raw client, exact weights, and due times."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from loadtest.arrivals import Arrivals
from loadtest.drive import Driver, Seen
from loadtest.h2 import UnaryLoad
from loadtest.operations import OPERATIONS, Flow, Mix, Operations, Supply
from loadtest.payments import CREATE_PATH
from loadtest.supplies import Place, SupplyError, fetch, place_of
from sandbox.checking import check_folder
from sandbox.network import Network
from sandbox.options import NetworkOptions
from tests.deadlines import CALL_S

NAMES = {
    "token": {"pay by token"},
    "scan": {"pay a scanned merchant code"},
    "code": {"ReserveCode", "pay by payment code"},
    "barcode": {"ReserveCode", "pay by scanned code"},
    "hold": {"hold", "capture"},
    "refund": {"pay, to refund", "refund"},
    "repeat": {"pay by token", "repeat"},
    "poll": {"pay by token", "GetPayment"},
    "hot": {"pay the hot merchant"},
}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    options = NetworkOptions(
        data=tmp_path_factory.mktemp("load"), listen="127.0.0.1:0", magic_amounts=False, wallets_per_issuer=4
    )
    with Network.start(options) as network:
        yield network


@pytest.fixture(scope="module")
def supply(network: Network) -> Supply:
    return fetch(place_of(network.data))


@pytest.mark.parametrize("name", OPERATIONS)
def test_each_operation_is_paid_a_hundred_times(network: Network, supply: Supply, name: str) -> None:
    seen: list[Seen] = []
    load = UnaryLoad(network.target, CREATE_PATH)
    driver = Driver(load, Flow(Operations(supply, f"{name}-test"), Mix({name: 1})), seen.append)
    until = time.monotonic() + CALL_S
    while sum(one.outcome.good for one in seen) < 100 and time.monotonic() < until:
        driver.closed(8)
    assert driver.finish(CALL_S) == 0
    load.close()
    refused = Counter(one.outcome.what for one in seen if not one.outcome.good)
    refused.pop("QUERY_BUDGET_SPENT", None)  # a poller that asks without pause is told to wait
    assert not refused
    assert {one.name for one in seen} == NAMES[name]


def test_no_money_was_lost(network: Network) -> None:
    report = check_folder(network.data)
    assert report.conserved, report.findings


def test_weights_are_exact_over_ten_thousand() -> None:
    weights = {"token": 61, "scan": 20, "code": 12, "refund": 6, "poll": 1}
    mix = Mix(weights)
    drawn = Counter(mix.next() for _ in range(10_000))
    assert drawn == {name: weight * 100 for name, weight in weights.items()}


def test_a_mix_is_even_at_every_moment() -> None:
    weights = {"token": 3, "scan": 2, "poll": 1}
    mix, drawn = Mix(weights), Counter[str]()
    for number in range(1, 601):
        drawn[mix.next()] += 1
        assert all(abs(drawn[name] - number * weight / 6) < 1 for name, weight in weights.items())


@pytest.mark.parametrize("weights", [{}, {"token": 0}, {"token": 0.5}, {"tokens": 1}])
def test_a_mix_that_makes_no_sense_is_refused(weights: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"weights|no operation"):
        Mix(weights)


def test_an_open_loop_keeps_its_rate_and_counts_from_when_calls_were_due(network: Network, supply: Supply) -> None:
    seen: list[Seen] = []
    load = UnaryLoad(network.target, CREATE_PATH)
    driver = Driver(load, Flow(Operations(supply, "open"), Mix({"token": 1})), seen.append)
    start = time.perf_counter()
    arrivals = Arrivals(100.0, start, pattern="uniform")
    while time.perf_counter() < start + 1.0:
        driver.open(arrivals)
    time.sleep(0.5)  # this generator stands still: what was due meanwhile is late, and counts so
    driver.open(arrivals)
    assert driver.finish(CALL_S) == 0
    load.close()
    assert len(seen) == pytest.approx(150, abs=3)
    late = [one for one in seen if one.from_due_s > 0.1]
    assert len(late) >= 35
    assert all(one.from_due_s >= one.from_send_s - 1e-3 for one in seen)


def test_where_nothing_answers_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(SupplyError, match="hutong up"):
        fetch(Place("127.0.0.1:1"))
    with pytest.raises(SupplyError, match="data folder"):
        place_of(tmp_path)
