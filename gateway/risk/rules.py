"""Rules as values: what fires, what that adds, and which limits a payer has. Pure; made by `rule_file`."""

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
"""Mildest first."""
FINDINGS_MAX: Final = 4096
"""Different texts remembered of one rule set; beyond it they are made anew."""

Condition = Callable[[Facts], bool]
Subject = Callable[[Facts], str | bytes]


@dataclass(frozen=True, slots=True)
class Velocity:
    """More than so many payments, or more than so much, of one subject within a window."""

    per: str
    subject: Subject
    window_us: int
    payments: int = 0
    """Most payments in the window; 0: any number."""
    amount_minor: int = 0
    """Most in the window, minor units of the rule's currency; 0: any sum."""
    exact: bool = False
    """Decided in the commit, over all gateways on one journal, in windows that begin at multiples of their length."""


@dataclass(frozen=True, slots=True, eq=False)
class Rule:
    """Fires when all its conditions hold, and its velocity, where it has one, is exceeded."""

    name: str
    kinds: frozenset[int]
    """Kinds of payer's keys that it is asked about."""
    conditions: tuple[Condition, ...] = ()
    """All must hold; the velocity is another question."""
    velocity: Velocity | None = None
    points: int = 0
    action: str = ""
    """What it demands by itself, whatever the score; empty: only its points count."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What the journal keeps of a judgement: a text, and its name."""

    risk_id: int
    """64 bits; negative where no rule fired, so that an index need not hold it."""
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
    """How long the operator has for a payment that rules hold; then it expires."""
    thresholds: Mapping[str, int]
    """Score from which an action is taken; actions without one are taken only where a rule demands them."""
    limits: Mapping[tuple[str, str], int]
    """(tier, currency) -> minor units that a payer may spend in a day."""
    agreements: Mapping[tuple[bytes, str], int]
    """(account, currency) -> the same for tier A by agreement."""
    rules: tuple[Rule, ...]
    by_kind: dict[int, tuple[Rule, ...]] = field(init=False, default_factory=dict)
    """Kind of the payer's key -> the rules that are asked about it."""
    _findings: dict[tuple[object, ...], Finding] = field(init=False, default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        kinds = {kind for rule in self.rules for kind in rule.kinds}
        self.by_kind.update({kind: tuple(rule for rule in self.rules if kind in rule.kinds) for kind in kinds})

    def action_of(self, score: int, fired: tuple[Rule, ...]) -> str:
        """The strictest of what rules demand and what the score asks for."""
        if not fired:
            return APPROVE
        wanted = {rule.action for rule in fired}
        wanted.update(action for action, least in self.thresholds.items() if score >= least)
        return next((action for action in reversed(ACTIONS) if action in wanted), APPROVE)

    def limit(self, tier: str, currency: str, account: bytes) -> int | None:
        """What a payer may spend in a day; None: no limit is set here."""
        if tier == "A" and (account, currency) in self.agreements:
            return self.agreements[account, currency]
        return self.limits.get((tier, currency))

    def finding(self, tier: str, action: str, fired: tuple[Rule, ...]) -> Finding:
        """The text of a judgement; the same for all payments that are judged the same."""
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
