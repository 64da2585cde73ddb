"""Thailand's slip codes: printed on transfer receipts, EMV's grammar with its own objects and checksum.

They prove a payment and take none, so they route nowhere. 00 is a template (00 API, 01 sending bank, 02 reference), 51
the country, 91 the checksum (Bank of Thailand's Thai QR supplement, as described at thai-qr-payment.js.org). The form
of one wallet has 01 event type, 02 reference, 03 date instead.
"""

from __future__ import annotations

from typing import Final

from gateway.barcode.model import Candidate, Decoded, Pair, Violation, covered, excerpt, verdict
from gateway.barcode.payload import CHARACTERS
from gateway.barcode.tlv import crc, split

SCHEME: Final = "thai_slip"
_APIS: Final = frozenset({"000001", "01"})


def looks(text: str) -> bool:
    """Whether a text that begins with object 00 is a slip: 00 is a template, not a version of two digits."""
    return text[2:4].isdigit() and int(text[2:4]) > 8 and text[4:6] == "00"


def decode(text: str, strict: list[Violation], artefacts: tuple[str, ...]) -> Decoded:
    """A slip code's meaning."""
    pairs, problem = split(text)
    violations = [problem] if problem is not None else []
    values = dict(pairs)
    inner = dict(split(values.get("00", ""))[0])
    if inner.get("00") not in _APIS:
        violations.append(Violation("00/00", "value", excerpt(inner.get("00", "nothing"))))
    violations += [Violation(f"00/{part}", "missing", "nothing") for part in ("01", "02") if not inner.get(part)]
    if values.get("51") != "TH":
        violations.append(Violation("51", "country", excerpt(values.get("51", "nothing"))))
    violations += _checksum(text, pairs, values.get("91"))
    profile = verdict(violations)
    return Decoded(
        kind="emv_mpm",
        scheme=SCHEME,
        strict=verdict(strict),
        profile=profile,
        candidates=(Candidate(SCHEME, 100, profile, None),),
        length_reading=CHARACTERS if problem is None else None,
        country="TH",
        reference=inner.get("02"),
        artefacts=artefacts,
        objects=tuple(pairs),
    )


def _checksum(text: str, pairs: list[Pair], stated: str | None) -> list[Violation]:
    if stated is None or pairs[-1][0] != "91":
        return [Violation("91", "missing", "nothing" if stated is None else "not last")]
    computed = crc(text[: -len(stated)])
    return [] if stated.upper() == computed else [Violation("91", "crc_mismatch", f"{covered(stated)}, not {computed}")]
