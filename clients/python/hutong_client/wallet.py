"""An emulated wallet: a phone that holds a token, shows payment codes and scans merchants' codes."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, Protocol, TypeVar

from hutong.gateway.v1 import payment_pb2 as pb
from hutong.tokenization.v1 import token_pb2
from hutong_client import keys
from hutong_client.client import HutongClient
from hutong_client.optics import QR, Blind, Optics
from hutong_contract import payment_code
from hutong_contract.secret import Secret

ASSURED_BY_ISSUER: Final = "14"
"""EMV assurance method: the issuer vouches for the holder."""


class Person(Protocol):
    """The owner of a wallet. `Holder` is one; a test bed may have its own."""

    @property
    def id(self) -> str:
        """Names the wallet in references of payments and in image files."""
        ...

    @property
    def issuer_id(self) -> str:
        """The issuer's id in the gateway's directory."""
        ...

    @property
    def account(self) -> Secret[str]:
        """The account number at the issuer."""
        ...

    @property
    def currency(self) -> str:
        """Of the account, ISO 4217."""
        ...

    @property
    def device_id(self) -> str:
        """The phone: offline codes are provisioned for it."""
        ...


@dataclass(frozen=True, slots=True)
class Holder:
    """A person with an account and a phone; see Person."""

    id: str
    issuer_id: str
    account: Secret[str]
    currency: str
    device_id: str = "phone-1"


Who = TypeVar("Who", bound=Person)


class NotActivatedError(Exception):
    """The wallet has no token yet: activate it first."""


def utc_us() -> int:
    """UTC now, microseconds since 1970."""
    return time.time_ns() // 1_000


class EmulatedWallet(Generic[Who]):
    """One person's wallet app. Its token and codes stay in memory; only images of codes are written."""

    def __init__(
        self,
        person: Who,
        client: HutongClient,
        optics: Optics | None = None,
        clock_us: Callable[[], int] = utc_us,
    ) -> None:
        """`optics`: screen and camera; without them codes are digits only. `clock_us`: UTC in microseconds, the phone's
        own clock, which offline codes follow."""
        self.person = person
        self._client = client
        self._optics = optics or Blind()
        self._clock_us = clock_us
        self._token: Secret[str] | None = None
        self._offline: token_pb2.ProvisionCodesResponse | None = None

    def activate(self) -> Secret[str]:
        """Asks the token service for the account's token. The same account always gets the same one."""
        account = self.person.account.reveal()
        self._token = self._client.request_token(self.person.issuer_id, account, assurance_method=ASSURED_BY_ISSUER)
        return self._token

    @property
    def token(self) -> Secret[str]:
        """The account's token. Raises NotActivatedError."""
        if self._token is None:
            raise NotActivatedError(f"{self.person.id} has no token; call activate() first")
        return self._token

    def online_code(self) -> Secret[str]:
        """A code that the token service reserves for a minute, 19 digits."""
        return self._client.reserve_code(self.token)

    def provision(self) -> None:
        """Fetches what the day's offline codes are computed from, while there is a network."""
        day = payment_code.day_of(self._clock_us())
        self._offline = self._client.provision_codes(self.token, self.person.device_id, day=day)

    def offline_code(self) -> Secret[str]:
        """The code of this half minute, computed on the phone, 19 digits. Raises NotActivatedError before `provision`,
        and when the day that was provisioned is over."""
        now_us = self._clock_us()
        offline = self._offline
        if offline is None or offline.day != payment_code.day_of(now_us):
            raise NotActivatedError(f"{self.person.id} has no codes for today; call provision() with a network")
        return Secret(payment_code.offline_code(offline.alias, offline.day_key, now_us, offline.suite))

    def show(self, code: Secret[str], symbology: str = QR) -> Path:
        """Shows a code on the screen: an image file, QR or Code 128. Raises NoOpticsError without optics."""
        return self._optics.show(f"{self.person.id}-{symbology}", code.reveal(), symbology)

    def pay_scanned(self, image: Path, amount_minor: int = 0) -> pb.Payment:
        """Scans a merchant's code and pays it with the wallet's token. Without an amount pays what the code says."""
        return self.pay(keys.barcode(self._optics.scan(image)), amount_minor, f"{self.person.id} scanned {image.stem}")

    def pay(self, payee: pb.RoutingKey, amount_minor: int = 0, reference: str = "") -> pb.Payment:
        """Pays any payee's key with the wallet's token: `keys.barcode(text)`, `keys.merchant(id)`, …"""
        return self._client.create_payment(
            payer=self.payer_key(),
            payee=payee,
            amount_minor=amount_minor,
            currency=self.person.currency if amount_minor else "",
            reference=reference,
        )

    def add_face(self, reference: Secret[str]) -> None:
        """Lets a face pay: binds the reference that the face service gave to the wallet's token."""
        self._client.add_face(self.token, reference)

    def payer_key(self) -> pb.RoutingKey:
        """The wallet's token as the payer's end of a payment."""
        return keys.token(self.token.reveal(), self._client.options.requestor)
