"""Decodes bills and credit transfers by the tables of `forms`: one engine for all formats, and two verdicts.

*Strict* is the format's own document to the letter; *profile* is what banks' readers accept (`tolerate` in the table).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from gateway.barcode import bysquare, references
from gateway.barcode.forms import FORMS, LINES, PACKED, TAGS, Field, Form
from gateway.barcode.model import Candidate, Decoded, Routing, Violation, covered, excerpt, verdict
from gateway.barcode.tips import NONE
from hutong_contract.amounts import to_minor
from hutong_contract.currencies import BY_NUMBER, EXPONENT_OF, NUMBER_OF

FIELDS_MAX: Final = 64
"""Most fields that are looked at; no format has half as many."""
BILL: Final = "bill"
_NUMBER: Final = re.compile("[0-9]{1,15}").fullmatch
_LINE_END: Final = re.compile("\r\n|\r|\n")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]").search
"""Signs without a shape, and marks that turn a text round: a name with them is not what a person reads."""
_CHARACTERS_MAX: Final = 4_000
"""Longer texts are not of these formats: the largest symbol that any of the documents allows holds less."""


def looks(text: str) -> bool:
    """Whether a text begins like one of the formats."""
    return any(form.head(text) is not None for form in FORMS.values())


def decode(text: str, artefacts: tuple[str, ...]) -> Decoded | None:
    """Decodes a bill or credit transfer; None if the text is none. Never raises for bad input."""
    if len(text) > _CHARACTERS_MAX:
        return None
    for form in FORMS.values():
        head = form.head(text)
        if head is not None:
            return _decoded(form, text, head, artefacts)
    return None


def _decoded(form: Form, text: str, head: re.Match[str], artefacts: tuple[str, ...]) -> Decoded | None:
    strict: list[Violation] = []
    values = {name: unquote(value) for name, value in head.groupdict().items() if value}
    separator = text[head.end() - 1] if form.separator_from_head else form.separator
    if form.bytes_max and len(text.encode()) > form.bytes_max:
        strict.append(Violation("", "too_long", f"{len(text.encode())} bytes"))
    if form.layout == PACKED:
        unpacked = bysquare.unpack(text)
        if unpacked is None:
            return None
        found, problem = unpacked
        values |= found
        strict += [Violation("", problem, covered(text))] if problem else []
    elif form.layout == LINES:
        values |= _lines(form, text, separator, strict)
    else:
        values |= _tags(form, text if form.whole else text[head.end() :], separator, strict)
    _control_sum(form, text, values, strict)
    read = _Read(form, values, strict)
    return read.decoded(artefacts)


def _lines(form: Form, text: str, separator: str, violations: list[Violation]) -> dict[str, str]:
    """The fields that stand on lines of their own. Missing lines at the end are empty ones."""
    if separator in "\r\n":
        ends = set(_LINE_END.findall(text))
        if ends - form.line_ends or len(ends) > 1:
            violations.append(Violation("", "line_end", ", ".join(sorted(repr(end)[1:-1] for end in ends))))
        lines = _LINE_END.split(text, FIELDS_MAX)
    else:
        lines = text.split(separator, FIELDS_MAX)
    while len(lines) > form.most and not lines[-1]:
        lines.pop()
        violations.append(Violation("", "separator_at_end", "an empty line"))
    if len(lines) > form.most:
        violations.append(Violation("", "too_many", f"{len(lines)} lines"))
    if len(lines) < form.least:
        violations.append(Violation("", "truncated", f"{len(lines)} of {form.least} lines"))
    if form.percent:
        lines = [unquote(line) for line in lines]
    return {
        field.name: lines[field.place] for field in form.fields if 0 <= field.place < len(lines) and lines[field.place]
    }


def _tags(form: Form, text: str, separator: str, violations: list[Violation]) -> dict[str, str]:
    """The named fields. One that the table lacks is kept under its own name; of one that occurs twice the first
    counts."""
    values: dict[str, str] = {}
    parts = text.split(separator, FIELDS_MAX)
    if len(parts) > FIELDS_MAX:
        violations.append(Violation("", "too_many", "fields"))
    for part in parts[:FIELDS_MAX]:
        if not part:
            continue
        tag, mark, value = part.partition(form.mark)
        if not mark:
            violations.append(Violation("", "format", "a field without a name"))
            continue
        field = form.by_tag.get(tag.strip().upper())
        if field is not None and tag != field.tag:
            violations.append(Violation(field.path, "case", excerpt(tag)))
        name = field.name if field is not None else f"tag.{tag[:40]}"
        if name in values:
            violations.append(Violation(field.path if field is not None else excerpt(tag), "duplicate", "again"))
        elif value:
            values[name] = unquote(value) if form.percent else value
    return values


def _control_sum(form: Form, text: str, values: Mapping[str, str], violations: list[Violation]) -> None:
    stated = values.get(form.control_sum, "")
    if not stated:
        return
    place = next(field.place for field in form.fields if field.name == form.control_sum)
    lines = _LINE_END.split(text, FIELDS_MAX)[:place]
    if not _NUMBER(stated) or int(stated) != sum(len(line) + 1 for line in lines):
        violations.append(Violation(str(place + 1), "control_sum", covered(stated)))


class _Read:
    """The fields of one text, judged."""

    def __init__(self, form: Form, values: dict[str, str], strict: list[Violation]) -> None:
        self._form, self._values, self._strict = form, values, strict
        self._by_role: dict[str, str] = {}
        self._minor: int | None = None
        self._bill = False
        for field in form.fields:
            self._judge(field)

    def _judge(self, field: Field) -> None:
        text = self._values.get(field.name, "")
        if not text:
            if field.mandatory:
                self._violation(field, "missing", "nothing")
            return
        # An address under a name stands on lines of its own where fields have names.
        if _CONTROL(text if self._form.layout != TAGS else _LINE_END.sub("", text)):
            self._violation(field, "control_character", covered(text))
        if field.role == "amount":
            self._amount(field, text)
            return
        if field.longest and len(text) > field.longest:
            self._violation(field, "length", f"{len(text)} characters")
        if field.values and text not in field.values:
            self._violation(field, "value", excerpt(text))
        if field.match is not None and field.match(text) is None:
            self._violation(field, "format", covered(text))
        if field.role and field.prefix and text.startswith(field.prefix):
            text = text[len(field.prefix) :]
        if field.role == "account":
            self._account(field, text)
            return
        if field.check is not None and not field.check(text, self._around()):
            self._violation(field, field.rule, covered(text))
        if field.role == "currency" and field.numeric:
            named = BY_NUMBER.get(text)
            text = named[0] if named is not None else text
        if text in field.absent:
            return
        if field.structured:
            self._bill = True
        if field.role == "merchant_name":
            text = _LINE_END.split(text, 1)[0]  # An address may follow.
        if field.role and not field.fixed:
            self._by_role.setdefault(field.role, text)

    def _around(self) -> dict[str, str]:
        return self._values | {role: self._by_role[role] for role in ("account",) if role in self._by_role}

    def _account(self, field: Field, text: str) -> None:
        compact = text.replace(" ", "")
        if compact != text:
            self._violation(field, "white_space", covered(text))
        if field.bic_after:
            compact, _, bic = compact.partition(field.bic_after)
            if bic:
                self._by_role.setdefault("participant", bic)
        if field.check is not None and not field.check(compact, self._values):
            self._violation(field, field.rule, covered(compact))
        self._by_role["account"] = field.iban + compact

    def _amount(self, field: Field, text: str) -> None:
        currency = self._form.currency
        if field.prefix == "{currency}":
            currency, text = text[:3], text[3:]
            if currency not in NUMBER_OF or currency not in self._form.currencies:
                self._violation(field, "currency", excerpt(currency))
            self._by_role["currency"] = currency
        else:
            stated = next((f for f in self._form.fields if f.role == "currency" and f.name in self._values), None)
            if stated is not None:
                given = self._values[stated.name]
                named = BY_NUMBER.get(given) if stated.numeric else None
                currency = named[0] if named is not None else given
        minor, rule = read_amount(field, text, currency)
        if rule == "zero" and field.open:
            return
        if rule is not None and rule != "decimals":
            self._violation(field, rule, excerpt(text))
        self._minor = minor

    def _violation(self, field: Field, rule: str, found: str) -> None:
        self._strict.append(Violation(field.path, rule, found))

    def decoded(self, artefacts: tuple[str, ...]) -> Decoded:
        form, said = self._form, self._by_role
        currency = said.get("currency") or form.currency or None
        if currency is not None and form.currencies and currency not in form.currencies:
            path = next((field.path for field in form.fields if field.role == "currency"), "")
            if not any(violation.rule == "currency" for violation in self._strict):
                self._strict.append(Violation(path, "currency", excerpt(currency)))
        account = said.get("account", "")
        profile = verdict(
            [v for v in self._strict if not form.tolerated & {(v.path, v.rule), ("*", v.rule), (v.path, "*")}]
        )
        participant = said.get("participant", "")
        if account and not participant and form.space == "iban":
            participant = references.bank_of(account)
        parts = [said.get(name, "") for name in form.payee]
        payee = ":".join(part.replace("%", "%25").replace(":", "%3A") for part in parts)
        routing = Routing(form.space, form.account, account, participant, "", payee) if account else None
        purpose = BILL if self._bill else form.purpose
        return Decoded(
            kind=form.kind,
            scheme=form.name,
            strict=verdict(self._strict),
            profile=profile,
            routing=routing,
            candidates=(Candidate(form.name, 100, profile, routing, f"begins as {form.title}", purpose),),
            amount_minor=self._minor,
            tip=NONE,
            amount_due_minor=self._minor,
            currency=currency,
            merchant_name=said.get("merchant_name"),
            initiation="dynamic" if self._minor is not None else "static",
            merchant_city=said.get("merchant_city"),
            merchant_category=None,
            country=said.get("country") or form.country or (account[:2] if form.space == "iban" and account else None),
            reference=said.get("reference") or said.get("message"),
            bill_number=said.get("bill_number"),
            purpose=purpose,
            artefacts=artefacts,
            form=self._values,
        )


def read_amount(field: Field, text: str, currency: str) -> tuple[int | None, str | None]:
    """Minor units and the rule that an amount breaks, as `hutong_contract.amounts.to_minor` answers."""
    exponent = EXPONENT_OF.get(currency, 2)
    if field.match is not None and field.match(text) is None:
        return None, "format"
    if field.amount == "minor":
        if not _NUMBER(text) or (field.width and len(text) != field.width):
            return None, "format"
        return (int(text), None) if int(text) else (None, "zero")
    if field.amount == "comma":
        if "." in text:
            return None, "format"
        text = text.replace(",", ".")
    return to_minor(text, exponent)
