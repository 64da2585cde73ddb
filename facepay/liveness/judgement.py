"""From cues to a decision: for each attack species, the cues that can see it are weighed against each other. Pure.

A cue is a number from 0 (attack) to 1 (live) that looks at one thing, and each species of attack shows in some cues
only: a mask moves and has depth, but no pores; a screen has a grid. So there is one sum for each species, of the log
odds of the cues that can see it, and a capture is live where no species' sum lies below the operating point. One cue
that errs is outvoted by others that look at the same species; nobody is refused, or let through, by what cannot see
the attack.

Operating point: a species' sum of at least -1.0 (see `LivenessPolicy`). What it gives on the data at hand is printed by
`hutong face liveness --simulate N`, and stated in docs/faces.md. It is a simulation, uncertified.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

LABEL: Final = "simulation, uncertified"
CUES: Final = ("texture", "frequency", "specular", "moire", "motion", "challenge", "depth", "classifier")
SPECIES: Final[Mapping[str, Mapping[str, float]]] = {
    "print": {"frequency": 1.2, "motion": 1.0, "challenge": 0.5, "depth": 3.0, "classifier": 1.0},
    "screen": {"frequency": 1.2, "moire": 1.0, "specular": 0.6, "challenge": 0.5, "depth": 3.0, "classifier": 1.0},
    "mask": {"texture": 0.6, "specular": 0.6, "classifier": 1.0},
    "replay": {"frequency": 1.2, "moire": 0.5, "challenge": 1.0, "depth": 3.0, "classifier": 1.0},
    "injection": {"motion": 1.0, "challenge": 1.0, "depth": 0.5},
}
"""Attack species -> what the cues that can see it weigh. A flat depth map outweighs all other cues together; skin in
photographs is often smoother than the texture cue expects, which therefore decides nothing alone."""
ATTACK_MAX: Final = 3.0
"""Most that one cue says for an attack, in log odds: a score of 0.05. Curves are steeper than what is known of them."""
LIFE_MAX: Final = 2.0
"""Most that one cue says for life, in log odds: a score of 0.88. What shows no trace of an attack proves less than a
trace does."""
SHOWN_MAX: Final = 3
"""Cues named in a refusal."""


@dataclass(frozen=True, slots=True)
class LivenessPolicy:
    """When a capture counts as live."""

    evidence_min: float = -1.0
    """The operating point, in weighed log odds: least sum of a species' cues. Lower lets more attacks through and
    refuses fewer people; an undecided cue adds 0."""
    cues_min: int = 3
    """Fewer cues are no answer (non-response, which is not live)."""
    frames_required: bool = False
    """Whether captures without frames are refused."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """Whether it is live, and why not."""

    live: bool
    score: float
    """How far it is from the likeliest attack, 0 (surely that attack) to 1; 0.5 is an even balance."""
    responded: bool
    """False where there were too few cues to say anything."""
    reason: str = ""
    """Of a refusal, for an operator: the species it looks like, the cues that say so, and those that speak against."""
    cues: Mapping[str, float] = field(default_factory=dict)
    species: Mapping[str, float] = field(default_factory=dict)
    """Sum of weighed log odds for each species that some cue could see; positive speaks for life."""


def evidence(score: float) -> float:
    """The log odds of a cue, bounded."""
    odds = math.log(max(score, 1e-9) / max(1 - score, 1e-9))
    return max(-ATTACK_MAX, min(LIFE_MAX, odds))


def judge(cues: Mapping[str, float], policy: LivenessPolicy) -> Judgement:
    """Decides from cues; names that are not cues do not count."""
    known = {name: value for name, value in cues.items() if name in CUES and 0 <= value <= 1}
    if len(known) < policy.cues_min:
        reason = f"too few cues: {len(known)} of at least {policy.cues_min}"
        return Judgement(False, 0.0, False, reason, known)
    sums = {
        species: sum(weight * evidence(known[name]) for name, weight in weights.items() if name in known)
        for species, weights in SPECIES.items()
        if not weights.keys().isdisjoint(known)
    }
    likeliest = min(sums, key=lambda one: sums[one])
    live = sums[likeliest] >= policy.evidence_min
    score = 1 / (1 + math.exp(-sums[likeliest]))
    return Judgement(live, score, True, "" if live else _explained(likeliest, known), known, sums)


def _explained(species: str, known: Mapping[str, float]) -> str:
    """Such as "like a mask: texture 0.01, specular 0.05, against classifier 0.62"."""
    weights = SPECIES[species]
    parts = {name: weights[name] * evidence(known[name]) for name in weights if name in known}
    ordered = sorted(parts, key=lambda name: parts[name])

    def shown(names: list[str]) -> str:
        return ", ".join(f"{name} {known[name]:.2f}" for name in names[:SHOWN_MAX])

    said = f"like {'an' if species == 'injection' else 'a'} {species}: {shown([n for n in ordered if parts[n] < 0])}"
    against = [name for name in reversed(ordered) if parts[name] > 0]
    return f"{said}, against {shown(against)}" if against else said


def combine(first: Mapping[str, float], second: Mapping[str, float]) -> dict[str, float]:
    """Two sources of cues: the lower one counts, so that neither can vouch for the other."""
    return {name: min(first.get(name, 1.0), second.get(name, 1.0)) for name in CUES if name in first or name in second}
