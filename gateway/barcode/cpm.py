"""Parses and writes EMV consumer-presented codes: base64 of BER-TLV, judged by EMVCo's standard (CPM v1.1)."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.barcode import ber
from gateway.barcode import cpm_spec as spec
from gateway.barcode.model import Violation

_BASE64: Final = re.compile(r"[A-Za-z0-9+/]*={0,2}").fullmatch
_NIBBLES: Final = {"cn": re.compile("[0-9]+F*").fullmatch, "n": re.compile("[0-9]+").fullmatch}
_TEXT: Final = {"an": re.compile(rb"[0-9A-Za-z]+").fullmatch, "ans": re.compile(rb"[ -~]+").fullmatch}

Elements = dict[str, bytes]


@dataclass(frozen=True, slots=True)
class Payload:
    """A parsed consumer code: enough to write it again byte for byte."""

    items: tuple[ber.Item, ...]
    """Root objects in their order."""
    applications: tuple[Elements, ...] = field(default=(), repr=False)
    """Objects of each application template (61), the terminal's preference first."""
    common: Elements | None = field(default=None, repr=False)
    """Objects of the common template (62)."""

    def text(self) -> str:
        """The payload again, byte for byte."""
        return base64.b64encode(ber.join(self.items)).decode("ascii")

    def find(self, tag: str) -> bytes | None:
        """An object of the first application, or of the common template."""
        for elements in (*self.applications[:1], self.common or {}):
            if tag in elements:
                return elements[tag]
        return None

    def find_inside(self, template: str, tag: str) -> bytes | None:
        """An object inside a transparent template (63 or 64), which is opaque to terminals but not to its issuer."""
        value = self.find(template)
        if value is None:
            return None
        items, _ = ber.split(value)
        return next((item.value for item in items if item.tag == tag), None)


def parse(text: str) -> tuple[Payload, list[Violation]]:
    """Parses a consumer code and judges it strictly. Never raises for bad input."""
    data, violations = _unarmour(text)
    if data is None:
        return Payload(()), violations
    items, problem = ber.split(data)
    if problem is not None:
        violations.append(Violation(problem.tag, problem.rule, problem.found))
    _check_root(items, violations)
    applications: list[Elements] = []
    common: Elements | None = None
    for item in items:
        if item.tag == spec.APPLICATION and len(applications) < spec.APPLICATIONS_MAX:
            applications.append(_template(item, violations))
        elif item.tag == spec.COMMON and common is None:
            common = _template(item, violations)
    _check_across(applications, common, violations)
    return Payload(tuple(items), tuple(applications), common), violations


def _unarmour(text: str) -> tuple[bytes | None, list[Violation]]:
    if not _BASE64(text):
        return None, [Violation("", "base64", "characters outside the alphabet")]
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        return None, [Violation("", "base64", f"{len(text)} characters")]
    if base64.b64encode(data).decode("ascii") != text:
        # Wrong padding or stray bits at the end: readable, but not what an encoder writes.
        return data, [Violation("", "base64_not_canonical", f"{len(text)} characters")]
    return data, []


def _check_root(items: list[ber.Item], violations: list[Violation]) -> None:
    """85 first, then one or two 61, then an optional 62, then others (4.1)."""
    tags = [item.tag for item in items]
    if tags[:1] != [spec.FORMAT_TAG]:
        violations.append(Violation(spec.FORMAT_TAG, "not_first", tags[0] if tags else "nothing"))
    elif items[0].value != spec.FORMAT_VALUE:
        violations.append(Violation(spec.FORMAT_TAG, "value", f"{len(items[0].value)} bytes, not CPV01"))
    violations.extend(
        Violation(tag, "duplicate", f"{tags.count(tag)} times")
        for tag in (spec.FORMAT_TAG, spec.COMMON)
        if tags.count(tag) > 1
    )
    applications = tags.count(spec.APPLICATION)
    if not 1 <= applications <= spec.APPLICATIONS_MAX:
        rule = "missing" if applications == 0 else "too_many"
        violations.append(Violation(spec.APPLICATION, rule, f"{applications} of 1 or 2"))
    if spec.COMMON in tags and applications == 1:
        violations.append(Violation(spec.COMMON, "not_allowed", "one application only"))
    rank = {spec.FORMAT_TAG: 0, spec.APPLICATION: 1, spec.COMMON: 2}
    order = [rank.get(tag, 3) for tag in tags]
    if order != sorted(order):
        violations.append(Violation("", "order", " ".join(tags[:8])))


def _template(item: ber.Item, violations: list[Violation]) -> Elements:
    items, problem = ber.split(item.value)
    if problem is not None:
        path = f"{item.tag}/{problem.tag}" if problem.tag else item.tag
        violations.append(Violation(path, problem.rule, problem.found))
    elements: Elements = {}
    wrong_place = spec.ONLY_IN_COMMON if item.tag == spec.APPLICATION else spec.ONLY_IN_APPLICATION
    for inner in items:
        path = f"{item.tag}/{inner.tag}"
        if inner.tag in elements:
            violations.append(Violation(path, "duplicate", "more than once"))
            continue
        elements[inner.tag] = inner.value
        if inner.tag in wrong_place:
            violations.append(Violation(path, "not_allowed", f"in {item.tag}"))
        row = spec.ELEMENTS.get(inner.tag)
        if row is not None:
            _check_element(path, row, inner.value, violations)
    return elements


def _check_element(path: str, row: spec.Element, value: bytes, violations: list[Violation]) -> None:
    if not row.shortest <= len(value) <= row.longest:
        violations.append(Violation(path, "length", f"{len(value)} bytes, {row.shortest} to {row.longest} allowed"))
    elif row.format in _NIBBLES:
        if not _NIBBLES[row.format](value.hex().upper()):
            violations.append(Violation(path, "format", f"{len(value)} bytes, not {row.format}"))
    elif row.format in _TEXT and not _TEXT[row.format](value):
        violations.append(Violation(path, "format", f"{len(value)} bytes, not {row.format}"))


def _check_across(applications: list[Elements], common: Elements | None, violations: list[Violation]) -> None:
    """Rules that join templates: an AID each, an account for each, nothing said twice (4.3)."""
    shared: Mapping[str, bytes] = common or {}
    for elements in applications:
        if "4F" not in elements:
            violations.append(Violation(f"{spec.APPLICATION}/4F", "missing", "nothing"))
        if not ({"57", "5A"} & (elements.keys() | shared.keys())):
            violations.append(Violation(f"{spec.APPLICATION}/57", "missing", "neither 57 nor 5A"))
        twice = sorted(elements.keys() & shared.keys())
        violations.extend(Violation(f"{spec.COMMON}/{tag}", "also_in_61", "in both templates") for tag in twice)


def digits(value: bytes) -> str:
    """The digits of a `cn` or `n` field, padding taken off."""
    return value.hex().upper().rstrip("F")
