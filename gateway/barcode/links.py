"""Links that lead to a merchant or a payee: UPI, and the static URLs of wallets, by the profiles' `link` tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from contract.amounts import to_minor
from contract.currencies import EXPONENT_OF
from gateway.barcode.checks import CHECKS
from gateway.barcode.model import Candidate, Decoded, Routing, Violation, covered, excerpt, verdict
from gateway.barcode.profile import PROFILES, LinkForm

PARAMETERS_MAX: Final = 40
"""Most query parameters that are read; UPI defines 25."""
LOOKS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,15}:").match
"""Whether a text begins like a URL."""
_FORMS: Final = tuple(form for profile in PROFILES.values() for form in profile.links)


def decode(text: str, artefacts: tuple[str, ...] = ()) -> Decoded | None:
    """A link's meaning; None where it is none of a scheme known here."""
    for form in _FORMS:
        found = form.match(text)
        if found is not None:
            return _decoded(form, found.groupdict(), artefacts)
    return None


def _decoded(form: LinkForm, groups: dict[str, str | None], artefacts: tuple[str, ...]) -> Decoded:
    violations: list[Violation] = []
    fields = {name: value for name, value in groups.items() if value and name != "query"}
    if form.query:
        fields |= _query(form, groups.get("query") or "", violations)
    amount = _amount(fields, violations)
    expires = _expires(fields, violations)
    profile = verdict(violations)
    account = fields.get("account", "")
    participant = fields.get("participant", "")
    if not participant and form.kind == "proxy":
        participant = account.rpartition("@")[2] if "@" in account else ""
    routing = Routing(form.scheme, form.kind, account, participant, fields.get("terminal_id", ""))
    return Decoded(
        kind="link",
        scheme=form.scheme,
        strict=None,
        profile=profile,
        routing=routing if account else None,
        candidates=(Candidate(form.scheme, 100, profile, routing if account else None),),
        amount_minor=amount,
        currency=fields.get("currency") or ("INR" if form.scheme == "upi" else None),
        merchant_name=fields.get("merchant_name"),
        initiation="static" if amount is None else "dynamic",
        merchant_category=fields.get("merchant_category"),
        country="IN" if form.scheme == "upi" else None,
        reference=fields.get("reference"),
        expires_us=expires,
        artefacts=artefacts,
        link=fields,
    )


def _query(form: LinkForm, query: str, violations: list[Violation]) -> dict[str, str]:
    """Parameters with a meaning, each checked; of one that comes twice, which is a violation, the first holds."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=PARAMETERS_MAX, errors="strict")
    except (ValueError, UnicodeError):
        violations.append(Violation("query", "malformed", f"{len(query)} characters"))
        return {}
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in values:
            violations.append(Violation(excerpt(name), "duplicate", "more than once"))
        values.setdefault(name, value)
    fields: dict[str, str] = {}
    for name, rules in form.query.items():
        _parameter(name, rules, values.get(name, ""), fields, violations)
    # What has no meaning here is kept, so that a translation can say that it was left behind.
    return fields | {f"query.{name}": value for name, value in values.items() if name not in form.query}


def _parameter(
    name: str, rules: Mapping[str, Any], value: str, fields: dict[str, str], violations: list[Violation]
) -> None:
    if not value:
        if rules.get("required"):
            violations.append(Violation(name, "missing", "nothing"))
        return
    if "check" in rules and not CHECKS[rules["check"]](value, {}):
        violations.append(Violation(name, rules["check"], covered(value)))
    if "values" in rules and value not in rules["values"]:
        violations.append(Violation(name, "value", excerpt(value)))
    if "pattern" in rules and not re.fullmatch(rules["pattern"], value):
        violations.append(Violation(name, "format", excerpt(value)))
    if "field" in rules:
        fields[rules["field"]] = value


def _amount(fields: Mapping[str, str], violations: list[Violation]) -> int | None:
    text = fields.get("amount")
    if text is None:
        return None
    minor, rule = to_minor(text, EXPONENT_OF.get(fields.get("currency", "INR"), 2))
    if rule is not None and rule != "decimals":
        violations.append(Violation("am", rule, excerpt(text)))
    return minor


def _expires(fields: Mapping[str, str], violations: list[Violation]) -> int | None:
    """UPI's QRexpire, an ISO 8601 moment with its zone (a `+` may have become a space)."""
    text = fields.get("expires")
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.replace(" ", "+"))
        if moment.tzinfo is None:
            raise ValueError("no zone")
        return int(moment.timestamp() * 1_000_000)
    except (ValueError, OverflowError):
        violations.append(Violation("QRexpire", "format", excerpt(text)))
        return None
