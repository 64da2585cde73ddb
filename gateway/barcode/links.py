"""Decodes links to a merchant or payee: UPI, and the static URLs of wallets, by the profiles' `link` tables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl

from gateway.barcode import tips
from gateway.barcode.checks import CHECKS
from gateway.barcode.model import MANDATE, PAYMENT, Candidate, Decoded, Routing, Violation, covered, excerpt, verdict
from gateway.barcode.profile import PROFILES, LinkForm
from gateway.barcode.tlv import crc
from hutong_contract.amounts import to_minor
from hutong_contract.currencies import EXPONENT_OF

PARAMETERS_MAX: Final = 40
"""Most query parameters that are read; UPI defines 25."""
LOOKS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,15}:").match
"""Whether a text begins like a URL."""
_FORMS: Final = tuple(form for profile in PROFILES.values() for form in profile.links)


_MINOR: Final = re.compile("[1-9][0-9]{0,11}").fullmatch
_ESCAPED: Final = "&amp;"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_IST_MINUTES: Final = 330
"""India's time east of UTC: days of UPI's links end there."""


def decode(text: str, artefacts: tuple[str, ...] = ()) -> Decoded | None:
    """Decodes a link; None if it is of no scheme known here."""
    for form in _FORMS:
        found = form.match(text)
        if found is not None:
            return _decoded(form, text, found.groupdict(), artefacts)
    return None


def _decoded(form: LinkForm, text: str, groups: dict[str, str | None], artefacts: tuple[str, ...]) -> Decoded:
    violations: list[Violation] = []
    if form.checksum:
        _checksum(form.checksum, text, violations)
    action = (groups.pop("action", None) or "").lower()
    fields = {name: value for name, value in groups.items() if value and name != "query"}
    if form.query:
        # What follows "#" is the reader's own (RFC 3986, 3.5), and pages spell "&" as HTML does.
        query, _, _ = (groups.get("query") or "").partition("#")
        if _ESCAPED in query:
            query, artefacts = query.replace(_ESCAPED, "&"), (*artefacts, "html_escape")
        fields |= _query(form, query, violations)
    purpose = _purpose(form, action, fields)
    currency = fields.get("currency") or form.currency or None
    amount = _amount(form, fields.get("amount"), currency, violations)
    least = _amount(form, fields.get("amount_least"), currency, violations, "amount_least")
    if least is not None and amount is not None and least > amount:
        violations.append(Violation("mam", "value", "more than am"))
    expires = _expires(fields, violations)
    profile = verdict(violations)
    account = fields.get("account", "")
    if form.account_case == "upper":
        account = account.upper()
    participant = fields.get("participant", "")
    if not participant and form.kind == "proxy":
        participant = account.rpartition("@")[2] if "@" in account else ""
    routing = Routing(form.scheme, form.kind, account, participant, fields.get("terminal_id", ""))
    # The amount of a mandate is a bound on what will be debited: nothing of it is to be paid now.
    later = purpose == MANDATE
    return Decoded(
        kind="link",
        scheme=form.scheme,
        strict=None,
        profile=profile,
        routing=routing if account else None,
        candidates=(Candidate(form.scheme, 100, profile, routing if account else None, "a link of it", purpose),),
        amount_minor=None if later else amount,
        tip=tips.NONE,
        amount_due_minor=None if later or least is not None else amount,
        amount_least_minor=None if later else least,
        currency=currency,
        merchant_name=fields.get("merchant_name"),
        initiation="static" if amount is None else "dynamic",
        merchant_category=fields.get("merchant_category"),
        country=form.country or None,
        reference=fields.get("reference"),
        expires_us=expires,
        purpose=purpose,
        artefacts=artefacts,
        link=fields,
    )


def _purpose(form: LinkForm, action: str, fields: Mapping[str, str]) -> str:
    """What the link asks for: by its action, if that is no payment; otherwise by a parameter."""
    purpose = form.purposes.get(action, form.purpose)
    if purpose != PAYMENT:
        return purpose
    rules = next((rules for rules in form.query.values() if rules.get("field") == "purpose"), {})
    return str(rules.get("purposes", {}).get(fields.get("purpose", ""), purpose))


def _query(form: LinkForm, query: str, violations: list[Violation]) -> dict[str, str]:
    """Parameters with a meaning, each checked; of one that comes twice, which is a violation, the first holds.

    Names are read without regard to case where only that gives them a meaning: QR writers put links into capitals to
    make the symbol smaller.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=PARAMETERS_MAX, errors="strict")
    except (ValueError, UnicodeError):
        violations.append(Violation("query", "malformed", f"{len(query)} characters"))
        return {}
    values: dict[str, str] = {}
    names = {name.lower(): name for name in form.query}
    for given, value in pairs:
        name = names.get(given.lower(), given)
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
    if not value or value in rules.get("absent", ()):
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
        fields[rules["field"]] = value.lower() if rules.get("fold") else value


def _amount(
    form: LinkForm, text: str | None, currency: str | None, violations: list[Violation], field: str = "amount"
) -> int | None:
    if text is None:
        return None
    name, rules = next((row for row in form.query.items() if row[1].get("field") == field), (field, {}))
    if rules.get("minor"):
        minor, rule = (int(text), None) if _MINOR(text) else (None, "format")
    else:
        minor, rule = to_minor(text, EXPONENT_OF.get(currency or "", 2))
    if rule is not None and rule != "decimals":
        violations.append(Violation(name, rule, excerpt(text)))
    return minor


def _checksum(name: str, text: str, violations: list[Violation]) -> None:
    """EMV's checksum over the link before its last parameter; checked if present."""
    before, mark, stated = text.rpartition(f"&{name}=")
    if mark and stated.upper() != crc(before):
        violations.append(Violation(name, "crc_mismatch", covered(stated)))


def _expires(fields: Mapping[str, str], violations: list[Violation]) -> int | None:
    """When the link ends: UPI's QRexpire, an ISO 8601 moment with its zone (a `+` may have become a space), or the end
    of the day validityend (DDMMYYYY); the earlier of the two."""
    moments = []
    for name, field, read in (("QRexpire", "expires", _moment), ("validityend", "ends", _day)):
        text = fields.get(field)
        if text is None:
            continue
        try:
            moments.append(read(text))
        except (ValueError, OverflowError):
            violations.append(Violation(name, "format", excerpt(text)))
    return min(moments) if moments else None


def _moment(text: str) -> int:
    moment = datetime.fromisoformat(text.replace(" ", "+"))
    if moment.tzinfo is None:
        raise ValueError("no zone")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def _day(text: str) -> int:
    ends = datetime.strptime(text, "%d%m%Y").replace(tzinfo=UTC) + timedelta(days=1)
    return (int(ends.timestamp()) - _IST_MINUTES * 60) * 1_000_000
