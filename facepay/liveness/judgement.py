"""From cues to a decision. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

LABEL: Final = "simulation, uncertified"
CUES: Final = ("texture", "frequency", "specular", "moire", "motion", "challenge", "depth", "classifier")


@dataclass(frozen=True, slots=True)
class LivenessPolicy:
    """When a capture counts as live."""

    score_min: float = 0.5
    """Least mean of all cues."""
    cue_min: float = 0.15
    """No single cue may be lower: one that is sure of an attack decides."""
    cues_min: int = 3
    """Fewer cues are no answer (non-response, which is not live)."""
    frames_required: bool = False
    """Whether captures without frames are refused."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether it is live, and why not."""

    live: bool
    score: float
    """Mean of the cues, 0 to 1."""
    responded: bool
    """False where there were too few cues to say anything."""
    reason: str = ""
    cues: Mapping[str, float] = field(default_factory=dict)


def judge(cues: Mapping[str, float], policy: LivenessPolicy) -> Judgement:
    """Decides from cues; names that are not cues do not count."""
    known = {name: value for name, value in cues.items() if name in CUES and 0 <= value <= 1}
    if len(known) < policy.cues_min:
        return Judgement(False, 0.0, False, "too few cues", known)
    mean = sum(known.values()) / len(known)
    worst = min(known, key=lambda name: known[name])
    if known[worst] < policy.cue_min:
        return Judgement(False, mean, True, worst, known)
    if mean < policy.score_min:
        return Judgement(False, mean, True, "all cues together", known)
    return Judgement(True, mean, True, "", known)


def combine(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Two sources of cues: the lower one counts, so that neither can vouch for the other."""
    return {name: min(first.get(name, 1.0), second.get(name, 1.0)) for name in CUES if name in first or name in second}
