"""Recognises the scheme of an EMV consumer code, and extracts the credential for the token service."""

from __future__ import annotations

from typing import Final

from gateway.barcode import cpm, payment_codes
from gateway.barcode import cpm_spec as spec
from gateway.barcode.model import Candidate, Credential, Decoded, Routing, Verdict, Violation, covered, verdict
from gateway.barcode.profile import PROFILES, Profile
from gateway.barcode.recognise import tolerated
from hutong_contract.secret import Secret

BIN_DIGITS: Final = 8
"""Leading digits of an account number that may be shown and routed by."""
NUMBER_DIGITS_MIN: Final = 13
"""Shorter numbers are no account of a payment scheme (ISO/IEC 7812), and their leading digits would be most of them."""
NUMBER_DIGITS_MAX: Final = 19
_APPLICATIONS: Final = sorted(
    ((prefix, profile) for profile in PROFILES.values() for prefix in profile.applications),
    key=lambda pair: -len(pair[0]),
)


def decode(text: str, artefacts: tuple[str, ...] = ()) -> Decoded:
    """Decodes a consumer code. The token and everything that could pay is in the credential, masked."""
    payload, strict = cpm.parse(text)
    credential = _credential(payload)
    found = [_candidate(rank, elements, credential, strict) for rank, elements in enumerate(payload.applications)]
    fitting = [candidate for candidate in found if candidate is not None]
    best = fitting[0] if fitting else None
    unknown = verdict([Violation("61/4F", "scheme_unknown", "application not known here")]) if strict else None
    profile = best.profile if best else unknown  # Of an application that nobody here knows nobody has judged.
    return Decoded(
        kind="emv_cpm",
        scheme=best.scheme if best else None,
        strict=verdict(strict),
        profile=profile,
        routing=best.routing if best else None,
        candidates=tuple(fitting),
        initiation="dynamic",
        artefacts=artefacts,
        credential=credential,
    )


def _candidate(
    rank: int, elements: cpm.Elements, credential: Credential | None, strict: list[Violation]
) -> Candidate | None:
    """The scheme of one application, matched by the longest prefix of its identifier."""
    identifier = elements.get("4F", b"").hex().upper()
    profile = next((profile for prefix, profile in _APPLICATIONS if identifier.startswith(prefix)), None)
    if profile is None:
        return None
    violations = [violation for violation in strict if not tolerated(profile, violation)]
    judged: Verdict = _judge(profile, credential, violations)
    number = credential.value.reveal() if credential is not None else ""
    # A field longer than any number (ISO/IEC 7812) is filled with zeros in front.
    account = (number.lstrip("0") if len(number) > NUMBER_DIGITS_MAX else number)[:BIN_DIGITS]
    routing = Routing(profile.name, "consumer_code", account, account) if account else None
    return Candidate(profile.name, 100 - rank, judged, routing)


def _judge(profile: Profile, credential: Credential | None, violations: list[Violation]) -> Verdict:
    if credential is None:
        violations.append(Violation("61/5A", "no_account", "nothing that names an account"))
    elif profile.pan is not None and not profile.pan(credential.value.reveal()):
        violations.append(Violation("61/5A", "pan", covered(credential.value.reveal())))
    return verdict(violations)


def _credential(payload: cpm.Payload) -> Credential | None:
    pan, track2 = payload.find("5A"), payload.find("57")
    track = track2.hex().upper().rstrip("F") if track2 is not None else ""
    number = cpm.digits(pan) if pan is not None else track.partition("D")[0]
    if not (number.isascii() and number.isdigit() and len(number) >= NUMBER_DIGITS_MIN):
        return None
    reference = payload.find("9F24")
    last_four = payload.find("9F25")
    requestor = payload.find("9F19")
    known = payment_codes.lookup(number)
    own_code = known is not None and known[1].scheme == "hutong" and len(number) == known[1].shortest
    return Credential(
        kind="payment_code" if own_code else "token",
        value=Secret(number),
        track2=Secret(track) if track else None,
        cryptogram=_secret(_transparent(payload, "9F26")),
        counter=_number(_transparent(payload, "9F36"), 2),
        unpredictable_number=_number(_transparent(payload, "9F37"), 4),
        issuer_data=_secret(_transparent(payload, "9F10")),
        requestor_id=cpm.digits(requestor)[-11:] if requestor is not None else "",
        account_reference=Secret(reference.decode("ascii")) if reference is not None and reference.isascii() else None,
        last_four=last_four.hex() if last_four is not None and last_four.hex().isdigit() else "",
        lifetime_us=known[1].lifetime_us if own_code and known is not None else None,
    )


def _transparent(payload: cpm.Payload, tag: str) -> bytes | None:
    """A field in a transparent template, where the standard puts it, or beside it, where some wallets do."""
    for template in (spec.APPLICATION_DATA, spec.COMMON_DATA):
        found = payload.find_inside(template, tag)
        if found is not None:
            return found
    return payload.find(tag)


def _secret(value: bytes | None) -> Secret[bytes] | None:
    return Secret(value) if value is not None else None


def _number(value: bytes | None, size: int) -> int | None:
    return int.from_bytes(value) if value is not None and len(value) == size else None
