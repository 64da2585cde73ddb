"""One [[rule]] of the file: its conditions, its velocity and its action."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from gateway.risk.facts import Facts
from gateway.risk.fields import Section
from gateway.risk.rules import DECLINE, HOLD, STEP_UP, Condition, Rule, Subject, Velocity
from gateway.risk.tiers import TIERS
from gateway.risk.zone import DAY_US, Zone
from hutong.gateway.v1 import payment_pb2 as pb

KINDS: Final = {
    "payment_code": pb.KEY_KIND_PAYMENT_CODE,
    "consumer_code": pb.KEY_KIND_CONSUMER_CODE,
    "token": pb.KEY_KIND_TOKEN,
    "face": pb.KEY_KIND_FACE,
    "transit": pb.KEY_KIND_TRANSIT,
}
SUBJECTS: Final[dict[str, Subject]] = {
    "payer": lambda facts: facts.account,
    "key": lambda facts: facts.key,
    "merchant": lambda facts: facts.merchant,
    "terminal": lambda facts: f"{facts.merchant} {facts.terminal}",
    "caller": lambda facts: facts.caller,
}
WINDOW_S_MAX: Final = 90 * 86_400
PAYMENTS_MAX: Final = 1_000_000
POINTS_MAX: Final = 1_000
AGE_HOURS_MAX: Final = 24 * 366
KEY_PREFIX_HEX_MIN: Final = 6
"""Fewest digits of a prefix of a key's reference; a shorter prefix would match strangers by chance."""
MINUTE_US: Final = 60_000_000
HOUR_US: Final = 3_600_000_000
_TIME: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")


def read_rule(section: Section, names: set[str], zone: Zone) -> Rule | None:
    """Reads one rule; None if it has no name of its own."""
    section.allow(*_FIELDS)
    name = section.text("name")
    if name is None or name in names:
        if not section.has("name"):
            section.problem("", 'needs a name: name = "many payments"')
        elif name is not None:
            section.problem("name", f"{name!r} is another rule's; names must differ")
        return None
    kinds = section.texts("keys", tuple(KINDS))
    conditions = [condition for reader in _CONDITIONS.values() if (condition := reader(section)) is not None]
    between = _between(section, zone)
    if between is not None:
        conditions.append(between)
    velocity = _velocity(section)
    points = section.integer("points", 1, POINTS_MAX) or 0
    action = section.choice("action", (STEP_UP, HOLD, DECLINE)) or ""
    _check(section, velocity, points, action, bool(conditions) or kinds is not None)
    return Rule(
        name,
        frozenset(KINDS.values() if kinds is None else (KINDS[kind] for kind in kinds)),
        tuple(conditions),
        velocity,
        points,
        action,
    )


def _check(section: Section, velocity: Velocity | None, points: int, action: str, conditional: bool) -> None:
    """Checks that depend on several fields."""
    if not section.has("points") and not section.has("action"):
        section.problem("", 'needs a consequence: points = 30, or action = "decline"')
    if velocity is not None and velocity.exact and (points or action != DECLINE):
        section.problem("exact", 'needs action = "decline" and no points: it is decided when the payment is committed')
    if velocity is None and not conditional:
        section.problem("", "has no condition and would fire for every payment; say which, for example amount_above")


def _velocity(section: Section) -> Velocity | None:
    fields = ("per", "within_seconds", "payments_above", "sum_above", "exact")
    if not any(section.has(field) for field in fields):
        return None
    per = section.choice("per", tuple(SUBJECTS))
    within_s = section.integer("within_seconds", 1, WINDOW_S_MAX)
    payments = section.integer("payments_above", 1, PAYMENTS_MAX)
    amount = section.amount("sum_above")
    exact = section.flag("exact") or False
    if not section.has("per"):
        section.problem("", f"counts payments, so it needs per: {', '.join(SUBJECTS)}")
    if not section.has("within_seconds"):
        section.problem("", "counts payments, so it needs within_seconds")
    if section.has("payments_above") == section.has("sum_above"):
        section.problem("", "counts payments, so it needs one of payments_above and sum_above")
    if section.has("sum_above") and not section.has("currency"):
        section.problem("sum_above", "needs currency: sums of different currencies do not add up")
    if per is None or within_s is None or (payments or amount) is None:
        return None
    return Velocity(per, SUBJECTS[per], within_s * 1_000_000, payments or 0, amount or 0, exact)


def _between(section: Section, zone: Zone) -> Condition | None:
    """A period of the day in the file's zone, which may include midnight; its end is excluded."""
    times = section.texts("between")
    if times is None:
        return None
    matched = [_TIME.fullmatch(time) for time in times]
    if len(times) != 2 or times[0] == times[1] or None in matched:
        section.problem("between", 'must be two different times of day: ["23:00", "05:00"]')
        return None
    begin, end = ((int(time[:2]) * 60 + int(time[3:])) * MINUTE_US for time in times)
    if begin < end:
        return lambda facts: begin <= zone.local_us(facts.now_us) % DAY_US < end
    return lambda facts: not end <= zone.local_us(facts.now_us) % DAY_US < begin


def _amount_above(section: Section) -> Condition | None:
    most = section.amount("amount_above")
    if most is not None and not section.has("currency"):
        section.problem("amount_above", "needs currency: the same number is a different amount in each")
    return None if most is None else lambda facts: facts.amount_minor > most


def _currency(section: Section) -> Condition | None:
    if not section.has("currency"):
        return None
    currency = section.currency("currency")
    return lambda facts: facts.currency == currency


def _key_younger(section: Section) -> Condition | None:
    hours = section.integer("key_younger_hours", 1, AGE_HOURS_MAX)
    return None if hours is None else lambda facts: 0 <= facts.key_age_us < hours * HOUR_US


def _accounts(section: Section) -> Condition | None:
    found = section.references("accounts")
    accounts = frozenset(map(bytes.fromhex, found or ()))
    return None if found is None else lambda facts: facts.account in accounts


def _keys_beginning(section: Section) -> Condition | None:
    found = section.references("keys_beginning", digits_min=KEY_PREFIX_HEX_MIN)
    if found is None:
        return None
    lengths = sorted({len(one) for one in found})
    beginnings = frozenset(found)
    return lambda facts: any(facts.key.hex()[:length] in beginnings for length in lengths)


def _listed(
    field: str, ask: Callable[[Facts], str], allowed: tuple[str, ...] = ()
) -> Callable[[Section], Condition | None]:
    def read(section: Section) -> Condition | None:
        found = section.texts(field, allowed)
        listed = frozenset(found or ())
        return None if found is None else lambda facts: ask(facts) in listed

    return read


def _flagged(field: str, holds: Condition, fails: Condition) -> Callable[[Section], Condition | None]:
    def read(section: Section) -> Condition | None:
        wanted = section.flag(field)
        return None if wanted is None else holds if wanted else fails

    return read


_CONDITIONS: Final[dict[str, Callable[[Section], Condition | None]]] = {
    "tiers": _listed("tiers", lambda facts: facts.tier, TIERS),
    "static_code": _flagged("static_code", lambda facts: facts.static_code, lambda facts: not facts.static_code),
    "static_merchant_code": _flagged(
        "static_merchant_code", lambda facts: facts.static_merchant, lambda facts: not facts.static_merchant
    ),
    "amount_above": _amount_above,
    "currency": _currency,
    "key_younger_hours": _key_younger,
    "accounts": _accounts,
    "keys_beginning": _keys_beginning,
    "issuers": _listed("issuers", lambda facts: facts.issuer),
    "merchants": _listed("merchants", lambda facts: facts.merchant),
    "terminals": _listed("terminals", lambda facts: facts.terminal),
    "categories": _listed("categories", lambda facts: facts.category),
    "callers": _listed("callers", lambda facts: facts.caller),
}
"""Each field's condition. All must hold; those that rarely hold are evaluated first."""
_FIELDS: Final = (
    *("name", "keys", *_CONDITIONS, "between"),
    *("per", "within_seconds", "payments_above", "sum_above", "exact", "points", "action"),
)
