"""Parses EMV merchant-presented codes and judges them by EMVCo's standard (v1.1, chapters 3 and 4)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from gateway.barcode import mpm_spec as spec
from gateway.barcode.faultless import faultless
from gateway.barcode.model import VIOLATIONS_MAX, Pair, Violation, covered, excerpt
from gateway.barcode.payload import CHARACTERS, UTF8_BYTES, Payload
from gateway.barcode.tlv import crc, split, split_bytes
from hutong_contract.amounts import to_minor
from hutong_contract.currencies import BY_NUMBER, COUNTRIES

_HEX: Final = re.compile("[0-9A-Fa-f]{4}").fullmatch
_CARD_ACCOUNTS: Final = frozenset(f"{n:02d}" for n in range(2, 26))


def parse(text: str) -> tuple[Payload, list[Violation]]:
    """Takes a payload apart and judges it strictly. Never raises; time is bounded by the text's length.

    Where the character reading of lengths does not reach the end, the UTF-8 reading is tried; if that holds, the
    payload is read by it and the verdict says so.
    """
    payload = faultless(text)
    return (payload, []) if payload is not None else parse_carefully(text)


def parse_carefully(text: str) -> tuple[Payload, list[Violation]]:
    """As `parse`, without the short cut for payloads that have no fault. The two agree on every payload."""
    violations: list[Violation] = []
    reading: str | None = CHARACTERS
    pairs, problem = split(text)
    if problem is not None:
        reading = None
        if not text.isascii():
            in_bytes, second = split_bytes(text)
            if second is None:
                pairs, problem, reading = in_bytes, None, UTF8_BYTES
    if problem is not None:
        violations.append(problem)
    elif reading == UTF8_BYTES:
        violations.append(Violation("", "length_in_bytes", "lengths count UTF-8 bytes"))
    values = dict(pairs)
    if len(values) != len(pairs):
        values = _without_duplicates("", pairs, violations)
    templates = _check_objects(values, reading, violations)
    _check_whole(text, pairs, values, violations)
    currency, amount = _check_codes(values, violations)
    return Payload(tuple(pairs), values, templates, reading, currency, amount), violations


def _check_objects(
    values: dict[str, str], reading: str | None, violations: list[Violation]
) -> dict[str, dict[str, str]]:
    """Every object against its row, every template against its table."""
    templates: dict[str, dict[str, str]] = {}
    root = spec.ROOT_MATCHERS
    for identifier, value in values.items():
        matcher = root[identifier]
        if not value or (matcher is not None and matcher(value) is None):
            if identifier in spec.RESERVED[""]:
                violations.append(Violation(identifier, "reserved", excerpt(value)))
            else:
                explain(identifier, spec.ROOT[identifier], value, violations, secret=identifier in _CARD_ACCOUNTS)
        if identifier in spec.TEMPLATE_MATCHERS:
            inner = _check_template(identifier, value, reading, violations)
            if inner is not None:
                templates[identifier] = inner
        if len(violations) >= VIOLATIONS_MAX:
            break
    return templates


def _check_template(root: str, value: str, reading: str | None, violations: list[Violation]) -> dict[str, str] | None:
    pairs, problem = split_bytes(value) if reading == UTF8_BYTES else split(value)
    if problem is not None:
        path = f"{root}/{problem.path}" if problem.path else root
        violations.append(Violation(path, problem.rule, problem.found))
        return None
    values = dict(pairs)
    if len(values) != len(pairs):
        values = _without_duplicates(root, pairs, violations)
    matchers = spec.TEMPLATE_MATCHERS[root]
    for identifier, item in values.items():
        matcher = matchers[identifier]
        if not item or (matcher is not None and matcher(item) is None):
            _explain_inner(root, identifier, item, violations)
    for identifier in spec.MANDATORY_IN[root]:
        if identifier not in values:
            violations.append(Violation(f"{root}/{identifier}", "missing", "nothing"))  # noqa: PERF401 - rare
    if root == "62" and not spec.NESTED.isdisjoint(values):
        _check_nested(values, reading, violations)
    return values


def _explain_inner(root: str, identifier: str, value: str, violations: list[Violation]) -> None:
    path = f"{root}/{identifier}"
    row = spec.TEMPLATES[root].get(identifier)
    if row is None:
        violations.append(Violation(path, "id_not_allowed", covered(value)))
    elif identifier in spec.RESERVED.get(root, ()):
        violations.append(Violation(path, "reserved", excerpt(value)))
    else:
        explain(path, row, value, violations)


def _check_nested(values: dict[str, str], reading: str | None, violations: list[Violation]) -> None:
    """Payment system templates inside 62 begin with an identifier; what is deeper is theirs and is not judged."""
    for identifier in spec.NESTED.intersection(values):
        value = values[identifier]
        pairs, problem = split_bytes(value) if reading == UTF8_BYTES else split(value)
        if problem is not None:
            violations.append(Violation(f"62/{identifier}", problem.rule, problem.found))
        elif "00" not in dict(pairs):
            violations.append(Violation(f"62/{identifier}/00", "missing", "nothing"))


def _check_whole(text: str, pairs: list[Pair], values: dict[str, str], violations: list[Violation]) -> None:
    """Presence, order, checksum, and the rules that join objects."""
    for identifier in spec.MANDATORY:
        if identifier not in values:
            violations.append(Violation(identifier, "missing", "nothing"))  # noqa: PERF401 - rare
    for identifier in spec.ACCOUNTS_BY_USE:
        if identifier in values:
            break
    else:
        violations.append(Violation("02-51", "missing", "no merchant account"))
    if pairs and pairs[0][0] != "00":
        violations.append(Violation("00", "not_first", pairs[0][0]))
    if len(text) > spec.CHARACTERS_SHOULD:
        violations.append(Violation("", "over_512", f"{len(text)} characters"))
    stated = values.get("63")
    if stated is not None:
        _check_crc(text, pairs, stated, violations)
    if "55" in values or "56" in values or "57" in values:
        _check_tip(values, violations)


def _check_crc(text: str, pairs: list[Pair], stated: str, violations: list[Violation]) -> None:
    if pairs[-1][0] != "63":
        violations.append(Violation("63", "not_last", pairs[-1][0]))
        return
    if len(stated) != 4:
        return  # Said already: its length is wrong.
    computed = crc(text[: -len(stated)])
    if computed != stated and computed != stated.upper():
        violations.append(Violation("63", "crc_mismatch", f"{excerpt(stated)}, computed {computed}"))


def _check_codes(values: Mapping[str, str], violations: list[Violation]) -> tuple[str | None, int | None]:
    """Codes that have lists behind them, and amounts, whose decimals the currency decides: currency and amount."""
    number = values.get("53", "")
    currency = BY_NUMBER.get(number)
    if currency is None and len(number) == 3:
        violations.append(Violation("53", "unknown_currency", excerpt(number)))
    country = values.get("58", "")
    if len(country) == 2 and country not in COUNTRIES:
        violations.append(Violation("58", "unknown_country", excerpt(country)))
    if currency is None:
        return None, None
    minor: int | None = None
    for identifier in ("56", "54"):
        amount = values.get(identifier)
        if amount is not None:
            minor, rule = to_minor(amount, currency[1])
            if rule in {"amount_precision", "decimals"}:
                violations.append(Violation(identifier, rule, f"{excerpt(amount)} {currency[0]}"))
    return currency[0], minor if "54" in values else None


def _check_tip(values: Mapping[str, str], violations: list[Violation]) -> None:
    """56 stands if and only if 55 is 02; 57 if and only if 55 is 03 (4.7.6 to 4.7.8)."""
    for identifier, indicator in (("56", "02"), ("57", "03")):
        if values.get("55") == indicator:
            if identifier not in values:
                violations.append(Violation(identifier, "missing", f"55 is {indicator}"))
        elif identifier in values:
            violations.append(Violation(identifier, "not_allowed", f"55 is not {indicator}"))


def _without_duplicates(root: str, pairs: list[Pair], violations: list[Violation]) -> dict[str, str]:
    """The first value of each id, and a violation for each id that comes again."""
    values: dict[str, str] = {}
    again: set[str] = set()
    for identifier, value in pairs:
        if identifier in values:
            again.add(identifier)
        else:
            values[identifier] = value
    paths = [f"{root}/{identifier}" if root else identifier for identifier in sorted(again)]
    violations += [Violation(path, "duplicate", "more than once") for path in paths[:VIOLATIONS_MAX]]
    return values


def explain(path: str, row: spec.Field, value: str, violations: list[Violation], *, secret: bool = False) -> None:
    """Says which part of its row a value breaks: length, lower case, characters, amount or value."""
    found = covered(value) if secret else excerpt(value)
    if not row.shortest <= len(value) <= row.longest:
        rule = "length"
        found = f"{len(value)} characters, {row.shortest} to {row.longest} allowed"
    elif path == "63" and _HEX(value):
        rule = "lower_case"
    elif row.values and row.values == spec.ROOT["54"].values:
        rule = to_minor(value, 0)[1] or "format"
        rule = rule if rule in {"zero", "format"} else "zero" if not value.strip("0.") else "format"
    elif any(not _allowed(row.format, character) for character in value):
        rule = "format"
    else:
        rule = "value" if row.values else "format"
    violations.append(Violation(path, rule, found or "nothing"))


def _allowed(letter: str, character: str) -> bool:
    if letter == "N":
        return "0" <= character <= "9"
    return letter == "S" or " " <= character <= "~"
