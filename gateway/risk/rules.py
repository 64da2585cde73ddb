"""Rules as values: when each fires, what it adds, and which limits a payer has. Pure; made by `rule_file`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.risk.facts import Facts
from gateway.risk.zone import Zone

APPROVE: Final = "approve"
STEP_UP: Final = "step_up"
HOLD: Final = "hold"
DECLINE: Final = "decline"
ACTIONS: Final = (APPROVE, STEP_UP, HOLD, DECLINE)
"""From the mildest to the strictest."""
FINDINGS_MAX: Final = 4096
"""Most different findings cached for one rule set; beyond it the cache is cleared."""

Condition = Callable[[Facts], bool]
Subject = Callable[[Facts], str | bytes]


@dataclass(frozen=True, slots=True)
class Velocity:
    """More than so many payments, or more than so much, of one subject within a window."""

    per: str
    subject: Subject
    window_us: int
    payments: int = 0
    """Most payments in the window; 0: no limit."""
    amount_minor: int = 0
    """Most in the window, in minor units of the rule's currency; 0: no limit."""
    exact: bool = False
    """Whether it is decided in the commit, over all gateways on one journal, in windows that begin at multiples of
    their length."""


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """A rule. It fires when all its conditions hold and its velocity, if it has one, is exceeded."""

    name: str
    kinds: frozenset[int]
    """Kinds of payers' keys that the rule applies to."""
    conditions: tuple[Condition, ...] = ()
    """All must hold; the velocity is another question."""
    velocity: Velocity | None = None
    points: int = 0
    action: str = ""
    """Action that the rule demands whatever the score; empty: it only adds points."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The journal's record of a judgement: a text and its id."""

    risk_id: int
    """64 bits; negative if no rule fired, so that an index can leave it out."""
    text: str


@dataclass(frozen=True, slots=True)
class RuleSet:
    """A file of rules, read."""

    version: str
    """16 hexadecimal digits over the file's content."""
    zone: Zone
    fresh_us: int
    """How old a dynamic code may be; an older one is a screenshot."""
    hold_us: int
    """How long the operator has for a payment that rules hold, in microseconds; then it expires."""
    thresholds: Mapping[str, int]
    """Score from which an action is taken; an action without a threshold is taken only if a rule demands it."""
    limits: Mapping[tuple[str, str], int]
    """(tier, currency) -> minor units that a payer may spend in a day."""
    agreements: Mapping[tuple[bytes, str], int]
    """(account, currency) -> daily limit of tier A by agreement, in minor units."""
    rules: tuple[Rule, ...]
    by_kind: dict[int, tuple[Rule, ...]] = field(init=False, default_factory=dict)
    """Kind of the payer's key -> the rules that apply to it."""
    _findings: dict[tuple[object, ...], Finding] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        kinds = {kind for rule in self.rules for kind in rule.kinds}
        self.by_kind.update({kind: tuple(rule for rule in self.rules if kind in rule.kinds) for kind in kinds})

    def action_of(self, score: int, fired: tuple[Rule, ...]) -> str:
        """The strictest of the actions that rules demand and that the score reaches."""
        if not fired:
            return APPROVE
        wanted = {rule.action for rule in fired}
        wanted.update(action for action, least in self.thresholds.items() if score >= least)
        return next((action for action in reversed(ACTIONS) if action in wanted), APPROVE)

    def limit(self, tier: str, currency: str, account: bytes) -> int | None:
        """A payer's daily limit; None: no limit is set."""
        if tier == "A" and (account, currency) in self.agreements:
            return self.agreements[account, currency]
        return self.limits.get((tier, currency))

    def finding(self, tier: str, action: str, fired: tuple[Rule, ...]) -> Finding:
        """The record of a judgement; one object for all payments that are judged the same."""
        key = (tier, action, fired)
        found = self._findings.get(key)
        if found is None:
            if len(self._findings) >= FINDINGS_MAX:
                self._findings.clear()
            found = self._findings[key] = _finding(self.version, tier, action, fired)
        return found


def _finding(version: str, tier: str, action: str, fired: tuple[Rule, ...]) -> Finding:
    told = {
        "action": action,
        "score": sum(rule.points for rule in fired),
        "tier": tier,
        "rules": [[rule.name, rule.points, rule.action] for rule in fired],
        "version": version,
    }
    text = json.dumps(told, separators=(",", ":"), ensure_ascii=False)
    name = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1
    return Finding(name if fired else -name, text)
