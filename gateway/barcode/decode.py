"""Decodes every payment barcode: cleans, classifies, parses and judges it.

`decode` is pure and bounded, and never raises for bad input. Static merchant codes are cached, since the same label is
scanned again and again; codes that live a minute, and everything with a credential, are not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from gateway.barcode import consumer, cpm_spec, families, links, payment_codes, slip
from gateway.barcode.artefacts import clean
from gateway.barcode.model import Decoded, Verdict, Violation, covered, verdict
from gateway.barcode.mpm import parse
from gateway.barcode.payload import Payload
from gateway.barcode.profile import PROFILES, Profile
from gateway.barcode.recognise import candidates, expiry_us, references, unrecognised
from gateway.barcode.tips import ASKED, NONE, tip
from gateway.barcode.tlv import split
from hutong_contract.amounts import to_minor
from hutong_contract.bounded import Bounded
from hutong_contract.currencies import EXPONENT_OF
from hutong_contract.limits import PAYLOAD_CHARACTERS_MAX

ARTICLE_DIGITS_MAX: Final = 14
REMEMBERED_MAX: Final = 8192
"""Most static codes in the cache: some 4 KB each, so about 32 MB at most."""
REMEMBERED_CHARACTERS_MAX: Final = 512
"""Longer codes are not cached: they are not on labels, and would fill memory."""
EXPIRED: Final = "expired"
"""The rule that an expired code breaks."""
ASKED_FOR: Final = "***"
"""In place of a value: the payer's device must fill it in (EMVCo MPM v1.1, 4.8)."""
_NOTHING: Final[Mapping[str, str]] = {}
_INITIATION: Final = {"11": "static", "12": "dynamic"}
_NOT_UNICODE: Final = re.compile("[\ud800-\udfff]").search
_EMV_HEAD: Final = "00020"
_BASE32HEX: Final = re.compile("[0-9A-V]{40,}").fullmatch
"""The alphabet of RFC 4648, chapter 7: digits and capitals to V, and as many as no checksum alone has."""
_REMEMBERED: Final[Bounded[str, Decoded]] = Bounded(REMEMBERED_MAX)


def decode(text: str, *, now_us: int | None = None) -> Decoded:
    """What a camera saw, understood.

    Args:
        text: what the scanner handed over, artefacts and all.
        now_us: UTC in microseconds; with it, a code that says that it has ended gets the violation `expired`.

    Returns:
        The code's kind, scheme, both verdicts, routing key and contents. Never raises for bad input.
    """
    found = _REMEMBERED.get(text)
    if found is None:
        found = _decode(text)
        if found.kind == "emv_mpm" and found.initiation == "static" and len(text) <= REMEMBERED_CHARACTERS_MAX:
            _REMEMBERED.put(text, found)
    if now_us is not None and found.expires_us is not None and found.expires_us <= now_us:
        return _expired(found, now_us)
    return found


def forget() -> None:
    """Clears the cache of static codes."""
    _REMEMBERED.clear()


def _decode(text: str) -> Decoded:
    if len(text) > PAYLOAD_CHARACTERS_MAX:
        return _unknown("too_long", f"{len(text)} characters", ())
    if not text.isascii() and _NOT_UNICODE(text):
        return _unknown("not_unicode", "a surrogate", ())
    text, artefacts = clean(text)
    head = text[:4]
    if len(head) == 4 and head[:2] == "00" and head.isascii() and head.isdigit() and not _article(text):
        if text[:5] != _EMV_HEAD and _BASE32HEX(text) and split(text)[1] is not None:
            # Compressed data that begin like an object, such as PAY by square's, are no damaged merchant code.
            return families.decode(text, artefacts) or _unknown("unrecognised", covered(text), artefacts)
        return _merchant_code(text, artefacts)
    if text.isascii() and text.isdigit():
        found = payment_codes.decode(text, artefacts)
        return found or _unknown("unrecognised", covered(text), artefacts)
    if text.startswith(cpm_spec.PREFIX):
        return consumer.decode(text, artefacts)
    if links.LOOKS(text):
        link = links.decode(text, artefacts)
        if link is not None:
            return link
    found = families.decode(text, artefacts)
    return found or _unknown("unrecognised", covered(text), artefacts)


def _article(text: str) -> bool:
    """Whether a text is an article number of a shop (GTIN-8 to GTIN-14) that happens to begin with zeros."""
    return len(text) <= ARTICLE_DIGITS_MAX and text[:4] != "0002" and text.isascii() and text.isdigit()


def _merchant_code(text: str, artefacts: tuple[str, ...]) -> Decoded:
    payload, strict = parse(text)
    if slip.looks(text):
        return slip.decode(text, strict, artefacts)
    values = payload.values
    fitting = candidates(payload, strict)
    best = fitting[0] if fitting else None
    if strict and any(v.rule == "lower_case" and v.path == "63" for v in strict):
        artefacts = (*artefacts, "lower_case_crc")
    additional = payload.templates.get("62", _NOTHING)
    currency, amount, ends = payload.currency, payload.amount_minor, None
    remote, reference, bill = False, "", ""
    if best is not None:
        profile = PROFILES[best.scheme]
        if profile.default_currency:
            currency, amount = _own_amount(payload, profile)
        if profile.reference is not None:
            reference, bill = references(best, payload)
        if profile.expiries:
            ends = expiry_us(best, payload)
        if best.remote:
            remote, amount = True, None
    asked = tip(values, currency, amount) if "55" in values and not remote else None
    plain = "55" not in values and not remote
    return Decoded(
        kind="emv_mpm",
        scheme=best.scheme if best else None,
        strict=verdict(strict),
        # Where no scheme claims a code that is right by the standard, nobody has judged it.
        profile=best.profile if best else unrecognised(payload) if strict else None,
        routing=best.routing if best else None,
        candidates=tuple(fitting),
        amount_minor=amount,
        tip=NONE if plain else asked.kind if asked else None,
        tip_minor=asked.fee_minor if asked else None,
        tip_basis_points=asked.basis_points if asked else None,
        amount_due_minor=amount if plain else asked.due_minor if asked else None,
        amount_least_minor=amount if asked is not None and asked.kind == ASKED else None,
        currency=currency,
        merchant_name=values.get("59"),
        length_reading=payload.reading,
        initiation=_INITIATION.get(values.get("01", "")) or _implied(payload),
        merchant_city=values.get("60"),
        merchant_category=values.get("52"),
        country=values.get("58"),
        reference=reference or _reference(additional, remote=remote),
        bill_number=bill or (None if remote else additional.get("01")),
        terminal_label=additional.get("07"),
        expires_us=ends,
        purpose=best.purpose if best else None,
        artefacts=artefacts,
        objects=payload.objects,
    )


def _own_amount(payload: Payload, profile: Profile) -> tuple[str | None, int | None]:
    """Currency and amount of a form that has them in its own places: State Bank of Pakistan's, between persons."""
    currency = payload.currency or profile.default_currency
    text = payload.values.get(profile.amount)
    return currency, None if text is None else to_minor(text, EXPONENT_OF[currency])[0]


def _reference(additional: Mapping[str, str], *, remote: bool) -> str | None:
    """The merchant's reference; of a code that only points to the payment, only the mark for "to be filled in"."""
    found = additional.get("05") or additional.get("01")
    return found if not remote or found == ASKED_FOR else None


def _implied(payload: Payload) -> str | None:
    """Without object 01 a code is taken for static (4.7.1 leaves it open; every scheme treats it so)."""
    return "static" if payload.reading is not None else None


def _unknown(rule: str, found: str, artefacts: tuple[str, ...]) -> Decoded:
    judged: Verdict = verdict([Violation("", rule, found)])
    return Decoded(kind="unknown", scheme=None, strict=judged, profile=judged, artefacts=artefacts)


def _expired(found: Decoded, now_us: int) -> Decoded:
    ago_s = (now_us - (found.expires_us or 0)) // 1_000_000
    before = found.profile.violations if found.profile is not None else ()
    judged = verdict([*before, Violation("", EXPIRED, f"{ago_s} s ago")])
    return replace(found, profile=judged)
