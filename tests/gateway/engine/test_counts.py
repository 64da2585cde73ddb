"""Observations of participants are told in sums, and none is lost or comes after one that it preceded."""

from __future__ import annotations

from gateway.engine.counts import together


def test_answers_in_time_are_told_together_up_to_one_that_was_not() -> None:
    seen = [("a", True, 10), ("b", True, 7), ("a", True, 20), ("a", False, 500), ("a", True, 30), ("b", True, 8)]
    assert list(together(seen)) == [("a", True, 15, 2), ("a", False, 500, 1), ("b", True, 7, 2), ("a", True, 30, 1)]
    assert list(together([])) == []
