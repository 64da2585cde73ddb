"""A wallet: a person's phone that holds a token, shows payment codes and scans merchants' codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from hutong.gateway.v1 import payment_pb2 as pb
from hutong.tokenization.v1 import token_pb2
from hutong_client import keys
from hutong_client.client import HutongClient
from hutong_client.tokens import WALLET_TRID, TokenClient
from hutong_contract import payment_code
from hutong_contract.secret import Secret
from sandbox.cameras import QR, Optics
from sandbox.population import Wallet

ASSURED_BY_ISSUER: Final = "14"
"""EMV assurance method: the issuer vouches for the holder."""


class NotActivatedError(Exception):
    """The wallet has no token yet: activate it first."""


class SimulatedWallet:
    """One person's wallet app. Its token and codes stay in memory; only images of codes are written."""

    def __init__(self, person: Wallet, client: HutongClient, optics: Optics, clock_us: Callable[[], int]) -> None:
        """`clock_us` gives UTC in microseconds: the phone's own clock, which offline codes follow."""
        self.person = person
        self._client = client
        self._optics = optics
        self._clock_us = clock_us
        self._tokens = TokenClient(client)
        self._token: Secret[str] | None = None
        self._offline: token_pb2.ProvisionCodesResponse | None = None

    def activate(self) -> Secret[str]:
        """Asks the token service for the account's token. The same account always gets the same one."""
        account = self.person.account.reveal()
        self._token = self._tokens.request_token(self.person.issuer_id, account, assurance_method=ASSURED_BY_ISSUER)
        return self._token

    @property
    def token(self) -> Secret[str]:
        """The account's token. Raises NotActivatedError."""
        if self._token is None:
            raise NotActivatedError(f"{self.person.id} has no token; call activate() first")
        return self._token

    def online_code(self) -> Secret[str]:
        """A code that the token service reserves for a minute, 19 digits."""
        return self._tokens.reserve_code(self.token)

    def provision(self) -> None:
        """Fetches what offline codes of the day are made from, while there is a network."""
        day = payment_code.day_of(self._clock_us())
        self._offline = self._tokens.provision_codes(self.token, self.person.device_id, day)

    def offline_code(self) -> Secret[str]:
        """The code of this half minute, computed on the phone, 19 digits. Raises NotActivatedError before `provision`,
        and when the day that was provisioned is over."""
        now_us = self._clock_us()
        offline = self._offline
        if offline is None or offline.day != payment_code.day_of(now_us):
            raise NotActivatedError(f"{self.person.id} has no codes for today; call provision() with a network")
        return Secret(payment_code.offline_code(offline.alias, offline.day_key, now_us, offline.suite))

    def show(self, code: Secret[str], symbology: str = QR) -> Path:
        """Shows a code on the screen: an image file, QR or Code 128."""
        return self._optics.show(f"{self.person.id}-{symbology}", code.reveal(), symbology)

    def pay_scanned(self, image: Path, amount_minor: int = 0) -> pb.Payment:
        """Scans a merchant's code and pays it with the wallet's token. Without an amount pays what the code says."""
        text = self._optics.scan(image)
        return self._client.create_payment(
            payer=self.payer_key(),
            payee=keys.barcode(text),
            amount_minor=amount_minor,
            currency=self.person.currency if amount_minor else "",
            reference=f"{self.person.id} scanned {image.stem}",
        )

    def add_face(self, reference: Secret[str]) -> None:
        """Lets a face pay: binds the reference that the face service gave to the wallet's token."""
        self._tokens.add_face(self.token, reference)

    def payer_key(self) -> pb.RoutingKey:
        """The wallet's token as the payer's end of a payment."""
        return keys.token(self.token.reveal(), WALLET_TRID)
