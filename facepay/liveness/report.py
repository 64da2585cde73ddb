"""Errors of presentation-attack detection as ISO/IEC 30107-3 counts them. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from facepay.liveness.judgement import LABEL, Judgement


@dataclass(frozen=True, slots=True)
class SpeciesErrors:
    """One attack species, or live faces."""

    species: str
    presentations: int
    errors: int
    """Attacks taken for live, or live faces taken for attacks."""
    non_responses: int

    @property
    def rate(self) -> float:
        """APCER of the species, or BPCER."""
        return self.errors / self.presentations if self.presentations else 0.0

    @property
    def upper_95(self) -> float:
        """Upper 95 % limit of the rate: 3 / n where there was no error, else Wilson's."""
        n = self.presentations
        if n == 0:
            return 1.0
        if self.errors == 0:
            return min(1.0, 3 / n)
        z, p = 1.96, self.rate
        return (p + z * z / (2 * n) + z * math.sqrt((p * (1 - p) + z * z / (4 * n)) / n)) / (1 + z * z / n)


def count(species: str, live: bool, judgements: Iterable[Judgement]) -> SpeciesErrors:
    """Counts one species; a non-response is no error of an attack, and one of a live face."""
    done = list(judgements)
    silent = sum(not one.responded for one in done)
    wrong = sum(one.live != live for one in done)
    return SpeciesErrors(species, len(done), wrong, silent)


def as_json(bona_fide: SpeciesErrors, attacks: list[SpeciesErrors]) -> dict[str, object]:
    """Each species apart; the worst counts."""
    worst = max(attacks, key=lambda one: one.rate) if attacks else None
    return {
        "label": LABEL,
        "bpcer": bona_fide.rate,
        "bpcer_upper_95": bona_fide.upper_95,
        "live_presentations": bona_fide.presentations,
        "live_non_responses": bona_fide.non_responses,
        "apcer": {one.species: one.rate for one in attacks},
        "apcer_upper_95": {one.species: one.upper_95 for one in attacks},
        "attack_presentations": {one.species: one.presentations for one in attacks},
        "attack_non_responses": {one.species: one.non_responses for one in attacks},
        "apcer_worst": {"species": worst.species, "rate": worst.rate} if worst else None,
    }
