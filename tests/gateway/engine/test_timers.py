"""Timers find what a scan of the whole book would find, in order, without scanning it each time."""

from __future__ import annotations

import random

import pytest

from gateway.engine.model import Kind, Payment
from gateway.engine.timers import AHEAD_US, Timers


def payment(number: int, due_us: int) -> Payment:
    made = Payment(number.to_bytes(16, "big"), Kind.PAYMENT, 1, "CNY", "issuer-a", ("acquirer-a",), 0, 0)
    made.due_us = due_us
    return made


def put(timers: Timers, one: Payment, due_us: int) -> None:
    """As the engine does whenever it plans a payment."""
    one.due_us = due_us
    if due_us < timers.horizon_us:
        timers.note(one)


@pytest.mark.parametrize("seed", range(5))
def test_what_is_taken_is_what_a_scan_finds(seed: int) -> None:
    rng, timers = random.Random(seed), Timers()
    book: dict[bytes, Payment] = {}
    now_us, taken_in_all = 0, 0
    for step in range(2000):
        now_us += rng.choice((1, 20_000, 20_000, AHEAD_US // 3))
        one = payment(step, 0)
        book[one.payment_id] = one
        put(timers, one, now_us + rng.choice((-5, 0, 10_000, AHEAD_US - 1, AHEAD_US, 5 * AHEAD_US)))
        if rng.random() < 0.5:  # one ends, one is put off, one falls due earlier
            book.pop(rng.choice(list(book)))
        for change_us in (AHEAD_US, -AHEAD_US):
            if book:
                other = book[rng.choice(list(book))]
                put(timers, other, max(0, other.due_us + change_us))
        overdue = sorted((one.due_us, key) for key, one in book.items() if one.due_us <= now_us)
        assert not overdue or timers.next_us() <= now_us
        taken = timers.take(book, now_us, at_most=3)
        assert [(one.due_us, one.payment_id) for one in taken] == overdue[:3]
        for one in taken:
            put(timers, one, now_us + rng.randrange(0, 3 * AHEAD_US))
        taken_in_all += len(taken)
    assert taken_in_all > 500


def test_nothing_is_done_for_what_is_due_later_than_the_scan_looked() -> None:
    timers = Timers()
    timers.take({}, 0, at_most=1)
    for number in range(100):
        put(timers, payment(number, 0), 5 * AHEAD_US)
    assert timers.next_us() == AHEAD_US
