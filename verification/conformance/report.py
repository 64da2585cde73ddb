"""What a run found, check by check."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any


class Verdict(enum.StrEnum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One check."""

    name: str
    rule: str
    """What is demanded, in one sentence."""
    verdict: Verdict
    findings: tuple[str, ...] = ()
    """What is wrong, or why it was skipped. Texts of the participant in them are not cleaned."""


@dataclass(slots=True)
class Report:
    """A whole run."""

    participant: str
    role: str
    outcomes: list[Outcome] = field(default_factory=list)
    legs: int = 0
    """Legs that were sent."""

    @property
    def conforms(self) -> bool:
        """Whether nothing failed."""
        return not self.failed

    @property
    def failed(self) -> list[Outcome]:
        """Checks that failed."""
        return [one for one in self.outcomes if one.verdict is Verdict.FAILED]

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "participant": self.participant,
            "role": self.role,
            "conforms": self.conforms,
            "legs": self.legs,
            "checks": [
                {"name": one.name, "rule": one.rule, "verdict": one.verdict.value, "findings": list(one.findings)}
                for one in self.outcomes
            ],
        }
