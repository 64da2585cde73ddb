"""The sum of many runs, and which transitions a run can reach."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.engine.states import FINAL, TABLE, Event, State
from verification.simulation.plan import SECOND
from verification.simulation.result import Result

_CREDIT_EVENTS: Final = frozenset(
    {
        Event.CREDIT_APPROVED,
        Event.CREDIT_REFUSED,
        Event.CREDIT_REFUSED_LAST,
        Event.CREDIT_NOT_FOUND,
        Event.CREDIT_REVERSED,
        Event.CREDIT_REVERSED_LAST,
    }
)
_REVERSED: Final = frozenset({Event.CREDIT_REVERSED, Event.CREDIT_REVERSED_LAST})
_DEBIT_EVENTS: Final = frozenset(
    {Event.DEBIT_APPROVED, Event.DEBIT_REFUSED, Event.DEBIT_NOT_FOUND, Event.DEBIT_REVERSED}
)
_CELLS: Final = frozenset((state, event) for state, row in TABLE.items() for event in row)


def _cells(states: set[State] | frozenset[State], events: set[Event] | frozenset[Event]) -> set[tuple[State, Event]]:
    return {(state, event) for state in states for event in events}


_DEBIT_OPEN: Final = {State.DEBITING, State.DEBIT_UNKNOWN}
_CAPTURE_OPEN: Final = {State.CAPTURING, State.CAPTURE_UNKNOWN}
_CREDIT_OPEN: Final = {State.CREDITING, State.CREDIT_UNKNOWN, State.CREDIT_REVERSING}
UNREACHABLE: Final[tuple[tuple[str, set[tuple[State, Event]]], ...]] = (
    ("no credit leg exists yet, so nothing can be said of one", _cells(_DEBIT_OPEN, _CREDIT_EVENTS)),
    (
        "the debit is the only leg, and a definite answer to it ends these states",
        _cells(_DEBIT_OPEN, {Event.DEBIT_REVERSED, Event.LATE_APPROVAL}),
    ),
    ("no credit leg exists yet, so nothing can be said of one", _cells(_CAPTURE_OPEN | {State.HELD}, _CREDIT_EVENTS)),
    (
        "a reversal of the hold ends these states at once, and nothing was given up before",
        _cells(_CAPTURE_OPEN | {State.HELD}, {Event.DEBIT_REVERSED, Event.LATE_APPROVAL}),
    ),
    (
        "the only leg is approved, and a payment at rest is in no book to be looked at",
        _cells({State.HELD}, (_DEBIT_EVENTS | {Event.OVERDUE, Event.EXHAUSTED, Event.DEADLINE})),
    ),
    (
        "only a hold at rest is captured, or found to have ended",
        _cells(set(State) - {State.HELD}, {Event.CAPTURE, Event.HOLD_EXPIRED}),
    ),
    (
        "a hold is approved once",
        _cells(set(State) - _DEBIT_OPEN - {State.REVERSING}, {Event.HOLD_APPROVED}),
    ),
    ("the debit's leg is approved and no more asked about", _cells(_CREDIT_OPEN, _DEBIT_EVENTS)),
    (
        "no reversal of the current credit was sent",
        _cells({State.CREDITING, State.CREDIT_UNKNOWN}, _REVERSED),
    ),
    ("no credit leg is open while the debit is reversed", _cells({State.REVERSING}, _CREDIT_EVENTS)),
    (
        "every leg was settled before the end; what comes later is a late approval or a duplicate",
        _cells(FINAL, _CREDIT_EVENTS | _DEBIT_EVENTS),
    ),
    ("a deadline is looked at before the end only", _cells(FINAL, {Event.DEADLINE})),
    ("a cancel of what is cancelled is answered at once", {(State.CANCELLED, Event.CANCEL)}),
)
"""Cells of the table that the core never looks up, whatever happens, and why; they are there so that the table is
total. A run that reaches one is a violation."""
REACHABLE: Final = _CELLS - frozenset().union(*(cells for _, cells in UNREACHABLE))


@dataclass(slots=True)
class Failure:
    """A seed that broke a rule."""

    seed: int
    rule: str
    text: str
    at_s: float


@dataclass(slots=True)
class Summary:
    """Runs added up."""

    seeds: int = 0
    payments: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    states: set[State] = field(default_factory=set)
    transitions: set[tuple[State, Event]] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)
    cpu_s: float = 0.0
    """Processor time of the runs."""

    def add(self, result: Result) -> None:
        """Adds one run."""
        self.seeds += 1
        self.payments += result.payments
        self.faults.update(result.faults)
        self.states |= result.states
        self.transitions |= result.transitions
        for violation in result.violations[:1]:
            self.failures.append(
                Failure(result.seed, violation.rule, violation.text, round(violation.at_us / SECOND, 6))
            )
        for state, event in result.transitions - REACHABLE:
            text = f"{state.name} met {event.name}, which is listed as unreachable"
            self.failures.append(Failure(result.seed, "transitions are those known", text, 0.0))

    def merge(self, other: Summary) -> None:
        """Adds the sum of other runs."""
        self.seeds += other.seeds
        self.payments += other.payments
        self.faults.update(other.faults)
        self.states |= other.states
        self.transitions |= other.transitions
        self.failures.extend(other.failures)
        self.cpu_s += other.cpu_s

    @property
    def unreached(self) -> list[str]:
        """Reachable transitions that no run took."""
        return sorted(f"{state.name} x {event.name}" for state, event in REACHABLE - self.transitions)

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {
            "seeds": self.seeds,
            "payments": self.payments,
            "faults": dict(sorted(self.faults.items())),
            "violations": [
                {"seed": failure.seed, "rule": failure.rule, "text": failure.text, "at_s": failure.at_s}
                for failure in sorted(self.failures, key=lambda failure: failure.seed)
            ],
            "coverage": {
                "states": [len(self.states), len(State)],
                "transitions": [len(self.transitions & REACHABLE), len(REACHABLE)],
                "unreached": self.unreached,
            },
        }
