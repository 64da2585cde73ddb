"""Latencies in buckets: three digits are kept, sums of parts are the whole, and another library reads the same."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loadtest.histogram import NAMES, VALUE_MAX_US, Histogram

hdrh = pytest.importorskip("hdrh.histogram", reason="the extra `load` is not installed")

LATENCIES_US = st.lists(st.integers(1, VALUE_MAX_US), min_size=1, max_size=200)


def histogram(values_us: list[int]) -> Histogram:
    made = Histogram()
    made.record_all(value / 1e6 for value in values_us)
    return made


@settings(deadline=None)
@given(LATENCIES_US)
def test_buckets_are_those_of_hdrhistogram(values_us: list[int]) -> None:
    theirs = hdrh.HdrHistogram(1, VALUE_MAX_US, 3)
    for value in values_us:
        theirs.record_value(value)
    ours = histogram(values_us)
    assert ours.count == theirs.total_count
    for percent in NAMES.values():
        exact = sorted(values_us)[math.ceil(len(values_us) * percent / 100 - 1e-9) - 1]
        expected = min(theirs.get_highest_equivalent_value(exact), max(values_us))
        assert ours.percentile_ms(percent) * 1e3 == pytest.approx(expected, abs=0.5)
    assert list(ours.to_hdrh().counts) == list(theirs.counts)


@settings(deadline=None)
@given(LATENCIES_US, LATENCIES_US)
def test_the_sum_of_two_is_all_of_both(some: list[int], others: list[int]) -> None:
    one = histogram(some)
    one.add(histogram(others))
    whole = histogram(some + others)
    assert one.buckets() == whole.buckets()
    assert one.max_ms == whole.max_ms
    assert one.mean_ms == pytest.approx(whole.mean_ms)


def test_a_histogram_travels_between_processes() -> None:
    one = histogram([5, 1_234, 77_000_000])
    one.record(0.001)
    there = pickle.loads(pickle.dumps(one))
    assert there.buckets() == one.buckets()
    assert there.percentiles_ms() == one.percentiles_ms()


def test_three_digits_are_kept() -> None:
    rng = np.random.default_rng(7)
    values_us = np.rint(rng.lognormal(8.0, 1.5, 20_000)).astype(int) + 1
    ours = histogram(values_us.tolist())
    for percent in (50.0, 99.0, 99.9):
        exact = np.sort(values_us)[round(len(values_us) * percent / 100) - 1]
        assert ours.percentile_ms(percent) * 1e3 == pytest.approx(exact, rel=1e-3)


def test_nothing_has_no_percentiles() -> None:
    empty = Histogram()
    assert (empty.count, empty.percentiles_ms(), empty.mean_ms, empty.max_ms) == (0, {}, 0.0, 0.0)
