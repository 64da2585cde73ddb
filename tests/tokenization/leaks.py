"""Searches files and captured text for secrets, in every spelling in which they could have slipped out."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

SHORTEST = 8
"""Secrets shorter than this would be found by chance."""


@dataclass(frozen=True)
class Leak:
    """A secret (by its place in the list, not by its value) in a file or text, as one of its spellings."""

    secret: int
    where: str
    spelling: str


def spellings(secret: str | bytes) -> dict[str, bytes]:
    """Every way in which a secret may stand in a file: itself, hexadecimal, base64, as an integer's bytes."""
    raw = secret.encode() if isinstance(secret, str) else secret
    found = {
        "plain": raw,
        "hex": raw.hex().encode(),
        "HEX": raw.hex().upper().encode(),
        "base64": base64.b64encode(raw).rstrip(b"="),
        "base64url": base64.urlsafe_b64encode(raw).rstrip(b"="),
        "utf16": secret.encode("utf-16-le") if isinstance(secret, str) else raw,
    }
    if isinstance(secret, str) and secret.isdigit():
        number = int(secret)
        if number >= 2**40:
            width = (number.bit_length() + 7) // 8
            found["integer"] = number.to_bytes(width, "big")
            found["integer, reversed"] = number.to_bytes(width, "little")
        found["grouped"] = " ".join(secret[at : at + 4] for at in range(0, len(secret), 4)).encode()
        found["packed"] = bytes.fromhex(secret if len(secret) % 2 == 0 else secret + "f")
    return found


def find_leaks(
    secrets: Iterable[str | bytes], folders: Iterable[Path], texts: Iterable[tuple[str, str]] = ()
) -> list[Leak]:
    """Leaks in all files under the folders, and in captured texts (name, text): logs, errors, metrics, reprs."""
    places = [(name, text.encode("utf-8", "surrogatepass")) for name, text in texts]
    for folder in folders:
        places += [(str(path), path.read_bytes()) for path in sorted(folder.rglob("*")) if path.is_file()]
    found = []
    for at, secret in enumerate(secrets):
        assert len(secret) >= SHORTEST, "too short to be searched for"
        for spelling, needle in spellings(secret).items():
            found += [Leak(at, name, spelling) for name, data in places if needle in data]
    return found
