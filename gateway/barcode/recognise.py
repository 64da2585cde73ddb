"""Which schemes a merchant code fits, and what each makes of it: the engine behind the profiles."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from gateway.barcode.model import Candidate, Routing, Verdict, Violation, covered, excerpt, verdict
from gateway.barcode.payload import Payload
from gateway.barcode.profile import KIND_CODES, PROFILES, Account, Demand, Part, Profile, Route
from gateway.barcode.tlv import crc, split
from hutong_contract.amounts import to_minor
from hutong_contract.currencies import EXPONENT_OF

COUNTRY_SCORE: Final = 10
CURRENCY_SCORE: Final = 5
PROFILE_SCORE: Final = 5
CANDIDATES_MAX: Final = 8
"""Most schemes reported for one code; labels with more than these exist on no counter."""
MOMENT_DIGITS_MAX: Final = 15
SECONDS_DIGITS_MAX: Final = 11
_PRIMITIVE_LAST: Final = "25"

_Fields = Mapping[str, str]
_NO_FIELDS: Final[_Fields] = {}


def _index() -> tuple[dict[str, list[Account]], list[Account], dict[str, list[Account]]]:
    exact: dict[str, list[Account]] = {}
    patterns: list[Account] = []
    primitives: dict[str, list[Account]] = {}
    for profile in PROFILES.values():
        for account in profile.accounts:
            if account.primitive:
                for identifier in account.ids:
                    primitives.setdefault(identifier, []).append(account)
            elif account.raw is not None:
                continue
            elif account.pattern is not None or not account.identifiers:
                patterns.append(account)
            for identifier in account.identifiers:
                exact.setdefault(identifier, []).append(account)
    return exact, patterns, primitives


_EXACT, _PATTERNS, _PRIMITIVES = _index()
_RAW: Final = tuple(account for profile in PROFILES.values() for account in profile.accounts if account.raw is not None)
_RAW_IDS: Final = frozenset(identifier for account in _RAW for identifier in account.ids)
_UNRESERVED: Final = frozenset(
    identifier for profile in PROFILES.values() for account in profile.accounts for identifier in account.ids
    if identifier >= "80"
)  # fmt: skip
"""Unreserved templates in which some scheme is recognised."""


def candidates(payload: Payload, strict: list[Violation]) -> list[Candidate]:
    """Every scheme that the code fits, best first; of one scheme only its best account."""
    best: dict[str, tuple[Account, str]] = {}
    values = payload.values
    indicator = values.get("00", "")
    for identifier in values:
        if "02" <= identifier <= "51" or identifier in _UNRESERVED:
            for account in _matching(identifier, payload, indicator):
                before = best.get(account.scheme)
                if before is None or account.score > before[0].score:
                    best[account.scheme] = account, identifier
    found = [_judge(account, identifier, values[identifier], payload, strict) for account, identifier in best.values()]
    if len(found) > 1:
        found = _without_strangers(found, best)
        found.sort(key=_rank)
    return found[:CANDIDATES_MAX]


def _without_strangers(found: list[Candidate], best: Mapping[str, tuple[Account, str]]) -> list[Candidate]:
    """Candidates without networks in whose object something else stands: other schemes use those objects too."""
    kept = []
    for candidate in found:
        account, identifier = best[candidate.scheme]
        wrong = not candidate.profile.valid and any(v.path == identifier for v in candidate.profile.violations)
        if not (account.primitive and wrong):
            kept.append(candidate)
    return kept or found


def _rank(candidate: Candidate) -> tuple[int, str]:
    return -candidate.score, candidate.scheme


def _matching(identifier: str, payload: Payload, indicator: str) -> list[Account]:
    """The account rules of all schemes that this object fits."""
    if identifier <= _PRIMITIVE_LAST:
        found = _PRIMITIVES.get(identifier)
        if found is None:
            return []
        # Format indicator 02 is a form of its own, and its objects are not EMVCo's.
        form = indicator if indicator == "02" else "01"
        country = payload.values.get("58", "")
        value = payload.values[identifier]
        return [
            account
            for account in found
            if account.format_indicator == form
            and (not account.country or account.country == country)
            and (account.pattern is None or account.pattern(value) is not None)
        ]
    if identifier in _RAW_IDS:
        raw = [account for account in _RAW if _is_raw(account, identifier, payload)]
        if raw:
            return raw
    inner = payload.templates.get(identifier)
    if inner is None:
        return []
    guid = inner.get("00", "")
    named = _EXACT.get(guid.lower())
    if named is not None:
        return [
            account
            for account in named
            if identifier in account.ids and (not account.where or _has_form(account, inner))
        ]
    country = payload.values.get("58", "")
    return [
        account
        for account in _PATTERNS
        if identifier in account.ids
        and (not account.country or account.country == country)
        and (account.pattern is None or account.pattern(guid) is not None)
        and (not account.where or _has_form(account, inner))
    ]


def _is_raw(account: Account, identifier: str, payload: Payload) -> bool:
    """Whether an object that is no template has the form of a scheme that puts a plain text there."""
    return (
        identifier in account.ids
        and account.raw is not None
        and account.raw(payload.values[identifier]) is not None
        and account.country == payload.values.get("58", "")
    )


def _has_form(account: Account, inner: _Fields) -> bool:
    """Whether the fields that a scheme is known by have their forms."""
    return all(form(inner.get(field, "")) is not None for field, form in account.where)


def _judge(account: Account, identifier: str, value: str, payload: Payload, strict: list[Violation]) -> Candidate:
    profile = PROFILES[account.scheme]
    values = payload.values
    inner = payload.templates.get(identifier, _NO_FIELDS)
    violations = [v for v in strict if not tolerated(profile, v)] if strict else []
    route, routing = _route(account, identifier, value, inner, payload, violations)
    remote = route is not None and route.remote
    if remote:
        violations = [v for v in violations if v.path not in profile.unbelieved]
    if account.exclusive and sum(1 for field in account.exclusive if field in inner) > 1:
        violations.append(Violation(identifier, "ambiguous", "more than one field names a payee"))
    for field in account.mandatory:
        if field not in inner:
            violations.append(Violation(f"{identifier}/{field}", "missing", "nothing"))
    if profile.checksum:
        _checksum(profile.checksum, payload, violations)
        _own_amount(profile, payload, violations)
    for demand in account.demands:
        _demand(demand, identifier, value, inner, payload, violations)
    for demand in profile.demands:
        if remote and demand.path_text in profile.unbelieved:
            continue
        _demand(demand, identifier, value, inner, payload, violations)
    score = account.score
    country, currency = values.get("58"), values.get("53")
    if profile.countries:
        if country in profile.countries:
            score += COUNTRY_SCORE
        elif country is not None:
            violations.append(Violation("58", "country", excerpt(country)))
    if profile.currencies:
        if currency in profile.currencies:
            score += CURRENCY_SCORE
        elif currency is not None:
            violations.append(Violation("53", "currency", excerpt(currency)))
    if not violations:
        score += PROFILE_SCORE
    purpose = _purpose(profile, value, inner, payload) if profile.purposes else ""
    purpose = purpose or (route.purpose if route is not None else "") or profile.purpose
    reason = _reason(account, identifier, inner)
    return Candidate(account.scheme, score, verdict(violations), routing, reason, purpose, remote, identifier)


def _checksum(identifier: str, payload: Payload, violations: list[Violation]) -> None:
    """A checksum that stands elsewhere than in 63; last, where it is there."""
    stated = payload.values.get(identifier)
    if stated is None:
        return
    text = payload.text()
    if payload.objects[-1][0] != identifier:
        violations.append(Violation(identifier, "not_last", payload.objects[-1][0]))
    elif stated.upper() != crc(text[: -len(stated)]):
        violations.append(Violation(identifier, "crc_mismatch", covered(stated)))


def _own_amount(profile: Profile, payload: Payload, violations: list[Violation]) -> None:
    """An amount that stands elsewhere than in 54."""
    text = payload.values.get(profile.amount)
    if text is not None:
        _, rule = to_minor(text, EXPONENT_OF[payload.currency or profile.default_currency])
        if rule is not None and rule != "decimals":
            violations.append(Violation(profile.amount, rule, excerpt(text)))


def _purpose(profile: Profile, value: str, inner: _Fields, payload: Payload) -> str:
    """What the code asks for, where a value says it; else empty."""
    for purpose in profile.purposes:
        text = _read(purpose.part, value, inner, payload)
        if text and purpose.match(text) is not None:
            return purpose.name
    return ""


def _reason(account: Account, identifier: str, inner: _Fields) -> str:
    if account.primitive:
        return f"{identifier} is the network's account"
    if account.raw is not None:
        return f"{identifier} has the scheme's form"
    if not account.identifiers:
        return (
            f"{identifier}/00 has the scheme's form" if account.pattern is not None else f"{identifier} has its fields"
        )
    return f"{identifier}/00 is {inner['00']}"  # One of the profile's own identifiers, so nothing else shows.


def tolerated(profile: Profile, violation: Violation) -> bool:
    """Whether a scheme's practice lets a violation of the standard pass."""
    allowed = profile.tolerated
    path, rule = violation.path, violation.rule
    return (
        (path, rule) in allowed
        or ("*", rule) in allowed
        or (path, "*") in allowed
        or (path.partition("/")[0], "*") in allowed
    )


def _route(
    account: Account, identifier: str, value: str, inner: _Fields, payload: Payload, violations: list[Violation]
) -> tuple[Route | None, Routing | None]:
    """The first way to route whose field is there, and the key; its id is checked."""
    for route in account.routes:
        key = _read(route.account, value, inner, payload)
        if not key:
            continue
        if route.check is not None and not route.check(key, inner):
            path = "/".join((identifier, *route.account.path)) if route.account.inside else "/".join(route.account.path)
            violations.append(Violation(path, route.check_name, covered(key)))
        return route, _routing(account.scheme, route, key, value, inner, payload)
    if account.routes:
        violations.append(Violation(identifier, "no_routing_field", f"{len(value)} characters"))
    return None, None


def _routing(scheme: str, route: Route, key: str, value: str, inner: _Fields, payload: Payload) -> Routing:
    kind = route.kind
    if route.scheme is not None:
        scheme = _read(route.scheme, value, inner, payload) or scheme
    if route.kind_code is not None:
        kind = KIND_CODES.get(_read(route.kind_code, value, inner, payload), kind)
    participant = _read(route.participant, value, inner, payload) if route.participant is not None else ""
    terminal = _read(route.terminal, value, inner, payload) if route.terminal is not None else ""
    if route.more:
        key = _joined("/", [key, *(_read(part, value, inner, payload) for part in route.more)])
    payee = ""
    if route.payee:
        payee = _joined(":", [part.literal or _read(part, value, inner, payload) for part in route.payee])
    elif route.payee_text is not None:
        payee = _read(route.payee_text, value, inner, payload)
    return Routing(scheme, kind, key, participant, terminal, payee)


def _joined(mark: str, texts: list[str]) -> str:
    """Texts as one, so that no two lists give the same: a mark inside a text is escaped, empty ends are left out."""
    while len(texts) > 1 and not texts[-1]:
        texts.pop()
    code = f"%{ord(mark):02X}"
    return mark.join(
        [text.replace("%", "%25").replace(mark, code) if mark in text or "%" in text else text for text in texts]
    )


def _read(part: Part, value: str, inner: _Fields, payload: Payload) -> str:
    """The text that a part names; empty where it does not stand in the code."""
    if part.only:
        return inner.get(part.only, "")
    if part.first:
        pair = next(((identifier, text) for identifier, text in inner.items() if identifier != "00"), ("", ""))
        return pair[0] if part.first == "id" else pair[1]
    path = part.path
    if part.guid:
        found, path = _named(part.guid, inner, payload).get(path[0], ""), path[1:]
    elif part.inside:
        if not path:
            found = value
        else:
            found = inner.get(path[0], "")
            path = path[1:]
    else:
        found, path = _from_root(path, payload)
    for identifier in path:
        found = dict(split(found)[0]).get(identifier, "")
    if part.after:
        _, mark, found = found.rpartition(part.after)
        found = found if mark else ""
    return found[part.start : part.end] if part.start or part.end is not None else found


def _named(guid: str, inner: _Fields, payload: Payload) -> _Fields:
    """The first template with an identifier; `&` is an unreserved one with that of the account template `inner`."""
    first, guid = ("80", inner.get("00", "").lower()) if guid == "&" else ("26", guid)
    for root, template in payload.templates.items():
        if root >= first and template.get("00", "").lower() == guid:
            return template
    return _NO_FIELDS


def _from_root(path: tuple[str, ...], payload: Payload) -> tuple[str, tuple[str, ...]]:
    template = payload.templates.get(path[0])
    if template is not None and len(path) > 1:
        return template.get(path[1], ""), path[2:]
    return payload.values.get(path[0], ""), path[1:]


def _demand(
    demand: Demand, identifier: str, value: str, inner: _Fields, payload: Payload, violations: list[Violation]
) -> None:
    if demand.when is not None and _read(demand.when, value, inner, payload) != demand.when_value:
        return
    found = _read(demand.part, value, inner, payload)
    if not found:
        if demand.present:
            violations.append(Violation(demand.path_text.replace("@", identifier), "missing", "nothing"))
        return
    match, check = demand.match, demand.check
    if (match is not None and match(found) is None) or (check is not None and not check(found, inner)):
        violations.append(Violation(demand.path_text.replace("@", identifier), demand.rule, covered(found)))


def unrecognised(payload: Payload) -> Verdict:
    """The profile verdict of a merchant code that fits no scheme known here."""
    named = [inner["00"] for root, inner in payload.templates.items() if root <= "51" and "00" in inner]
    return verdict([Violation("02-51", "scheme_unknown", excerpt(", ".join(named)) or "no identifier known")])


def expiry_us(candidate: Candidate, payload: Payload) -> int | None:
    """When the code says that it ends, UTC in microseconds; None where it does not, or not in its scheme's form."""
    expiries = PROFILES[candidate.scheme].expiries
    if not expiries:
        return None
    inner = payload.templates.get(candidate.template, _NO_FIELDS)
    value = payload.values.get(candidate.template, "")
    found = [moment_us(_read(row.part, value, inner, payload), row.format, row.offset_minutes) for row in expiries]
    return min((moment for moment in found if moment is not None), default=None)


def references(candidate: Candidate, payload: Payload) -> tuple[str, str]:
    """The payee's reference and bill number, where the scheme has them outside 62; empty where it does not."""
    profile = PROFILES[candidate.scheme]
    if profile.reference is None:
        return "", ""
    inner = payload.templates.get(candidate.template, _NO_FIELDS)
    value = payload.values.get(candidate.template, "")
    bill = _read(profile.bill_number, value, inner, payload) if profile.bill_number is not None else ""
    return _read(profile.reference, value, inner, payload), bill


def written_moment(moment_us: int, form: str, offset_minutes: int) -> str:
    """A moment as a scheme writes it, with all the precision that its form has.

    Raises:
        ValueError, OverflowError: the form cannot say it.
    """
    if form == "epoch_ms":
        return str(moment_us // 1_000)
    if form == "epoch_s":
        return str(moment_us // 1_000_000)
    moment = datetime.fromtimestamp(moment_us // 1_000_000 + offset_minutes * 60, UTC)
    return moment.strftime("%d%m%Y%H%M" if form == "day_first" else "%Y%m%d%H%M%S")


def moment_us(text: str, form: str, offset_minutes: int) -> int | None:
    """A scheme's way of writing a moment, as UTC microseconds; None where the text is not one."""
    if not (text.isascii() and text.isdigit()) or len(text) > MOMENT_DIGITS_MAX:
        return None
    if form == "epoch_ms":
        return int(text) * 1_000
    if form == "epoch_s":
        return int(text) * 1_000_000 if len(text) <= SECONDS_DIGITS_MAX else None
    try:
        if form == "day_first":
            moment = datetime.strptime(text, "%d%m%Y%H%M").replace(tzinfo=UTC)
        elif len(text) > 8:
            full = text if len(text) == 14 else f"20{text}"
            moment = datetime.strptime(full, "%Y%m%d%H%M%S").replace(tzinfo=UTC)
        else:
            # A day alone means all of it.
            moment = datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC) + timedelta(days=1)
    except (ValueError, OverflowError):
        return None
    return (int(moment.timestamp()) - offset_minutes * 60) * 1_000_000
