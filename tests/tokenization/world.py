"""What the tests of the token service stand on: a clock that they move, a small vault, uses of keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hutong_contract.errors import HutongError
from hutong_contract.secret import Secret
from tokenization.interface import Account, KeyUse, PayerKeyKind, Resolution
from tokenization.keyring import KdfCost
from tokenization.service import TokenService, open_service

CHEAP = KdfCost(passes=1, memory_kib=64)
PASSPHRASE: Secret[str] = Secret("correct horse battery staple")
START_US = 1_795_300_000_000_000
PAN = "6225880112345674"


class Clock:
    """UTC in microseconds, as the test says."""

    def __init__(self, now_us: int = START_US) -> None:
        self.now_us = now_us

    def __call__(self) -> int:
        return self.now_us

    def move_s(self, seconds: float) -> None:
        self.now_us += int(seconds * 1_000_000)


class World:
    """One vault folder, its service and its clock."""

    def __init__(self, folder: Path, suite: str | None = None) -> None:
        self.folder = folder
        self.clock = Clock()
        self.service = self.open(suite)

    def open(self, suite: str | None = None) -> TokenService:
        return open_service(self.folder, PASSPHRASE, suite=suite, clock_us=self.clock, cost=CHEAP)

    def reopen(self) -> TokenService:
        self.service.close()
        self.service = self.open()
        return self.service

    def token(self, number: str = PAN, issuer: str = "issuer-a", **terms: Any) -> Secret[str]:
        return self.service.register_accounts([Account(issuer, Secret(number))], **terms)[0].token

    def resolve(self, use: KeyUse) -> Resolution | HutongError:
        return self.service.resolve([use], self.clock.now_us)[0]

    def resolved(self, use: KeyUse) -> Resolution:
        answer = self.resolve(use)
        assert isinstance(answer, Resolution), str(answer)
        return answer

    def refused(self, use: KeyUse) -> HutongError:
        answer = self.resolve(use)
        assert isinstance(answer, HutongError), "it was allowed"
        return answer


def use(kind: PayerKeyKind, value: str | Secret[str], **facts: Any) -> KeyUse:
    """A use that every open domain allows."""
    channels = {
        PayerKeyKind.TOKEN: "token",
        PayerKeyKind.FACE: "face",
        PayerKeyKind.TRANSIT: "transit",
    }
    fields: dict[str, Any] = {
        "amount_minor": 1_000,
        "currency": "CNY",
        "merchant_id": "merchant-1",
        "terminal_id": "terminal-1",
        "merchant_category": "5411",
        "channel": channels.get(kind, "qr_consumer_presented"),
    }
    fields.update(facts)
    return KeyUse(kind=kind, value=Secret(value) if isinstance(value, str) else value, **fields)
