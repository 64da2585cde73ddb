"""A file of rules, read strictly: every mistake is named with its line and what to write instead."""

from __future__ import annotations

import functools
import hashlib
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path as File
from typing import Any, Final

from gateway.risk.fields import Problems, Section
from gateway.risk.rule_fields import read_rule
from gateway.risk.rules import ACTIONS, APPROVE, Rule, RuleSet
from gateway.risk.tiers import TIERS
from gateway.risk.toml_lines import lines_of
from gateway.risk.zone import Zone
from hutong_contract.limits import HOLD_MAX_S

DEFAULT_FILE: Final = File(__file__).with_name("default.toml")
"""The rules in force if no file is given."""
_PLACE: Final = re.compile(r"line (\d+), column")
FILE_BYTES_MAX: Final = 4 * 1024 * 1024
RULES_MAX: Final = 500
ZONE_DEFAULT: Final = "UTC+8"
FRESH_S_DEFAULT: Final = 40
"""Default of how long a dynamic code counts as fresh, in seconds: a wallet draws a new code each 30 seconds; ten more
for the scanner and the way."""
FRESH_S_MAX: Final = 300
HOLD_HOURS_DEFAULT: Final = 24
SCORE_MAX: Final = 1_000


class RulesError(Exception):
    """A file of rules that cannot be used. `problems` are sentences, each with its line."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


@functools.cache
def default_rules() -> RuleSet:
    """The package's own rules."""
    return read_rules(DEFAULT_FILE)


def read_rules(path: File) -> RuleSet:
    """Reads a file. Raises RulesError."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise RulesError([f"{path} is larger than {FILE_BYTES_MAX} bytes; split its lists or drop old entries"])
        content = path.read_bytes()
    except OSError as error:
        raise RulesError([f"{path} cannot be read: {error.strerror}"]) from error
    return parse_rules(content, str(path))


def parse_rules(content: bytes, name: str) -> RuleSet:
    """Parses a file's content. `name` stands in messages. Raises RulesError."""
    try:
        text = content.decode("utf-8")
        tree = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise RulesError([f"{name} is not UTF-8 (byte {error.start}); save it as UTF-8"]) from None
    except tomllib.TOMLDecodeError as error:
        raise RulesError([_not_toml(name, content, str(error))]) from None
    problems = Problems(name, lines_of(text))
    rules = _read(Section(tree, (), problems), hashlib.blake2b(content, digest_size=8).hexdigest())
    if problems.found:
        raise RulesError(problems.found)
    return rules


def _not_toml(name: str, content: bytes, said: str) -> str:
    """The standard library's message, with the line in front as in every other message."""
    what, _, where = said.rpartition(" (at ")
    place = _PLACE.match(where)
    line = place[1] if place is not None else str(len(content.splitlines()))
    return f"{name}, line {line}: is not TOML: {what or said}"


def _read(root: Section, version: str) -> RuleSet:
    root.allow("version", "zone", "codes", "hold", "limits", "agreement", "score", "rule")
    if root.integer("version", 1, 1) is None and not root.has("version"):
        root.problem("version", "is missing; write version = 1 at the top")
    zone = _zone(root)
    codes = root.table("codes")
    codes.allow("fresh_seconds")
    fresh_s = codes.integer("fresh_seconds", 1, FRESH_S_MAX) or FRESH_S_DEFAULT
    hold = root.table("hold")
    hold.allow("hours")
    hold_hours = hold.integer("hours", 1, HOLD_MAX_S // 3600) or HOLD_HOURS_DEFAULT
    return RuleSet(
        version,
        zone,
        fresh_s * 1_000_000,
        hold_hours * 3_600_000_000,
        _thresholds(root.table("score")),
        _limits(root.table("limits")),
        _agreements(root),
        _rules(root, zone),
    )


def _zone(root: Section) -> Zone:
    name = root.text("zone") or ZONE_DEFAULT
    try:
        return Zone(name)
    except ValueError as error:
        root.problem("zone", str(error))
        return Zone(ZONE_DEFAULT)


def _thresholds(table: Section) -> Mapping[str, int]:
    actions = ACTIONS[ACTIONS.index(APPROVE) + 1 :]
    table.allow(*actions)
    found = {action: table.integer(action, 1, SCORE_MAX) for action in actions}
    given = {action: least for action, least in found.items() if least is not None}
    if list(given.values()) != sorted(given.values()):
        table.problem("", "must rise from step_up through hold to decline: a stricter action needs a higher score")
    return given


def _limits(table: Section) -> Mapping[tuple[str, str], int]:
    limits: dict[tuple[str, str], int] = {}
    for currency in table.names():
        if not table.is_currency(currency):
            continue
        tiers = table.table(currency)
        tiers.allow(*TIERS)
        for tier in TIERS:
            most = tiers.amount(tier)
            if most is not None:
                limits[tier, currency] = most
    return limits


def _agreements(root: Section) -> Mapping[tuple[bytes, str], int]:
    agreements: dict[tuple[bytes, str], int] = {}
    for one in root.tables("agreement", RULES_MAX):
        one.allow("account", "currency", "day_minor")
        account = one.reference("account", required=True)
        currency = one.currency("currency")
        most = one.amount("day_minor", required=True)
        if account is None or most is None:
            continue
        if (account, currency) in agreements:
            one.problem("account", f"has an agreement in {currency} already; keep one of them")
        agreements[account, currency] = most
    return agreements


def _rules(root: Section, zone: Zone) -> tuple[Rule, ...]:
    rules: list[Rule] = []
    names: set[str] = set()
    for section in root.tables("rule", RULES_MAX):
        rule = read_rule(section, names, zone)
        if rule is not None:
            names.add(rule.name)
            rules.append(rule)
    return tuple(rules)


def describe(rules: RuleSet) -> dict[str, Any]:
    """A summary of a rule set, for people."""
    return {
        "version": rules.version,
        "zone": rules.zone.name,
        "rules": [rule.name for rule in rules.rules],
        "limits": {f"{currency} {tier}": most for (tier, currency), most in rules.limits.items()},
        "agreements": len(rules.agreements),
        "score": dict(rules.thresholds),
    }
