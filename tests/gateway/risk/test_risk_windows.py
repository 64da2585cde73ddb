"""Windows: what slides out, what is forgotten, what is taken back; and days in a zone."""

from __future__ import annotations

import random

import pytest

from gateway.risk.windows import SLICES, Subject, Windows
from gateway.risk.zone import Zone

SECOND = 1_000_000
MINUTE = 64 * SECOND
"""A window whose slices are whole seconds."""
WHO: Subject = ("rule", MINUTE, b"payer")
START = 1_790_000_000 * SECOND // MINUTE * MINUTE
HOUR = 3600 * SECOND


def test_a_payment_counts_for_the_window_and_not_longer() -> None:
    windows = Windows()
    windows.add(WHO, START, 500)
    for after_s, seen in ((0, (1, 500)), (1, (1, 500)), (63, (1, 500)), (64, (0, 0)), (1000, (0, 0))):
        assert windows.look(WHO, START + after_s * SECOND) == seen


def test_slices_leave_one_by_one() -> None:
    windows = Windows()
    for second in range(100):
        windows.add(WHO, START + second * SECOND, 1)
    assert windows.look(WHO, START + 99 * SECOND) == (SLICES, SLICES)
    assert windows.look(WHO, START + 130 * SECOND) == (33, 33)


def test_a_clock_that_goes_back_counts_in_the_newest_slice() -> None:
    windows = Windows()
    windows.add(WHO, START + 10 * SECOND, 1)
    windows.add(WHO, START, 1)
    assert windows.look(WHO, START + 10 * SECOND) == (2, 2)


def test_what_is_taken_back_does_not_count() -> None:
    windows = Windows()
    windows.add(WHO, START, 300)
    windows.add(WHO, START, 200)
    windows.take_back(WHO, 200)
    assert windows.look(WHO, START) == (1, 300)
    windows.take_back(("rule", MINUTE, b"stranger"), 1)


def test_memory_is_bounded_and_forgets_who_was_longest_silent() -> None:
    windows = Windows(subjects_max=3)
    subjects: list[Subject] = [("rule", MINUTE, str(number)) for number in range(4)]
    for subject in subjects[:3]:
        windows.add(subject, START, 1)
    windows.add(subjects[0], START, 1)
    windows.add(subjects[3], START, 1)
    assert len(windows) == 3
    assert [windows.look(subject, START)[0] for subject in subjects] == [2, 0, 1, 1]


@pytest.mark.parametrize(
    ("zone", "utc_hour", "day", "hour"),
    [
        ("UTC+8", 15, 0, 23),
        ("UTC+8", 16, 1, 0),
        ("UTC-03:30", 3, -1, 23),
        ("UTC+0", 23, 0, 23),
        ("Asia/Shanghai", 16, 1, 0),
        ("America/New_York", 4, -1, 23),  # in winter five hours behind
    ],
)
def test_days_begin_at_midnight_of_the_zone(zone: str, utc_hour: int, day: int, hour: int) -> None:
    midnight_utc = 20_454 * 24 * HOUR  # 2026-01-01
    local = Zone(zone).local_us(midnight_utc + utc_hour * HOUR)
    assert (local // (24 * HOUR) - 20_454, local // HOUR % 24) == (day, hour)


def test_a_zone_follows_summer_time() -> None:
    """2026-03-29 01:00 UTC: Berlin goes from UTC+1 to UTC+2; asked in any order."""
    zone, change = Zone("Europe/Berlin"), 1_774_746_000 * SECOND
    for moment, offset in ((change, 2), (change - 1, 1), (change + HOUR, 2), (change - HOUR, 1)):
        assert zone.local_us(moment) - moment == offset * HOUR


@pytest.mark.parametrize("name", ["UTC+15", "UTC8", "Mars/Olympus", "", "../../etc/passwd", "UTC+8:99"])
def test_no_such_zone(name: str) -> None:
    with pytest.raises(ValueError, match=r"zone|place on earth"):
        Zone(name)


def test_what_is_seen_is_what_the_slices_of_the_window_hold() -> None:
    """Payments at random moments against a plain list of them."""
    rng = random.Random(7)
    windows, now_us = Windows(), START
    made: list[tuple[int, int]] = []
    for _ in range(2_000):
        now_us += rng.choice((0, 1, SECOND - 1, SECOND, rng.randrange(3 * SECOND), rng.randrange(2 * MINUTE)))
        first = now_us * SLICES // MINUTE - SLICES + 1
        made = [one for one in made if one[0] * SLICES // MINUTE >= first]
        inside = [amount for _, amount in made]
        assert windows.look(WHO, now_us) == (len(inside), sum(inside))
        amount = rng.randrange(1, 100)
        windows.count([WHO], now_us, amount)
        made.append((now_us, amount))


@pytest.mark.parametrize("name", ["UTC+8", "UTC-03:30", "Europe/Berlin", "Australia/Lord_Howe"])
def test_a_day_is_the_local_one_also_where_clocks_are_turned(name: str) -> None:
    rng = random.Random(11)
    zone, plain = Zone(name), Zone(name)
    now_us = 1_790_000_000 * SECOND
    for _ in range(20_000):
        now_us += rng.choice((1, rng.randrange(HOUR), rng.randrange(24 * HOUR), -rng.randrange(48 * HOUR)))
        assert zone.day(now_us) == plain.local_us(now_us) // (24 * HOUR)
