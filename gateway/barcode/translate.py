"""Says a merchant code again in another encoding, and tells what that loses.

Into Hutong's own encoding every recognised merchant code can go: as a merchant of the directory where its account is
known there, otherwise as the other scheme's key, carried whole. Into another scheme a code can go where that scheme's
fields exist: the same account space (UPI and Bharat QR), an account of the target inside the same label, or one that
the directory knows for the same merchant.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from gateway.barcode.build import (
    HUTONG,
    MerchantCode,
    account_and_participant,
    build_foreign_code,
    build_merchant_code,
    says_when_it_ends,
)
from gateway.barcode.decode import decode
from gateway.barcode.forms import FORMS
from gateway.barcode.model import PAYABLE, Decoded, Routing, covered, excerpt
from gateway.barcode.mpm_spec import ROOT, TEMPLATES
from gateway.barcode.profile import PROFILES
from gateway.barcode.routing import Directory
from gateway.barcode.tips import FIXED, NONE
from gateway.barcode.tlv import split
from hutong_contract.currencies import COUNTRIES
from hutong_contract.errors import HutongError, Reason

NAME_CHARACTERS: Final = 25
CITY_CHARACTERS: Final = 15
POSTAL_CHARACTERS: Final = 10
REFERENCE_CHARACTERS: Final = 25
_CARRIED: Final = frozenset({"00", "01", "52", "53", "54", "55", "56", "57", "58", "59", "60", "61", "63"})
"""Root objects whose meaning the target's builder writes anew."""
_LINK_DEFAULTS: Final = {
    "upi": ("IN", "INR"),
    "unionpay": ("CN", "CNY"),
    "alipay": ("CN", "CNY"),
    "wechatpay": ("CN", "CNY"),
}
"""Country and currency that a scheme's links take for granted."""


@dataclass(frozen=True, slots=True)
class Loss:
    """One thing that the translation does not say, or says differently."""

    path: str
    """Where it stood in the original."""
    name: str
    """What it is."""
    reason: str
    """`no_place`, `shortened`, `assumed`, or `other_scheme`."""
    value: str
    """What was lost, or what was written instead."""


@dataclass(frozen=True, slots=True)
class Translation:
    """A code in another encoding."""

    payload: str
    scheme: str
    """The encoding it is in now."""
    source: str
    """The scheme it was in."""
    routing: Routing
    """The key that the translation carries."""
    losses: tuple[Loss, ...]


def translate(
    text: str, target: str = HUTONG, directory: Directory | None = None, account: str | None = None
) -> Translation:
    """Writes a merchant code in another scheme's encoding.

    Args:
        text: what the camera saw.
        target: the scheme to write; Hutong's own by default.
        directory: finds the merchant's accounts in other schemes.
        account: the account in the target scheme, where the caller knows it.

    Raises:
        HutongError: BARCODE_MALFORMED or BARCODE_UNKNOWN where the text is not a merchant code that can be read;
            CODE_NOT_PAYABLE where it asks for no payment; KEY_NOT_PAYEE where it is a payer's code; FIELD_INVALID where
            the target has no place for its account.
    """
    decoded = decode(text)
    _require_merchant_code(decoded)
    losses: list[Loss] = []
    key = _target_key(decoded, target, directory, account)
    code = _merchant_code(decoded, key, target, losses)
    if target not in FORMS and len(code.reference) > REFERENCE_CHARACTERS:
        # Half a reference would be another one.
        losses.append(Loss("62/05", "reference", "no_place", code.reference))
        code = replace(code, reference="")
    if says_when_it_ends(target):
        code = replace(code, expires_us=decoded.expires_us)
    if target == HUTONG and key.scheme != HUTONG:
        payload = build_foreign_code(code, key.scheme, key.kind, key.payee_parts)
    else:
        payload = build_merchant_code(code, target)
    losses += _left_behind(decoded, key, payload)
    routing = decode(payload).routing
    assert routing is not None, "a builder's code always routes"
    _require_payee(routing, key, target, chosen=account is not None)
    return Translation(payload, target, decoded.scheme or "", routing, tuple(losses))


def _require_payee(written: Routing, key: Routing, target: str, *, chosen: bool) -> None:
    """Refuses what would lead to another payee. `chosen`: the caller gave the account, so only that is compared."""
    if not (written.account == key.account if chosen else written.payee == key.payee):
        raise HutongError(
            Reason.ERROR_REASON_FIELD_INVALID,
            field="account",
            problem=f"{target} has no place for all that names this payee; give the account in {target}",
        )


def _require_merchant_code(decoded: Decoded) -> None:
    if decoded.kind in {"payment_code", "emv_cpm"}:
        raise HutongError(Reason.ERROR_REASON_KEY_NOT_PAYEE, kind=decoded.kind)
    if decoded.kind == "unknown" or decoded.scheme is None or decoded.routing is None:
        raise HutongError(Reason.ERROR_REASON_BARCODE_UNKNOWN, kind=decoded.kind)
    if decoded.purpose not in PAYABLE:
        # Another encoding would make a payment of it.
        raise HutongError(Reason.ERROR_REASON_CODE_NOT_PAYABLE, purpose=decoded.purpose or "", scheme=decoded.scheme)
    if decoded.profile is not None and not decoded.profile.valid:
        first = decoded.profile.violations[0]
        raise HutongError(Reason.ERROR_REASON_BARCODE_MALFORMED, path=first.path, rule=first.rule, found=first.found)


def _target_key(decoded: Decoded, target: str, directory: Directory | None, account: str | None) -> Routing:
    """The key that the translation is to carry."""
    assert decoded.routing is not None
    key = decoded.routing
    if account is not None:
        return Routing(_space(target), "merchant_account", account, key.participant, key.terminal_id)
    merchant = directory.merchant(key.scheme, key.payee) if directory is not None else None
    if target == HUTONG:
        return Routing(HUTONG, "merchant_account", merchant.id, "", key.terminal_id) if merchant is not None else key
    found = _key_in(decoded, target)
    if found is not None:
        return found
    known = (
        directory.account_of(merchant.id, _space(target)) if directory is not None and merchant is not None else None
    )
    if known is None:
        raise HutongError(
            Reason.ERROR_REASON_FIELD_INVALID,
            field="account",
            problem=f"{decoded.scheme} names no account of {target}, and the directory knows none for its merchant",
        )
    named, participant = account_and_participant(target, known)
    return Routing(
        _space(target), "merchant_account", named, participant, key.terminal_id, known if named != known else ""
    )


def _key_in(decoded: Decoded, target: str) -> Routing | None:
    """A key of the target scheme, or of one that shares its accounts, inside the code itself."""
    keys = [decoded.routing, *(candidate.routing for candidate in decoded.candidates)]
    for key in keys:
        if key is not None and _space(key.scheme) == _space(target):
            return key
    return None


def _space(scheme: str) -> str:
    """Whose accounts a scheme's or a format's codes hold: `iban` of many formats."""
    if scheme in FORMS:
        return FORMS[scheme].space
    return PROFILES[scheme].account_space if scheme in PROFILES else scheme


def _merchant_code(decoded: Decoded, key: Routing, target: str, losses: list[Loss]) -> MerchantCode:
    """The facts of the original as the target's builder takes them; what had to be shortened or assumed is a loss."""
    country, currency = _LINK_DEFAULTS.get(decoded.scheme or "", ("CN", "CNY"))
    name, city = decoded.merchant_name or "", decoded.merchant_city or ""
    free = target in FORMS  # They have lengths of their own, and nothing is assumed for them.
    code = MerchantCode(
        account=key.account,
        merchant_name=name
        if free
        else _fitted(name, NAME_CHARACTERS, "59", "merchant name", losses) or _assume("59", "merchant name", losses),
        merchant_city=city
        if free
        else _fitted(city, CITY_CHARACTERS, "60", "merchant city", losses) or _assume("60", "merchant city", losses),
        country=decoded.country if decoded.country in COUNTRIES else _assume("58", "country code", losses, country),
        currency=decoded.currency or _assume("53", "transaction currency", losses, currency),
        merchant_category=decoded.merchant_category or "0000",
        amount_minor=decoded.amount_minor,
        terminal_id=key.terminal_id or decoded.terminal_label or "",
        participant=key.participant,
        dynamic=decoded.initiation == "dynamic",
        tip=decoded.tip or NONE,
        tip_minor=decoded.tip_minor if decoded.tip == FIXED else None,
        tip_basis_points=decoded.tip_basis_points,
    )
    additional = _inside(decoded, "62")
    language = _inside(decoded, "64")
    # Forms and bills have their references elsewhere than in object 62.
    profile = PROFILES.get(decoded.scheme or "")
    own = decoded.form is not None or (profile is not None and profile.reference is not None)
    code = replace(
        code,
        reference=decoded.reference or ""
        if own
        else additional.get("05") or ("" if additional else decoded.reference or ""),
        bill_number=decoded.bill_number or "" if own else additional.get("01", ""),
        postal_code=dict(decoded.objects).get("61", ""),
        alternate_language=language.get("00", ""),
        alternate_name=language.get("01", ""),
        alternate_city=language.get("02", ""),
    )
    return replace(code, postal_code=_fitted(code.postal_code, POSTAL_CHARACTERS, "61", "postal code", losses))


def _fitted(value: str, longest: int, path: str, name: str, losses: list[Loss]) -> str:
    if len(value) <= longest:
        return value
    losses.append(Loss(path, name, "shortened", value[longest:]))
    return value[:longest]


def _assume(path: str, name: str, losses: list[Loss], value: str = "NA") -> str:
    """A value for a mandatory object that the original does not have; `NA` is what schemes write for no name."""
    losses.append(Loss(path, name, "assumed", value))
    return value


def _inside(decoded: Decoded, root: str) -> dict[str, str]:
    return dict(split(dict(decoded.objects).get(root, ""))[0])


def _left_behind(decoded: Decoded, key: Routing, payload: str) -> list[Loss]:
    """Every object of the original that the translation does not say: compared with what was really written."""
    written = decode(payload)
    spoken = {value for root, _ in written.objects for value in _inside(written, root).values()}
    spoken |= set((written.form or {}).values())
    losses = [
        Loss("", f"account of {candidate.scheme}", "other_scheme", covered(candidate.routing.account))
        for candidate in decoded.candidates
        if candidate.routing is not None and candidate.routing != key and candidate.scheme != decoded.scheme
    ]
    for root, value in decoded.objects:
        if root in _CARRIED:
            continue
        if root in TEMPLATES:
            inner = split(value)[0]
            losses += [
                Loss(f"{root}/{identifier}", TEMPLATES[root][identifier].name, "no_place", excerpt(item))
                for identifier, item in inner
                if identifier in TEMPLATES[root]
                and identifier != "00"
                and item not in spoken
                and key.account not in item
            ]
        elif key.account not in value:
            losses.append(Loss(root, ROOT[root].name, "no_place", covered(value)))
    if decoded.expires_us is not None and written.expires_us is None:
        losses.append(Loss("", "time of expiry", "no_place", str(decoded.expires_us)))
    if decoded.form is not None:
        known = {*spoken, *(value for _, value in written.objects), key.account, key.participant, decoded.merchant_name}
        losses += [
            Loss(name, name, "no_place", covered(value))
            for name, value in decoded.form.items()
            if value not in known and _says_something(decoded, name)
        ]
    if decoded.link is not None:
        said = {"account", "participant", "amount", "currency", "merchant_name", "merchant_category", "reference"}
        losses += [
            Loss(name, name, "no_place", covered(value)) for name, value in decoded.link.items() if name not in said
        ]
    return losses


def _says_something(decoded: Decoded, name: str) -> bool:
    """Whether a field of a form holds what its writer chose, and not the format's own marks or what is said anyway."""
    field = next((field for field in FORMS[decoded.scheme or ""].fields if field.name == name), None)
    if field is None:
        return True
    said = {"account", "amount", "currency", "country"}
    return not field.fixed and field.role not in said and not field.derive
