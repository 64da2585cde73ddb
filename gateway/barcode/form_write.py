"""Writes bills and credit transfers by the tables of `forms`, the way `form_read` reads them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote

from gateway.barcode import bysquare
from gateway.barcode.forms import FORMS, LINES, PACKED, Field, Form
from hutong_contract.currencies import EXPONENT_OF, NUMBER_OF

_NOT_IN_HEAD: Final = re.compile(r"[/?#%&\s]")
_PLAIN: Final = " !\"$&'(),/:;<=>?@[]^_{|}~"


def fields_of(form: Form, said: Mapping[str, str], amount_minor: int | None, currency: str) -> dict[str, str]:
    """The fields that say something in a format: `said` is text by role; amounts in minor units of `currency`.

    Raises:
        ValueError: the format has no place for something that must be said, such as a currency; the message says what.
    """
    if form.currencies and currency not in form.currencies:
        raise ValueError(f"{form.name} is paid in {', '.join(sorted(form.currencies))}, not in {currency}")
    rest = {role: text for role, text in said.items() if text}
    fields: dict[str, str] = {}
    for field in form.fields:
        text = field.fixed or _value(field, rest, amount_minor, currency)
        if field.derive:
            text = next((text for text, fits in field.derive if fits(said.get("reference", ""))), "")
        if text:
            fields[field.name] = text
    if "reference" in rest:
        raise ValueError(f"{form.name} has no place for the reference as it is")
    return fields


def _value(field: Field, rest: dict[str, str], amount_minor: int | None, currency: str) -> str:
    if field.role == "amount":
        return _amount(field, amount_minor, currency)
    if field.role == "currency":
        return NUMBER_OF[currency] if field.numeric else currency
    if field.role == "account":
        account = rest.get("account", "").removeprefix(field.iban)
        return field.prefix + account if account else ""
    # A reference that no structured field takes is written as a text.
    role = "reference" if field.role == "message" and "reference" in rest else field.role
    text = rest.get(role, "")
    if not role or not text:
        return ""
    if field.fits is not None and field.fits(text) is None:
        return ""
    if field.structured and field.check is not None and not field.check(text, {}):
        return ""
    rest.pop(role)
    return field.prefix + text if not text.startswith(field.prefix) else text


def _amount(field: Field, minor: int | None, currency: str) -> str:
    if minor is None:
        return "0".rjust(field.width, "0") if field.open else ""
    if minor <= 0:
        raise ValueError("an amount is positive")
    exponent = EXPONENT_OF[currency]
    digits = str(minor)
    if field.amount == "minor":
        if field.width and len(digits) > field.width:
            raise ValueError(f"an amount has at most {field.width} digits here")
        return digits.rjust(field.width, "0")
    padded = digits.rjust(exponent + 1, "0")
    mark = "," if field.amount == "comma" else "."
    text = f"{padded[:-exponent]}{mark}{padded[-exponent:]}" if exponent else padded
    return (currency if field.prefix == "{currency}" else field.prefix) + text


def write(form: Form, fields: Mapping[str, str]) -> str:
    """The text that holds these fields, named as in the table.

    Raises:
        ValueError: a value holds what separates fields.
    """
    for name, text in fields.items():
        if form.layout == LINES and not form.percent and (form.separator in text or "\n" in text or "\r" in text):
            raise ValueError(f"{name} holds what ends a line")
    if form.layout == PACKED:
        return bysquare.pack(fields)
    if form.layout == LINES:
        return _lines(form, fields)
    return _tags(form, fields)


def _lines(form: Form, fields: Mapping[str, str]) -> str:
    by_place = {field.place: fields.get(field.name, "") for field in form.fields if field.name != form.control_sum}
    lines = [by_place.get(place, "") for place in range(form.most)]
    if form.control_sum:
        place = next(field.place for field in form.fields if field.name == form.control_sum)
        lines[place] = f"{sum(len(line) + 1 for line in lines[:place]):03d}"
    while len(lines) > max(form.least, 1) and not lines[-1]:
        lines.pop()
    if form.percent:
        lines = [quote(line, safe=_PLAIN.replace(form.separator, "") + "+-.") for line in lines]
    return form.separator.join(lines) + form.trailing


def _tags(form: Form, fields: Mapping[str, str]) -> str:
    parts = []
    for field in form.fields:
        text = fields.get(field.name, "")
        if not text or not field.tag:
            continue
        if form.percent:
            text = quote(text, safe=_PLAIN.replace(form.separator, "").replace("%", "") + "+-.")
        elif form.separator in text:
            raise ValueError(f"{field.name} holds {form.separator!r}")
        parts.append(f"{field.tag}{form.mark}{text}")
    head = form.written_head
    for field in form.fields:
        if field.head:
            text = fields.get(field.name, field.head)
            head = head.replace(f"{{{field.name}}}", _NOT_IN_HEAD.sub(lambda found: quote(found[0], safe=""), text))
    return head + form.separator.join(parts) + form.trailing


def rewrite(name: str, fields: Mapping[str, str]) -> str:
    """A text of the format `name` again from the fields that reading one gave.

    Raises:
        ValueError: as `write`.
    """
    return write(FORMS[name], fields)
