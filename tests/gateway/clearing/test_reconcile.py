"""How a participant's lines differ from what was settled: the table of kinds, in any order, whatever the number."""

from __future__ import annotations

import pytest

from gateway.clearing.reconcile import DifferenceKind as Kind
from gateway.clearing.reconcile import Ours, Reconciliation, judge
from gateway.clearing.theirs import Line

KEY = bytes(15) + b"\x07"
OURS = Ours(KEY, 3, "CNY", -500)


def line(amount: int, number: int = 1, kind: str = "debit", currency: str = "CNY", window: int | None = None) -> Line:
    return Line(KEY + bytes([number]), kind, currency, amount, "", window)


CASES: list[tuple[list[Line], Kind | None]] = [
    ([line(-500)], None),
    ([line(-500, window=3)], None),
    ([line(-500), line(500, 3, "reversal"), line(-500, 4)], None),
    ([line(-200), line(-300, 2)], None),
    ([], Kind.MISSING_THERE),
    ([line(-500), line(500, 3, "reversal")], Kind.REVERSED_THERE),
    ([line(-500), line(500, 2)], Kind.MISSING_THERE),
    ([line(500)], Kind.SIGN),
    ([line(-499)], Kind.AMOUNT),
    ([line(-1000)], Kind.AMOUNT),
    ([line(-500, currency="EUR")], Kind.CURRENCY),
    ([line(-500), line(-1, 2, currency="EUR")], Kind.CURRENCY),
    ([line(-500), line(-500)], Kind.DUPLICATE),
    ([line(-500), line(-500, 2)], Kind.DUPLICATE),
    ([line(-500), line(-500, 2), line(-500, 3)], Kind.DUPLICATE),
    ([line(-500, window=2)], Kind.TIMING),
]


@pytest.mark.parametrize(("lines", "kind"), CASES)
def test_each_kind(lines: list[Line], kind: Kind | None) -> None:
    assert judge(OURS, lines) is kind


def test_what_no_window_holds() -> None:
    """Unknown here, still pending, or claimed for a window although it is pending."""
    strays = [
        Line(bytes([number]) * 17, "debit", "CNY", -1, "", window) for number, window in ((1, None), (2, None), (3, 3))
    ]
    undone = [Line(bytes(16) + b"\x01", "debit", "CNY", -9, ""), Line(bytes(16) + b"\x03", "reversal", "CNY", 9, "")]
    with Reconciliation() as sides:
        sides.take_theirs([*strays, *undone])
        result = sides.compare(lambda payment_id: payment_id[0] > 1)
    assert [(one.kind, one.payment_id[0]) for one in result.differences] == [(Kind.MISSING_HERE, 1), (Kind.TIMING, 3)]
    assert (result.pending, result.agreed, result.theirs) == (1, 0, 5)


def test_many_in_any_order_and_again_the_same() -> None:
    ours = [Ours(number.to_bytes(16, "big"), 1, "CNY", 5) for number in range(1, 12_001)]
    lines = [Line(one.payment_id + b"\x02", "credit", "CNY", 5, "") for one in reversed(ours)]
    del lines[100]
    found = []
    for _ in range(2):
        with Reconciliation() as sides:
            sides.take_theirs(iter(lines))
            sides.take_ours(iter(ours))
            found.append(sides.compare(lambda _: False))
    assert found[0] == found[1]
    assert found[0].counts == {Kind.MISSING_THERE: 1}
    assert found[0].agreed == 11_999
