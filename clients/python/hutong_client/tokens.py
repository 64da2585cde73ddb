"""Tokens and one-time codes as Python calls, for a wallet.

with HutongClient("127.0.0.1:50050") as client:
    tokens = TokenClient(client)
    token = tokens.request_token("issuer-a", account_number)
    code = tokens.reserve_code(token)  # what the phone shows
"""

from __future__ import annotations

from typing import Final

from hutong.tokenization.v1 import token_pb2 as pb
from hutong.tokenization.v1 import token_pb2_grpc as rpc
from hutong_client.client import HutongClient
from hutong_client.retries import Caller
from hutong_contract.secret import Secret

WALLET_TRID: Final = "10000000002"
"""The wallet requestor (TRID) that every token service has from the start."""
SECRET_METADATA: Final = "hutong-requestor-secret"


class TokenClient:
    """Asks a gateway's token service in one requestor's name. Raises as `hutong_client.client` says."""

    def __init__(
        self, client: HutongClient, *, requestor: str = WALLET_TRID, secret: Secret[str] | None = None
    ) -> None:
        """`requestor`: a token requestor's TRID. `secret`: what proves it, where it was registered with one."""
        self._requestor = requestor
        metadata = () if secret is None else ((SECRET_METADATA, secret.reveal()),)
        self._caller = Caller(client.options.retry, metadata=metadata)
        self._stub = rpc.TokenServiceStub(client.channel)
        self._deadline_s = client.options.deadline_s

    def request_token(self, issuer_id: str, account_number: str, *, assurance_method: str = "") -> Secret[str]:
        """The account's token, 19 digits: always the same one for the same account.

        `assurance_method`: how the holder was identified (EMV), "00" or "10" to "14"; empty: "00", not at all.
        """
        request = pb.RequestTokenRequest(
            requestor_id=self._requestor,
            issuer_id=issuer_id,
            account_number=account_number,
            assurance_method=assurance_method,
        )
        answer = self._caller.call(self._stub.RequestToken, request, self._deadline_s, repeatable=True)
        return Secret(answer.token)

    def reserve_code(self, token: Secret[str]) -> Secret[str]:
        """A one-time code, 19 digits: good for one payment, for a minute."""
        request = pb.ReserveCodeRequest(requestor_id=self._requestor, name=_name(token))
        return Secret(self._caller.call(self._stub.ReserveCode, request, self._deadline_s, repeatable=False).code)

    def provision_codes(self, token: Secret[str], device_id: str, day: int = 0) -> pb.ProvisionCodesResponse:
        """What a device makes a day's offline codes from (`hutong_contract.payment_code`).

        `day`: days since 1970-01-01 UTC, today or tomorrow; 0 is today."""
        request = pb.ProvisionCodesRequest(
            requestor_id=self._requestor, name=_name(token), device_id=device_id, day=day
        )
        return self._caller.call(self._stub.ProvisionCodes, request, self._deadline_s, repeatable=False)

    def add_face(self, token: Secret[str], reference: Secret[str]) -> None:
        """Lets a face pay: binds the reference that the face service gave to the token."""
        request = pb.CreateKeyRequest(
            requestor_id=self._requestor,
            name=_name(token),
            kind=pb.TOKEN_KEY_KIND_FACE,
            face_reference=reference.reveal(),
        )
        self._caller.call(self._stub.CreateKey, request, self._deadline_s, repeatable=False)


def _name(token: Secret[str]) -> pb.TokenName:
    return pb.TokenName(token=token.reveal())
