"""Kinds of routing keys, and what each is allowed where its domain does not say otherwise."""

from __future__ import annotations

import enum
from dataclasses import dataclass, replace
from typing import Final

from tokenization.domain import Domain
from tokenization.numbers import BARCODE_RANGE, DEVICE_RANGE, TokenRange


class KeyKind(enum.IntEnum):
    """The kinds of routing keys. The numbers are stored, and equal hutong.tokenization.v1.TokenKeyKind."""

    BARCODE = 1
    PAYMENT_CODE = 2
    DEVICE = 3
    FACE = 4
    TRANSIT = 5


@dataclass(frozen=True, slots=True)
class KindRule:
    """The rules of one kind of key."""

    domain: Domain
    """The domain for what the requestor leaves open: channel and amount."""
    numbers: TokenRange | None = None
    """Source of the key's numbers."""
    needs_device: bool = False


RULES: Final = {
    # A number that does not change counts as a static code: the lowest tier of the limits for bar codes, 500 yuan.
    KeyKind.BARCODE: KindRule(
        Domain(channels=frozenset({"qr_consumer_presented"}), amount_max_minor=50_000), BARCODE_RANGE
    ),
    # A live code can be relayed within its minute, and no clock stops that: the cap bounds what is lost.
    KeyKind.PAYMENT_CODE: KindRule(
        Domain(channels=frozenset({"qr_consumer_presented", "qr_merchant_presented"}), amount_max_minor=500_000)
    ),
    KeyKind.DEVICE: KindRule(
        Domain(
            channels=frozenset({"token", "qr_consumer_presented", "qr_merchant_presented"}), cryptogram_required=True
        ),
        DEVICE_RANGE,
        needs_device=True,
    ),
    KeyKind.FACE: KindRule(Domain(channels=frozenset({"face"}))),
    KeyKind.TRANSIT: KindRule(Domain(channels=frozenset({"transit"}))),
}


def domain_for(kind: KeyKind, asked: Domain | None) -> Domain:
    """The domain of a new key: what was requested, combined with the rules of its kind."""
    own = RULES[kind].domain
    if asked is None:
        return own
    return replace(
        asked,
        channels=asked.channels or own.channels,
        amount_max_minor=asked.amount_max_minor or own.amount_max_minor,
        cryptogram_required=asked.cryptogram_required or own.cryptogram_required,
    )
