"""The token service's own keys: one per purpose, so that no key is used for two things. Wrapped by the KEK, in the
vault."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from hutong_contract import transit
from tokenization.errors import VaultDamagedError
from tokenization.keyring import KekStore
from tokenization.suite import KEY_BYTES, SealBrokenError, Suite

PURPOSES: Final = (
    "alias_day",  # day keys of offline codes
    "blind",  # finds an account number without storing it
    "code",  # finds an online code without storing it
    "counter",  # names of budgets and counts
    "device",  # device keys for cryptograms
    "lookup",  # finds what is presented: numbers, face references
    "par",  # payment account references
    "reference",  # names tokens
    "requestor",  # secrets of requestors
    "row",  # tags of rows
    "spend",  # names of what can be spent once
    "token",  # seals token numbers
    "transit",  # signs transit certificates
)


def aad_of(purpose: str, version: int) -> bytes:
    """The additional data that binds a wrapped key to its purpose."""
    return f"hutong purpose {purpose} {version}".encode()


def new_keys(keks: KekStore) -> tuple[int, dict[str, bytes]]:
    """Fresh wrapped keys, and the KEK's version."""
    version = keks.active()
    return version, {name: keks.wrap(version, os.urandom(KEY_BYTES), aad_of(name, version)) for name in PURPOSES}


def unwrap(keks: KekStore, wrapped: Mapping[str, tuple[int, bytes]]) -> dict[str, bytes]:
    """Purpose to key. Raises VaultDamagedError where one is missing or does not open."""
    try:
        return {
            name: keks.unwrap(wrapped[name][0], wrapped[name][1], aad_of(name, wrapped[name][0])) for name in PURPOSES
        }
    except (KeyError, SealBrokenError):
        raise VaultDamagedError(
            "the vault's keys do not open with this key file; both files must come from the same backup"
        ) from None


class Purposes:
    """The keys ready for use: MACs with their key schedule done, and the cipher for token numbers."""

    def __init__(self, keys: Mapping[str, bytes], suite: Suite) -> None:
        self.suite = suite
        self.alias_day = suite.mac(keys["alias_day"])
        self.blind = suite.mac(keys["blind"])
        self.code = suite.mac(keys["code"])
        self.counter = suite.mac(keys["counter"])
        self.device = suite.mac(keys["device"])
        self.lookup = suite.mac(keys["lookup"])
        self.par = suite.mac(keys["par"])
        self.reference = suite.mac(keys["reference"])
        self.requestor = suite.mac(keys["requestor"])
        self.row = suite.mac(keys["row"])
        self.spend = suite.mac(keys["spend"])
        self.token = suite.cipher(keys["token"])
        self.transit = _signing_key(keys["transit"])
        self.transit_public = self.transit.public_key()
        self.transit_key_id = transit.issuer_key_id(self.transit_public)


def _signing_key(seed: bytes) -> ec.EllipticCurvePrivateKey:
    # A 256-bit value is at or above the order of P-256 with a chance of 2^-32: reduced into [1, order - 1].
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    return ec.derive_private_key(int.from_bytes(seed, "big") % (order - 1) + 1, ec.SECP256R1())
