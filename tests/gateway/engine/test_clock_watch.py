"""Wall clocks that are set wrong, by seconds and by days, and put right again."""

from __future__ import annotations

import pytest

from gateway.engine.clock import Clock
from gateway.engine.clock_watch import AHEAD_US, BACK_US, ClockWatch, Reading, apart

SECOND = 1_000_000
DAY = 86_400 * SECOND
START = 1_790_000_000 * SECOND


class Machine:
    """A machine whose clock can be set, and a database's beside it."""

    def __init__(self, ahead_us: int = 0) -> None:
        self.true_us = 0
        self.ahead_us = ahead_us
        self.reference_ahead_us = 0
        self.clock = Clock(lambda: (START + self.true_us + self.ahead_us) * 1000, lambda: self.true_us * 1000)
        self.watch = ClockWatch(self.clock)

    @property
    def reading(self) -> Reading:
        wall_us = self.clock.wall_us()
        return Reading(wall_us, START + self.true_us + self.reference_ahead_us, wall_us + 1000)

    def look(self, seconds: float = 1, *, alone: bool = False, others: dict[int, int] | None = None) -> None:
        """Time passes, with a look in each second."""
        for _ in range(max(1, round(seconds))):
            self.true_us += SECOND
            self.watch.look(None if alone else self.reading, others)

    @property
    def off_us(self) -> int:
        """By how much the process's time is wrong."""
        return self.clock.now_us() - START - self.true_us


def test_nothing_is_wrong_with_a_right_clock() -> None:
    machine = Machine()
    machine.look(10)
    assert (machine.clock.wrong, machine.clock.settled, machine.clock.stepped_us) == ("", True, 0)


@pytest.mark.parametrize("days", [8, -8])
def test_a_clock_set_by_days_is_refused_until_it_is_right_and_never_followed(days: int) -> None:
    machine = Machine()
    machine.look()
    machine.ahead_us = days * DAY
    machine.look(10 * AHEAD_US / SECOND)
    assert machine.clock.wrong.startswith(
        f"this machine's clock is 8 d 0 h {'ahead of' if days > 0 else 'behind'} the database's"
    )
    assert not machine.clock.settled
    assert machine.off_us == 0  # meanwhile time goes on as it was
    machine.ahead_us = 0
    machine.look()
    assert (machine.clock.wrong, machine.clock.settled, machine.off_us) == ("", True, 0)


def test_two_seconds_are_the_bound() -> None:
    machine = Machine()
    machine.ahead_us = 1_900_000
    machine.look()
    assert machine.clock.wrong == ""
    machine.ahead_us = 2_100_000
    machine.look()
    assert machine.clock.wrong
    assert not machine.clock.settled


def test_a_process_that_began_with_a_wrong_clock_follows_its_correction_at_once() -> None:
    """The database did not move: so the clock that now agrees with it is right."""
    machine = Machine()
    machine.look()
    machine.clock.follow()
    machine.true_us += 5 * SECOND
    machine.ahead_us = -1_500_000  # within the bound when it began, beyond it with what follows
    machine.watch.look(machine.reading)
    machine.ahead_us = 1_500_000
    machine.look()
    assert machine.off_us == 1_500_000
    assert (machine.clock.wrong, machine.clock.settled) == ("", True)


def test_a_machine_and_its_database_set_ahead_together_are_believed_after_a_while() -> None:
    """One machine has both: nobody else can say what is right."""
    machine = Machine()
    machine.look()
    machine.ahead_us = machine.reference_ahead_us = 8 * DAY
    machine.look(60)
    assert (machine.clock.wrong, machine.clock.settled, machine.off_us) == ("", False, 0)
    machine.ahead_us = machine.reference_ahead_us = 0
    machine.look()
    assert machine.clock.settled
    machine.ahead_us = machine.reference_ahead_us = 8 * DAY
    machine.look(AHEAD_US / SECOND + 2)
    assert (machine.clock.settled, machine.off_us) == (True, 8 * DAY)


def test_alone_a_leap_ahead_must_stay_and_one_back_is_followed_soon() -> None:
    machine = Machine(ahead_us=8 * DAY)  # a gateway on a file begins with whatever clock it finds
    machine.look(5, alone=True)
    assert machine.off_us == 8 * DAY
    machine.ahead_us = 0
    machine.look(2, alone=True)
    assert (machine.clock.settled, machine.off_us) == (False, 8 * DAY)
    machine.look(BACK_US / SECOND, alone=True)
    assert (machine.clock.settled, machine.off_us, machine.clock.stepped_us) == (True, 0, -8 * DAY)
    machine.ahead_us = 8 * DAY
    machine.look(AHEAD_US / SECOND - 5, alone=True)
    assert (machine.clock.settled, machine.off_us) == (False, 0)
    machine.look(10, alone=True)
    assert (machine.clock.settled, machine.off_us) == (True, 8 * DAY)


def test_a_clock_that_jumps_about_is_not_followed() -> None:
    machine = Machine()
    for turn in range(30):
        machine.ahead_us = (turn % 2 + 1) * DAY
        machine.look(AHEAD_US / SECOND / 2, alone=True)
    assert (machine.clock.settled, machine.off_us) == (False, 0)


def test_neighbours_that_differ_keep_everything_from_being_ended() -> None:
    machine = Machine()
    machine.look(others={3: 8 * DAY})
    assert (machine.clock.wrong, machine.clock.settled) == ("", False)
    machine.look(others={3: 1_000_000})
    assert machine.clock.settled


def test_where_neighbours_agree_the_database_is_named() -> None:
    machine = Machine()
    machine.reference_ahead_us = -DAY
    machine.look(others={2: DAY, 5: DAY + SECOND, 7: 0})
    assert "as those of other gateways are (engines [2, 5]): look at the database's clock first" in machine.clock.wrong


def test_a_slow_answer_proves_nothing() -> None:
    assert Reading(0, 5 * SECOND, 10 * SECOND).off_us == 0
    assert Reading(0, -5 * SECOND, 10 * SECOND).off_us == 5 * SECOND
    assert Reading(0, 15 * SECOND, 10 * SECOND).off_us == -5 * SECOND


def test_words() -> None:
    assert apart(8 * DAY + 3 * 3600 * SECOND) == "8 d 3 h ahead of"
    assert apart(-3_700 * SECOND) == "1 h 2 min behind"
    assert apart(-2_400_000) == "2.4 s behind"
