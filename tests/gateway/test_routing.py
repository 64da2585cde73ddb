"""Routing: eligible acquirers by cost, weight and health, circuits that open, probe and close, reasons that say so."""

from __future__ import annotations

import json
import random

import pytest

from gateway.directory import Directory, Merchant, parse
from gateway.routing import FAILURES_TO_OPEN, OPEN_US, PROBE_US, REFRESH_US, Circuit, Health, Router

NOW = 1_000_000_000


def directory(*acquirers: tuple[str, float, float], currencies: tuple[str, ...] = ("CNY",)) -> Directory:
    return parse(
        {
            "participants": [
                {"id": name, "role": "acquirer", "currencies": list(currencies)} for name, _, _ in acquirers
            ],
            "merchants": [
                {
                    "id": "m",
                    "name": "Shop",
                    "acquirers": [{"id": name, "cost_bp": cost, "weight": weight} for name, cost, weight in acquirers],
                }
            ],
        }
    )


class World:
    def __init__(self, *acquirers: tuple[str, float, float], currencies: tuple[str, ...] = ("CNY",)) -> None:
        self.down: set[str] = set()
        self.router = Router(directory(*acquirers, currencies=currencies), lambda name: name not in self.down)
        self.merchant: Merchant = self.router.directory.merchants["m"]
        self.now = NOW

    def order(self) -> tuple[str, ...]:
        return self.router.route(self.merchant, "CNY", self.now).acquirers

    def reasons(self) -> dict[str, list[str]]:
        text = self.router.route(self.merchant, "CNY", self.now).explanation
        return {name: reasons for name, _, reasons in json.loads(text)}

    def observe(self, name: str, *, well: bool, times: int = 1, latency_us: int = 1000) -> None:
        for _ in range(times):
            self.router.observe(name, well, latency_us, self.now)


def test_the_cheapest_comes_first_and_all_are_candidates() -> None:
    world = World(("dear", 50, 1), ("cheap", 10, 1), ("fair", 30, 1))
    assert world.order() == ("cheap", "fair", "dear")
    assert "cost 10bp" in world.reasons()["cheap"]


def test_equals_share_by_weight() -> None:
    world = World(("a", 10, 3), ("b", 10, 1))
    first = [world.order()[0] for _ in range(400)]
    assert first.count("a") == 300


@pytest.mark.parametrize("gap_us", [1, 300, 20_000, 999_999, 1_000_000, 1_000_001, 3_600_000_000])
@pytest.mark.parametrize("weights", [(1, 1), (70, 30), (1, 2, 3), (0.05, 0.95), (99, 1), (1e9, 1e9), (5, 4, 3, 2, 1)])
def test_shares_hold_over_any_hundred_payments_at_any_pace(weights: tuple[float, ...], gap_us: int) -> None:
    world = World(*[(f"a{number}", 10, weight) for number, weight in enumerate(weights)])
    first = []
    for _ in range(400):
        first.append(world.order()[0])
        world.now += gap_us
    _check_shares(weights, first)


@pytest.mark.parametrize("seed", range(30))
def test_shares_hold_for_any_weights_while_health_moves(seed: int) -> None:
    """Circuits that change and latencies that wobble by less than a basis point begin the plans anew, not the turns."""
    rng = random.Random(seed)
    weights = tuple(rng.choice((rng.uniform(0.01, 1), rng.randint(1, 1000))) for _ in range(rng.randint(2, 8)))
    world = World(*[(f"a{number}", 10, weight) for number, weight in enumerate(weights)], ("b", 500, 1))
    first = []
    pace_us = rng.choice((100, 100_000, 2_000_000))
    for _ in range(300):
        leader = world.order()[0]
        first.append(leader)
        world.now += int(rng.expovariate(1 / pace_us))
        world.observe(leader, well=True, latency_us=rng.randint(1_000, 20_000))
        if rng.random() < 0.05:
            world.observe("b", well=False, times=FAILURES_TO_OPEN)
            world.observe("b", well=True)
    leaders = [name for name in first if name != "b"]
    _check_shares(weights, leaders)


def _check_shares(weights: tuple[float, ...], first: list[str]) -> None:
    for start in range(0, len(first) - 100, 7):
        window = first[start : start + 100]
        for number, weight in enumerate(weights):
            share = 100 * weight / sum(weights)
            assert abs(window.count(f"a{number}") - share) <= 5, (start, weights)


def test_shares_hold_over_many_merchants_with_one_payment_each() -> None:
    names = [f"m{number}" for number in range(400)]
    served = [{"id": "a", "cost_bp": 10, "weight": 70}, {"id": "b", "cost_bp": 10, "weight": 30}]
    book = parse(
        {
            "participants": [{"id": "a", "role": "acquirer"}, {"id": "b", "role": "acquirer"}],
            "merchants": [{"id": name, "name": name, "acquirers": served} for name in names],
        }
    )
    router = Router(book, lambda _: True)
    first = [router.route(book.merchants[name], "CNY", NOW).acquirers[0] for name in names]
    assert abs(first.count("a") / 4 - 70) <= 10


def test_who_does_not_lead_follows() -> None:
    world = World(("a", 10, 1), ("b", 10, 1), ("c", 90, 1))
    assert {world.order() for _ in range(4)} == {("a", "b", "c"), ("b", "a", "c")}


def test_the_currencies_of_a_merchant() -> None:
    world = World(("a", 10, 1), currencies=("CNY", "HKD"))
    assert world.router.currencies(world.merchant) == {"CNY", "HKD"}
    everything = World(("a", 10, 1), currencies=())
    assert everything.router.currencies(everything.merchant) == frozenset()


def test_weight_zero_is_for_when_nobody_else_can() -> None:
    world = World(("spare", 1, 0), ("a", 90, 1))
    assert world.order() == ("a", "spare")
    world.down.add("a")
    world.now += REFRESH_US
    assert world.order() == ("spare",)


def test_who_is_not_connected_or_does_not_settle_the_currency_is_not_asked() -> None:
    world = World(("a", 10, 1), ("b", 20, 1))
    world.down.add("a")
    assert world.order() == ("b",)
    assert "not connected" in world.reasons()["a"]
    other = World(("a", 10, 1), currencies=("USD",))
    assert other.order() == ()
    assert "does not settle CNY" in other.reasons()["a"]


def test_failures_in_a_row_open_the_circuit_at_once_and_a_probe_closes_it() -> None:
    world = World(("a", 10, 1), ("b", 20, 1))
    world.observe("a", well=False, times=FAILURES_TO_OPEN)
    assert world.order() == ("b",)
    assert "circuit open" in world.reasons()["a"]
    world.now += OPEN_US
    assert world.order() == ("a", "b"), "the probe goes first, and b takes over if it fails"
    assert world.order() == ("b",), "one probe at a time"
    world.observe("a", well=True)
    assert world.router.health("a").circuit is Circuit.CLOSED
    assert set(world.order()) == {"a", "b"}


def test_a_failed_probe_opens_the_circuit_for_longer() -> None:
    health = Health()
    for _ in range(FAILURES_TO_OPEN):
        health.observe(False, 1, NOW)
    assert not health.admits(NOW + OPEN_US - 1)
    assert health.admits(NOW + OPEN_US)
    health.observe(False, 1, NOW + OPEN_US)
    assert not health.admits(NOW + OPEN_US + 2 * OPEN_US - 1)
    assert health.admits(NOW + OPEN_US + 2 * OPEN_US)
    assert not health.admits(NOW + OPEN_US + 2 * OPEN_US + PROBE_US - 1)
    assert health.admits(NOW + OPEN_US + 2 * OPEN_US + PROBE_US)


def test_many_failures_among_successes_open_the_circuit_too() -> None:
    health = Health()
    for _ in range(40):
        health.observe(True, 1, NOW)
        for _ in range(3):
            health.observe(False, 1, NOW)
    assert health.circuit is Circuit.OPEN


@pytest.mark.parametrize(("well", "latency_us"), [(False, 1000), (True, 3_000_000)])
def test_the_unreliable_and_the_slow_cost_more(well: bool, latency_us: int) -> None:
    world = World(("a", 10, 1), ("b", 11, 1))
    assert world.order()[0] == "a"
    for _ in range(30):
        world.observe("a", well=True, latency_us=latency_us)
        world.observe("a", well=well, latency_us=latency_us)
    world.now += REFRESH_US
    assert world.order()[0] == "b"


def test_an_order_is_used_again_for_a_while_only() -> None:
    world = World(("a", 10, 1), ("b", 11, 1))
    first = world.router.route(world.merchant, "CNY", world.now)
    assert world.router.route(world.merchant, "CNY", world.now + REFRESH_US - 1) is first
    assert world.router.route(world.merchant, "CNY", world.now + REFRESH_US) is not first


def test_several_answers_alike_count_as_each_of_them() -> None:
    one_by_one, together = Health(success=0.4, latency_us=9_000.0), Health(success=0.4, latency_us=9_000.0)
    for _ in range(7):
        one_by_one.observe(True, 500, NOW)
    together.observe(True, 500, NOW, 7)
    assert together.observations == one_by_one.observations == 7
    assert together.success == pytest.approx(one_by_one.success)
    assert together.latency_us == pytest.approx(one_by_one.latency_us)
