"""What one run of the simulator showed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from gateway.engine.states import Event, State
from verification.simulation.plan import Fate
from verification.simulation.witness import Violation


@dataclass(slots=True)
class Result:
    """What a run showed."""

    seed: int
    payments: int = 0
    violations: list[Violation] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    states: set[State] = field(default_factory=set)
    transitions: set[tuple[State, Event]] = field(default_factory=set)
    fates: dict[str, Fate] = field(default_factory=dict)
    digest: str = ""
    """Two runs that are the same have the same."""
    trace: list[str] = field(default_factory=list)
