"""Finds the shortest run that still fails: removes entries of a failing plan, halves first, then one by one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

from verification.simulation.plan import Fate, Item, Plan
from verification.simulation.result import Result
from verification.simulation.run import Runner

RUNS_MAX: Final = 400
"""Runs spent on looking for a shorter one; each takes some hundredths of a second."""
_Entry = Item | tuple[str, Fate]


def shrink(
    plan: Plan,
    result: Result,
    *,
    runner: Runner | None = None,
    runs_max: int = RUNS_MAX,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[Plan, Result]:
    """The shortest plan found that breaks the same rule first, and its run with the trace."""
    runner = runner or Runner()
    rule = result.violations[0].rule
    entries: list[_Entry] = [*plan.items, *result.fates.items()]
    runs = 0
    size = max(1, len(entries) // 2)
    while runs < runs_max:
        shorter, at = False, 0
        while at < len(entries) and runs < runs_max:
            fewer = entries[:at] + entries[at + size :]
            runs += 1
            say(f"shortening: {len(entries)} entries, run {runs} of at most {runs_max}")
            violations = runner.play(_with(plan, fewer)).violations
            if violations and violations[0].rule == rule:
                entries, shorter = fewer, True
            else:
                at += size
        if size == 1 and not shorter:
            break
        size = max(1, size // 2)
    least = _with(plan, entries)
    return least, runner.play(least, trace=True)


def _with(plan: Plan, entries: list[_Entry]) -> Plan:
    items = tuple(entry for entry in entries if not isinstance(entry, tuple))
    return dataclasses.replace(plan, items=items, fates=dict(entry for entry in entries if isinstance(entry, tuple)))
