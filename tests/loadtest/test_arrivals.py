"""Schedules of calls: the rate is kept, by day and after a change, and independent arrivals are independent."""

from __future__ import annotations

import numpy as np
import pytest

from loadtest.arrivals import Arrivals


def test_uniform_arrivals_are_evenly_spaced() -> None:
    arrivals = Arrivals(100.0, 5.0, pattern="uniform")
    assert arrivals.due(5.0401, 100) == pytest.approx([5.01, 5.02, 5.03, 5.04])
    assert arrivals.due(5.0401, 100) == []


def test_independent_arrivals_keep_the_rate_and_their_variance() -> None:
    times = np.array(Arrivals(1_000.0, 0.0, seed=3).due(60.0, 100_000))
    assert len(times) == pytest.approx(60_000, abs=4 * 60_000**0.5)
    gaps = np.diff(times)
    assert gaps.std() == pytest.approx(gaps.mean(), rel=0.02)
    assert np.corrcoef(gaps[:-1], gaps[1:])[0, 1] == pytest.approx(0.0, abs=0.02)


def test_what_was_not_taken_is_still_due() -> None:
    arrivals = Arrivals(10.0, 0.0, pattern="uniform")
    assert arrivals.due(1.05, 4) == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert arrivals.due(1.05, 100) == pytest.approx([0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


def test_a_new_rate_stretches_what_is_left_of_a_gap() -> None:
    arrivals = Arrivals(1.0, 0.0, pattern="uniform")
    arrivals.set_rate(10.0, 0.5)
    assert arrivals.due(0.8, 10) == pytest.approx([0.55, 0.65, 0.75])


def test_a_rate_of_nothing_is_never_due() -> None:
    arrivals = Arrivals(0.0, 0.0)
    assert arrivals.next_s == float("inf")
    assert arrivals.due(1e9, 10) == []
    with pytest.raises(ValueError, match="negative"):
        arrivals.set_rate(-1.0, 0.0)
