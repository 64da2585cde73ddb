"""The result of one run of the simulator."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from gateway.engine.states import Event, State
from verification.simulation.plan import Fate
from verification.simulation.witness import Violation


@dataclass(slots=True)
class Result:
    """The result of a run."""

    seed: int
    payments: int = 0
    violations: list[Violation] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    states: set[State] = field(default_factory=set)
    transitions: set[tuple[State, Event]] = field(default_factory=set)
    fates: dict[str, Fate] = field(default_factory=dict)
    digest: str = ""
    """A digest that is the same for equal runs."""
    trace: list[str] = field(default_factory=list)
