"""Turns search results into decisions: thresholds that depend on the number enrolled, ambiguity, and factors by amount.
Pure."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from facepay.gallery.engine import Candidate
from facepay.score_model import ScoreModel

LAST_FOUR_VALUES: Final = 10_000
"""Of this many persons, one has the given last four digits."""


class Outcome(enum.Enum):
    """The outcome of a search."""

    MATCHED = "matched"
    NEEDS_PASSCODE = "needs_passcode"
    NEEDS_LAST_FOUR = "needs_last_four"
    AMBIGUOUS = "ambiguous"
    NO_MATCH = "no_match"
    NOT_LIVE = "not_live"
    BAD_CAPTURE = "bad_capture"


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules; one default each."""

    fpir: float = 1e-4
    """Highest share of searches for people who are not enrolled that may find somebody, before the passcode."""
    fpir_aim: float = 0.2
    """The threshold aims at this share of `fpir`: it is extrapolated beyond the data, and the limit has to be kept with
    confidence, not on average."""
    fmr_verify: float = 1e-6
    """Share of strangers that one comparison (1:1) may accept."""
    margin: float = 0.06
    """Cosine by which the best person must lead the second."""
    small_amount_minor: Mapping[str, int] = field(default_factory=lambda: {"CNY": 5_000})
    """Largest amount, for each currency, that a face pays alone; currencies not named: none."""
    floor_min: float = 0.15
    """No threshold is lower, however few are enrolled."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The thresholds for a number of enrolled persons."""

    alone: float
    """Cosine at which a face alone identifies a person."""
    last_four: float
    """The same if the last four digits are known."""
    enrolled: int


@dataclass(frozen=True, slots=True)
class Decision:
    """An outcome and the numbers behind it."""

    outcome: Outcome
    person: int = -1
    score: float = 0.0
    second: float = -1.0
    """Cosine of the second person; -1 where there is none."""
    threshold: float = 0.0
    enrolled: int = 0
    detail: str = ""


def thresholds(model: ScoreModel, enrolled: int, policy: Policy) -> Thresholds:
    """Thresholds for so many persons."""
    aim = policy.fpir * policy.fpir_aim
    alone = model.threshold(enrolled, aim)
    known = model.threshold(max(1, enrolled // LAST_FOUR_VALUES), aim)
    return Thresholds(max(alone, policy.floor_min), max(known, policy.floor_min), enrolled)


def decide(
    candidates: tuple[Candidate, ...], limits: Thresholds, policy: Policy, *, last_four_known: bool = False
) -> Decision:
    """Decides who it is, as far as the face alone allows. Candidates are best first, one per person."""
    threshold = limits.last_four if last_four_known else limits.alone
    first = candidates[0] if candidates else None
    second = candidates[1].score if len(candidates) > 1 else -1.0
    if first is None:
        return Decision(Outcome.NO_MATCH, threshold=threshold, enrolled=limits.enrolled)
    outcome = _outcome(first.score, second, limits, policy, last_four_known)
    person = first.person if outcome is Outcome.MATCHED else -1
    return Decision(outcome, person, first.score, second, threshold, limits.enrolled)


def _outcome(first: float, second: float, limits: Thresholds, policy: Policy, last_four_known: bool) -> Outcome:
    threshold = limits.last_four if last_four_known else limits.alone
    if first < limits.last_four:
        return Outcome.NO_MATCH
    if first < threshold:
        return Outcome.NEEDS_LAST_FOUR
    return Outcome.AMBIGUOUS if first - second < policy.margin else Outcome.MATCHED


def passcode_needed(amount_minor: int, currency: str, policy: Policy) -> bool:
    """Whether an amount is too large for a face alone."""
    return amount_minor > policy.small_amount_minor.get(currency, 0)
