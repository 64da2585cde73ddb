"""How a simulated participant behaves: its latency and its faults, as values that can be swapped while it runs."""

from __future__ import annotations

import enum
import math
import random
from dataclasses import dataclass
from typing import Final

from hutong.participant.v1 import participant_pb2 as pb

DELAY_STEP_US: Final = 1_000
"""Delays are rounded down to this, so that answers that leave together still share frames."""
DELAY_MAX_US: Final = 60_000_000
"""No answer is held back longer than this."""
MONEY_KINDS: Final = frozenset(
    {
        pb.LEG_KIND_DEBIT,
        pb.LEG_KIND_CREDIT,
        pb.LEG_KIND_REFUND,
        pb.LEG_KIND_AUTHORISATION,
        pb.LEG_KIND_CAPTURE,
    }
)
"""Leg kinds that faults apply to unless a script says otherwise: inquiries and reversals work, so all is settled."""


class Behaviour(enum.Enum):
    """What happens to one leg."""

    NORMAL = "normal"
    """Done and answered."""
    DECLINE = "decline"
    """Not done, and declined with a code."""
    LOSE_REQUEST = "lose_request"
    """Lost on the way there: not done, not recorded, not answered."""
    LOSE_ANSWER = "lose_answer"
    """Done, but the answer is lost on the way back."""
    LATE = "late"
    """Done at once, and answered after `late_us`."""
    DUPLICATE = "duplicate"
    """Done once, and answered twice."""
    GARBAGE = "garbage"
    """Done, but answered with nonsense: an unspecified result, and an approval of a leg that does not exist."""


@dataclass(frozen=True, slots=True)
class Plan:
    """A behaviour with what it needs."""

    behaviour: Behaviour
    code: str = "05"
    """Response code of a DECLINE."""
    late_us: int = 0
    """Delay of a LATE answer, added to the latency."""


NORMAL: Final = Plan(Behaviour.NORMAL)


@dataclass(frozen=True, slots=True)
class Latency:
    """A log-normal distribution of the time from a leg to its answer; the default answers at once."""

    median_us: int = 0
    sigma: float = 0.0
    """Standard deviation of the logarithm: 0 is constant, 0.5 gives a p99 of about three times the median."""

    def draw_us(self, rng: random.Random) -> int:
        """One delay, in whole steps, bounded by DELAY_MAX_US."""
        if not self.median_us:
            return 0
        delay = self.median_us * math.exp(rng.gauss(0.0, self.sigma)) if self.sigma else self.median_us
        return min(int(delay), DELAY_MAX_US) // DELAY_STEP_US * DELAY_STEP_US


@dataclass(frozen=True, slots=True)
class Script:
    """What a participant does with the legs of `kinds`. The probabilities belong to one draw and sum to at most 1."""

    latency: Latency = Latency()
    decline: float = 0.0
    lose_request: float = 0.0
    lose_answer: float = 0.0
    late: float = 0.0
    duplicate: float = 0.0
    garbage: float = 0.0
    decline_code: str = "05"
    late_us: int = 3_000_000
    kinds: frozenset[int] = MONEY_KINDS
    """Leg kinds that the faults apply to."""
    down: bool = False
    """Whether it cannot be reached: the link reports every leg as not sent."""

    def __post_init__(self) -> None:
        chances = [chance for chance, _ in self._chances()]
        if min(chances) < 0 or sum(chances) > 1 + 1e-9:
            raise ValueError("the probabilities of a script are not negative and sum to at most 1")

    @property
    def faultless(self) -> bool:
        """Whether no leg can be drawn a fault."""
        return not any(chance for chance, _ in self._chances())

    def draw(self, kind: int, rng: random.Random) -> Plan:
        """The plan for one leg of this kind."""
        if kind not in self.kinds:
            return NORMAL
        at = rng.random()
        for chance, behaviour in self._chances():
            if at < chance:
                return Plan(behaviour, code=self.decline_code, late_us=self.late_us)
            at -= chance
        return NORMAL

    def _chances(self) -> tuple[tuple[float, Behaviour], ...]:
        return (
            (self.decline, Behaviour.DECLINE),
            (self.lose_request, Behaviour.LOSE_REQUEST),
            (self.lose_answer, Behaviour.LOSE_ANSWER),
            (self.late, Behaviour.LATE),
            (self.duplicate, Behaviour.DUPLICATE),
            (self.garbage, Behaviour.GARBAGE),
        )
