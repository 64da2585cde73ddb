"""Query budgets: one for each caller, refilled by time, bounded in memory, not met by who asks at the field's pace."""

from __future__ import annotations

import pytest

from gateway.budgets import POLL_S, SHARED, QueryBudgets, QueryLimits
from hutong_contract.errors import HutongError, Reason, from_status


class World:
    def __init__(self, rate: float = 10.0, burst: int = 5, callers_max: int = 100) -> None:
        self.now_s = 1000.0
        self.lingering = 0
        self.budgets = QueryBudgets(
            QueryLimits(rate, burst), lambda: self.lingering, clock=lambda: self.now_s, callers_max=callers_max
        )

    def ask(self, caller: str = "shop", times: int = 1, *, proven: bool = True) -> int:
        """How many of some queries are answered."""
        return sum(self.budgets.refusal(caller, proven=proven) is None for _ in range(times))

    def refusal(self, caller: str = "shop") -> HutongError:
        error = self.budgets.refusal(caller, proven=True)
        assert error is not None
        return error


def test_a_burst_then_the_rate() -> None:
    world = World()
    assert world.ask(times=20) == 5
    for _ in range(50):
        world.now_s += 0.25
        world.ask(times=20)
    assert 5 + 120 <= 20 * 51 - world.budgets.refused <= 5 + 126, "10 a second for 12.5 s"
    world.now_s += 3600
    assert world.ask(times=20) == 5, "no more than the burst is saved up"


def test_the_refusal_says_when_and_then_it_works() -> None:
    world = World(rate=2.0)
    world.ask(times=5)
    error = from_status(world.refusal().to_status())
    assert error is not None
    assert error.reason == Reason.ERROR_REASON_QUERY_BUDGET_SPENT
    assert error.status_code.name == "RESOURCE_EXHAUSTED"
    assert error.retry_us == 500_000
    world.now_s += error.retry_us / 1e6
    assert world.ask(times=2) == 1


def test_callers_do_not_share_what_they_have() -> None:
    world = World()
    assert world.ask("a", 50) == 5
    assert world.ask("b", 50) == 5


def test_who_asks_about_each_payment_in_flight_at_the_fields_pace_is_never_refused() -> None:
    world = World(rate=0.1, burst=300)
    world.lingering = 8192
    for _ in range(40):  # in waves of 273 each tenth of a second
        assert world.ask(times=273) == 273
        world.now_s += POLL_S / 30


@pytest.mark.parametrize("callers_max", [10, 100])
def test_callers_with_ever_new_names_are_bounded_together_and_in_memory(callers_max: int) -> None:
    world = World(callers_max=callers_max)
    answered = sum(world.ask(f"name-{number}", proven=False) for number in range(10_000))
    assert answered == 5 * SHARED
    assert len(world.budgets) == callers_max
    assert world.ask("proven") == 1, "who proves its identity has a budget of its own"
    world.now_s += 1.0
    assert sum(world.ask(f"again-{number}", proven=False) for number in range(10_000)) == 5 * SHARED


def test_the_caller_that_was_silent_for_longest_is_forgotten_first() -> None:
    world = World(callers_max=2)
    world.ask("a", 5)
    world.ask("b", 5)
    world.refusal("a")
    world.ask("c")
    assert world.refusal("a"), "a was heard of after b"
    assert world.ask("b") == 1
