"""Recognises numeric payment codes by their longest prefix, from the table in payment_codes.toml."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib import resources
from types import MappingProxyType
from typing import Final

from gateway.barcode.model import Candidate, Credential, Decoded, Routing, Verdict, Violation, verdict
from hutong_contract.secret import Secret

DIGITS_MIN: Final = 16
DIGITS_MAX: Final = 24
"""No scheme's code is shorter or longer; other numbers are other things, such as articles in a shop."""


@dataclass(frozen=True, slots=True)
class Prefix:
    """What a prefix means."""

    scheme: str
    participant: str
    shortest: int
    longest: int
    lifetime_us: int


def _load() -> dict[str, Prefix]:
    data = tomllib.loads((resources.files("gateway.barcode") / "payment_codes.toml").read_text("utf-8"))
    return {
        prefix: Prefix(
            row["scheme"], row["participant"], row["digits"][0], row["digits"][1], row["lifetime_s"] * 1_000_000
        )
        for row in data["code"]
        for prefix in row["prefixes"]
    }


PREFIXES: Final = MappingProxyType(_load())
_LONGEST: Final = max(map(len, PREFIXES))
_SHORTEST: Final = min(map(len, PREFIXES))


def lookup(digits: str) -> tuple[str, Prefix] | None:
    """The longest prefix of the table that a number begins with."""
    for length in range(_LONGEST, _SHORTEST - 1, -1):
        found = PREFIXES.get(digits[:length])
        if found is not None and len(digits) >= length:
            return digits[:length], found
    return None


def decode(digits: str, artefacts: tuple[str, ...] = ()) -> Decoded | None:
    """A payment code's meaning; None where the number is no payment code of a scheme known here.

    The digits are in the credential only, masked; the routing account is the public prefix.
    """
    found = lookup(digits)
    if found is None or not DIGITS_MIN <= len(digits) <= DIGITS_MAX:
        return None
    prefix, row = found
    violations = []
    if not row.shortest <= len(digits) <= row.longest:
        violations.append(Violation("", "length", f"{len(digits)} digits, {row.shortest} to {row.longest} allowed"))
    profile: Verdict = verdict(violations)
    routing = Routing(row.scheme, "payment_code", prefix, row.participant)
    return Decoded(
        kind="payment_code",
        scheme=row.scheme,
        strict=None,
        profile=profile,
        routing=routing,
        candidates=(Candidate(row.scheme, 100, profile, routing),),
        initiation="dynamic",
        artefacts=artefacts,
        credential=Credential("payment_code", Secret(digits), lifetime_us=row.lifetime_us),
    )
