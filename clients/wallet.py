"""A wallet: a person's phone that holds a token, shows payment codes and scans merchants' codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from clients import keys
from clients.client import HutongClient
from clients.optics import QR, Optics
from clients.population import Wallet
from contract import payment_code
from contract.secret import Secret
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.tokenization.v1 import token_pb2, token_pb2_grpc

REQUESTOR_ID: Final = "10000000002"
"""The wallet requestor (TRID) that every token service has from the start."""
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
        self._tokens = token_pb2_grpc.TokenServiceStub(client.channel)
        self._token: Secret[str] | None = None
        self._offline: token_pb2.ProvisionCodesResponse | None = None

    def activate(self) -> Secret[str]:
        """Asks the token service for the account's token. The same account always gets the same one."""
        request = token_pb2.RequestTokenRequest(
            requestor_id=REQUESTOR_ID,
            issuer_id=self.person.issuer_id,
            account_number=self.person.account.reveal(),
            assurance_method=ASSURED_BY_ISSUER,
        )
        self._token = Secret(self._client.call(self._tokens.RequestToken, request, repeatable=True).token)
        return self._token

    @property
    def token(self) -> Secret[str]:
        """The account's token. Raises NotActivatedError."""
        if self._token is None:
            raise NotActivatedError(f"{self.person.id} has no token; call activate() first")
        return self._token

    def online_code(self) -> Secret[str]:
        """A code that the token service reserves for a minute, 19 digits."""
        request = token_pb2.ReserveCodeRequest(requestor_id=REQUESTOR_ID, name=self._name())
        return Secret(self._client.call(self._tokens.ReserveCode, request).code)

    def provision(self) -> None:
        """Fetches what offline codes of the day are made from, while there is a network."""
        request = token_pb2.ProvisionCodesRequest(
            requestor_id=REQUESTOR_ID,
            name=self._name(),
            device_id=self.person.device_id,
            day=payment_code.day_of(self._clock_us()),
        )
        self._offline = self._client.call(self._tokens.ProvisionCodes, request)

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
        request = token_pb2.CreateKeyRequest(
            requestor_id=REQUESTOR_ID,
            name=self._name(),
            kind=token_pb2.TOKEN_KEY_KIND_FACE,
            face_reference=reference.reveal(),
        )
        self._client.call(self._tokens.CreateKey, request)

    def payer_key(self) -> pb.RoutingKey:
        """The wallet's token as the payer's end of a payment."""
        return keys.token(self.token.reveal(), REQUESTOR_ID)

    def _name(self) -> token_pb2.TokenName:
        return token_pb2.TokenName(token=self.token.reveal())
