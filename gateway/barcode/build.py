"""Writes barcodes: merchant codes of every scheme that has a `build` table, bills and credit transfers of every format
in `formats/`, and Hutong's consumer codes.

What is written is decoded again before it is returned, so a builder cannot produce what this package would refuse.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

from gateway.barcode import cpm_spec, form_write, tips
from gateway.barcode.ber import Item
from gateway.barcode.ber import join as join_ber
from gateway.barcode.consumer import decode as decode_consumer
from gateway.barcode.decode import decode
from gateway.barcode.forms import FORMS, Form
from gateway.barcode.model import Decoded, Pair
from gateway.barcode.profile import KIND_CODES, PROFILES, Build, Part, Profile
from gateway.barcode.recognise import written_moment
from gateway.barcode.tlv import join, seal
from hutong_contract.amounts import from_minor
from hutong_contract.currencies import EXPONENT_OF, NUMBER_OF
from hutong_contract.errors import HutongError, Reason
from hutong_contract.secret import Secret

HUTONG: Final = "hutong"
HUTONG_APPLICATION: Final = bytes.fromhex(PROFILES[HUTONG].applications[0])
KEY_TEMPLATE: Final = "io.hutong.key"
ACCOUNT_TEMPLATE: Final = "io.hutong.account"
PAYEE_TEMPLATE: Final = "io.hutong.payee"
_LETTER_OF: Final = {kind: letter for letter, kind in KIND_CODES.items()}
_PROMPTPAY_KIND: Final = "00"
BASIS_POINTS_MAX: Final = 9_999
"""99.99 %, the most that object 57 says."""
ACCOUNT_PARTS_MAX: Final = 4
"""Most fields that one account is made of."""


@dataclass(frozen=True, slots=True)
class MerchantCode:
    """The content of a merchant code. Empty fields are left out, or not required by the scheme."""

    account: str
    """The merchant's id inside the scheme; for Hutong the merchant's id."""
    merchant_name: str
    merchant_city: str = ""
    country: str = "CN"
    """ISO 3166 alpha-2."""
    currency: str = "CNY"
    """ISO 4217 alphabetic."""
    merchant_category: str = "0000"
    """ISO 18245, four digits."""
    amount_minor: int | None = None
    """None: the payer enters it."""
    terminal_id: str = ""
    participant: str = ""
    """BIN, BIC or organisation id, if the scheme's template asks for one."""
    reference: str = ""
    bill_number: str = ""
    postal_code: str = ""
    tip: str = tips.NONE
    """`none`, `asked`, `fixed` (with `tip_minor`) or `percent` (with `tip_basis_points`, 1 to 9999)."""
    tip_minor: int | None = None
    tip_basis_points: int | None = None
    created_us: int | None = None
    """When the code is made, UTC in microseconds, for schemes whose codes say it; None: now."""
    expires_us: int | None = None
    """When the code ends, UTC in microseconds, for schemes whose codes say it; None: it does not."""
    dynamic: bool | None = None
    """Whether the code is for one payment; None: it is if it has an amount."""
    alternate_language: str = ""
    """ISO 639 code of the next two."""
    alternate_name: str = ""
    alternate_city: str = ""


def build_merchant_code(code: MerchantCode, scheme: str = HUTONG) -> str:
    """Writes a merchant code, static or dynamic.

    Raises:
        HutongError: FIELD_INVALID, with the field or the violations, where the scheme cannot be written or a field does
            not fit it.
    """
    if scheme in FORMS:
        return _form(code, FORMS[scheme])
    profile = PROFILES.get(scheme)
    if profile is None or profile.build is None:
        raise _invalid("scheme", f"{scheme} cannot be written; these can: {', '.join(writable())}")
    if code.expires_us is not None and not says_when_it_ends(scheme):
        raise _invalid("expires_us", f"codes of {scheme} do not say when they end")
    values = _values(code) | _times(code, profile)
    accounts = _account_objects(profile.build, values)
    return _finish(code, accounts, profile.build.omit, scheme, _objects(profile.build.extra, values))


def build_foreign_code(code: MerchantCode, scheme: str, kind: str, payee: str = "") -> str:
    """Writes another scheme's routing key (`code.account`) in Hutong's own encoding.

    `payee` is the key's `payee_parts`: what names the payee where the account alone does not.

    Raises:
        HutongError: FIELD_INVALID where the key or a field does not fit.
    """
    key = [("00", KEY_TEMPLATE), ("01", scheme), ("02", _LETTER_OF[kind])]
    key += [("03", code.participant)] if code.participant else []
    key += [("04", code.terminal_id)] if code.terminal_id else []
    try:
        accounts = [("26", join(key)), ("27", join([("00", ACCOUNT_TEMPLATE), ("01", code.account)]))]
        accounts += [("28", join([("00", PAYEE_TEMPLATE), ("01", payee)]))] if payee else []
    except ValueError as error:
        raise _invalid("account", str(error)) from error
    profile = PROFILES[HUTONG]
    assert profile.build is not None, "the gateway's own codes can be written"
    return _finish(code, accounts, frozenset(), HUTONG, _objects(profile.build.extra, _times(code, profile)))


def account_and_participant(scheme: str, payee: str) -> tuple[str, str]:
    """The account and the participant in a text that names a payee of a scheme, as in `Routing.payee` and in a
    directory. If the scheme's accounts need no participant, the text is the account."""
    profile = PROFILES.get(scheme)
    routes = [route for account in profile.accounts for route in account.routes if route.payee] if profile else []
    texts = [unquote(text) for text in payee.split(":")]
    for route in routes:
        if len(texts) > len(route.payee):
            continue
        found = dict(zip(route.payee, texts, strict=False))  # Fields at the end that a code lacks are left out.
        account = _slice_of(route.account, found)
        if account:
            return account, _slice_of(route.participant, found) if route.participant is not None else ""
    return payee, ""


def _slice_of(wanted: Part, found: Mapping[Part, str]) -> str:
    """The characters of a field that a part names, from the parts that have them; empty if none does."""
    for part, text in found.items():
        ends = part.end is None or (wanted.end is not None and wanted.end <= part.end)
        if not part.literal and part.path == wanted.path and part.start <= wanted.start and ends:
            return text[wanted.start - part.start : None if wanted.end is None else wanted.end - part.start]
    return ""


def says_when_it_ends(scheme: str) -> bool:
    """Whether codes of a scheme, as they are written here, have a field for their expiry."""
    build = PROFILES[scheme].build if scheme in PROFILES else None
    return build is not None and any("{expires}" in pattern for _, pattern in (*build.fields, *build.extra))


def writable() -> list[str]:
    """Names of the schemes and formats whose codes can be written."""
    return sorted([*(name for name, profile in PROFILES.items() if profile.build is not None), *FORMS])


def _form(code: MerchantCode, form: Form) -> str:
    """A bill or credit transfer, verified by reading it."""
    if code.tip != tips.NONE:
        raise _invalid("tip", f"{form.name} has no place for a tip or a fee")
    if code.expires_us is not None:
        raise _invalid("expires_us", f"codes of {form.name} do not say when they end")
    said = {
        "account": code.account,
        "participant": code.participant,
        "merchant_name": code.merchant_name,
        "merchant_city": code.merchant_city,
        "postal_code": code.postal_code,
        "country": code.country,
        "reference": code.reference,
        "bill_number": code.bill_number,
    }
    try:
        fields = form_write.fields_of(form, said, code.amount_minor, code.currency)
        text = form_write.write(form, fields)
    except (ValueError, KeyError) as error:
        raise _invalid("code", str(error)) from error
    return _proven(text, form.name)


def _values(code: MerchantCode) -> dict[str, str]:
    account = code.account
    digits = account.isascii() and account.isdigit()
    parts = [unquote(part) for part in account.split("/")]
    return {
        **{f"account/{n}": parts[n] if n < len(parts) else "" for n in range(ACCOUNT_PARTS_MAX)},
        "account": account,
        "participant": code.participant,
        "terminal": code.terminal_id,
        "reference": code.reference,
        "bill_number": code.bill_number,
        "editable": "0" if code.amount_minor is not None else "1",
        "paynow_type": "0" if account.startswith("+") else "2",
        "account:email": account if "@" in account[1:] else "",
        "account:alias": account if account.startswith("@") else "",
        # A Thai proxy's object follows from its length.
        "account:00": account if digits and len(account) == 13 and account.startswith(_PROMPTPAY_KIND) else "",
        "account:13": account if digits and len(account) == 13 and not account.startswith(_PROMPTPAY_KIND) else "",
        "account:15": account if digits and len(account) == 15 else "",
    }


def _is_dynamic(code: MerchantCode) -> bool:
    return code.amount_minor is not None if code.dynamic is None else code.dynamic


def _times(code: MerchantCode, profile: Profile) -> dict[str, str]:
    """Times as the scheme writes them; empty if the code has none."""
    created_us = time.time_ns() // 1_000 if code.created_us is None else code.created_us
    times = {"created": str(created_us // 1_000) if _is_dynamic(code) else "", "expires": ""}
    if code.expires_us is not None and profile.expiries:
        first = profile.expiries[0]
        try:
            times["expires"] = written_moment(code.expires_us, first.format, first.offset_minutes)
        except (ValueError, OverflowError) as error:
            raise _invalid("expires_us", str(error)) from error
    return times


def _objects(rows: tuple[tuple[str, str], ...], values: Mapping[str, str]) -> list[Pair]:
    """Objects from rows such as `("99/00", "{created}")`; one that would hold only fixed text is left out."""
    found: dict[str, list[Pair]] = {}
    filled: set[str] = set()
    for path, pattern in rows:
        text = _fill(pattern, values)
        root, _, identifier = path.partition("/")
        if text:
            found.setdefault(root, []).append((identifier, text))
            if text != pattern:
                filled.add(root)
    return [(root, join(pairs)) for root, pairs in found.items() if root in filled]


def _account_objects(build: Build, values: Mapping[str, str]) -> list[Pair]:
    """The account template, from the profile's rows; a row whose values are all empty is left out."""
    outer: list[Pair] = []
    nested: dict[str, list[Pair]] = {}
    primitive = ""
    for path, pattern in build.fields:
        text = _fill(pattern, values)
        if not text:
            continue
        identifier, _, inner = path.partition("/")
        if not identifier:
            primitive = text
        elif inner:
            if identifier not in nested:
                outer.append((identifier, ""))
            nested.setdefault(identifier, []).append((inner, text))
        else:
            outer.append((identifier, text))
    try:
        filled = [
            (identifier, join(nested[identifier]) if identifier in nested else text) for identifier, text in outer
        ]
        parts = sum(1 for n in range(ACCOUNT_PARTS_MAX) if values[f"account/{n}"])
        return [(build.template_by_parts.get(parts, build.template), primitive or join(filled))]
    except ValueError as error:
        raise _invalid("account", str(error)) from error


def _fill(pattern: str, values: Mapping[str, str]) -> str:
    text = pattern
    for name, value in values.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def _finish(
    code: MerchantCode, accounts: list[Pair], omit: frozenset[str], scheme: str, more: Sequence[Pair] = ()
) -> str:
    """The objects around the account and the checksum; verifies that the whole is valid."""
    if code.currency not in NUMBER_OF:
        raise HutongError(Reason.ERROR_REASON_CURRENCY_UNKNOWN, field="currency")
    objects: list[Pair] = [("00", "01"), ("01", "12" if _is_dynamic(code) else "11"), *accounts]
    objects.append(("52", code.merchant_category))
    objects.append(("53", NUMBER_OF[code.currency]))
    if code.amount_minor is not None:
        objects.append(("54", _amount(code.amount_minor, code.currency, "amount_minor")))
    objects += _tip(code)
    objects += [("58", code.country), ("59", code.merchant_name), ("60", code.merchant_city), ("61", code.postal_code)]
    try:
        objects.append(("62", _additional(code, scheme)))
        objects.append(("64", _language(code)))
        objects += more
        text = seal([pair for pair in objects if pair[1] and not (pair[0] in omit and not _given(pair[0], code))])
    except ValueError as error:
        raise _invalid("code", str(error)) from error
    return _proven(text, scheme)


def _given(identifier: str, code: MerchantCode) -> bool:
    """Whether the caller filled in an object that the scheme's own codes leave out."""
    return {"52": code.merchant_category not in {"", "0000"}, "59": True, "60": bool(code.merchant_city)}[identifier]


def _amount(minor: int, currency: str, field: str) -> str:
    try:
        return from_minor(minor, EXPONENT_OF[currency])
    except ValueError as error:
        raise HutongError(Reason.ERROR_REASON_AMOUNT_NOT_POSITIVE, field=field, problem=str(error)) from error


def _tip(code: MerchantCode) -> list[Pair]:
    """Objects 55 to 57."""
    given = {tips.FIXED: code.tip_minor is not None, tips.PERCENT: code.tip_basis_points is not None}
    if code.tip not in {tips.NONE, tips.ASKED, *given}:
        raise _invalid("tip", f"none, asked, fixed or percent, not {code.tip[:20]}")
    wrong = next((kind for kind, present in given.items() if present != (kind == code.tip)), None)
    if wrong is not None:
        raise _invalid("tip", "fixed goes with tip_minor, percent with tip_basis_points, and neither with another")
    if code.tip == tips.NONE:
        return []
    objects = [("55", tips.INDICATORS[code.tip])]
    if code.tip_minor is not None:
        objects.append(("56", _amount(code.tip_minor, code.currency, "tip_minor")))
    if code.tip_basis_points is not None:
        if not 1 <= code.tip_basis_points <= BASIS_POINTS_MAX:
            raise _invalid("tip_basis_points", f"1 to {BASIS_POINTS_MAX}")
        objects.append(("57", tips.written_percentage(code.tip_basis_points)))
    return objects


def _additional(code: MerchantCode, scheme: str) -> str:
    terminal = code.terminal_id if scheme != HUTONG else ""
    if PROFILES[scheme].reference is not None:
        return join([("07", terminal)]) if terminal else ""  # Its references stand in the account's object.
    reference = code.reference or ("***" if scheme == "pix" else "")
    pairs = [("01", code.bill_number), ("05", reference), ("07", terminal)]
    return join(pair for pair in pairs if pair[1])


def _language(code: MerchantCode) -> str:
    if not code.alternate_language:
        return ""
    pairs = [("00", code.alternate_language), ("01", code.alternate_name), ("02", code.alternate_city)]
    return join(pair for pair in pairs if pair[1])


def _proven(text: str, scheme: str) -> str:
    """The text, after it was decoded to its scheme without a violation of the scheme's profile."""
    decoded: Decoded = decode(text)
    mine = next((candidate for candidate in decoded.candidates if candidate.scheme == scheme), None)
    if mine is None:
        raise _invalid("account", f"the code would not be recognised as {scheme}")
    if not mine.profile.valid:
        first = mine.profile.violations[0]
        raise HutongError(
            Reason.ERROR_REASON_FIELD_INVALID, field=first.path or "code", rule=first.rule, found=first.found
        )
    return text


def _invalid(field: str, problem: str) -> HutongError:
    return HutongError(Reason.ERROR_REASON_FIELD_INVALID, field=field, problem=problem)


@dataclass(frozen=True, slots=True)
class ConsumerCode:
    """What a wallet shows to a terminal: a token or payment code, with its proof."""

    value: Secret[str]
    """The token's or the payment code's digits, at most 19."""
    application: bytes = HUTONG_APPLICATION
    """Application identifier; Hutong's own by default."""
    label: str = "HUTONG"
    cryptogram: bytes | None = None
    counter: int | None = None
    unpredictable_number: int | None = None
    issuer_data: bytes | None = None
    requestor_id: str = ""
    """11 digits."""
    account_reference: str = ""
    """29 characters."""
    last_four: str = ""


def build_consumer_code(code: ConsumerCode) -> str:
    """Writes an EMV consumer-presented code. The text is a credential: show it, never log it.

    Raises:
        HutongError: FIELD_INVALID where a field does not fit the standard.
    """
    digits = code.value.reveal()
    if not (digits.isascii() and digits.isdigit() and 13 <= len(digits) <= 19):
        raise _invalid("value", "13 to 19 digits are needed")
    elements = [
        Item("4F", code.application),
        Item("50", code.label.encode("ascii", "replace")),
        Item("5A", bytes.fromhex(digits + "F" * (len(digits) % 2))),
    ]
    if code.requestor_id:
        elements.append(Item("9F19", bytes.fromhex(code.requestor_id.rjust(12, "0"))))
    if code.account_reference:
        elements.append(Item("9F24", code.account_reference.encode("ascii", "replace")))
    if code.last_four:
        elements.append(Item("9F25", bytes.fromhex(code.last_four)))
    proof = _proof(code)
    if proof:
        elements.append(Item(cpm_spec.APPLICATION_DATA, join_ber(proof)))
    items = [
        Item(cpm_spec.FORMAT_TAG, cpm_spec.FORMAT_VALUE),
        Item(cpm_spec.APPLICATION, join_ber([e for e in elements if e.value])),
    ]
    text = base64.b64encode(join_ber(items)).decode("ascii")
    strict = decode_consumer(text).strict
    if strict is None or not strict.valid:
        first = strict.violations[0] if strict is not None else None
        raise _invalid(first.path if first else "code", first.rule if first else "not a consumer code")
    return text


def _proof(code: ConsumerCode) -> list[Item]:
    proof = []
    if code.issuer_data is not None:
        proof.append(Item("9F10", code.issuer_data))
    if code.cryptogram is not None:
        proof.append(Item("9F26", code.cryptogram))
    if code.counter is not None:
        proof.append(Item("9F36", code.counter.to_bytes(2)))
    if code.unpredictable_number is not None:
        proof.append(Item("9F37", code.unpredictable_number.to_bytes(4)))
    return proof
