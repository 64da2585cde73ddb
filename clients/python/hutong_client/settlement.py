"""Settlement as Python calls: windows, positions and statements, as an operator or as a participant."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import grpc

from hutong.gateway.v1 import settlement_pb2 as pb
from hutong.gateway.v1 import settlement_pb2_grpc as rpc
from hutong_client.client import HutongClient, Request, Response, Unary
from hutong_client.errors import CallError, typed
from hutong_contract.names import PARTICIPANT_SECRET_METADATA, REQUESTOR_SECRET_METADATA
from hutong_contract.secret import Secret

PAGE: Final = 500
STATEMENT_S: Final = 600.0
"""Deadline of a whole statement, which may have a million lines."""


class SettlementClient:
    """Asks a gateway's settlement service in one caller's name. Raises as `hutong_client.client` says."""

    def __init__(
        self, client: HutongClient, *, requestor: str = "", participant: str = "", secret: Secret[str] | None = None
    ) -> None:
        """`requestor`: an operator's TRID; or `participant`: a participant's id. `secret`: its secret, if no
        certificate proves its identity."""
        self._who = pb.SettlementCaller(requestor_id=requestor, participant_id=participant)
        name = REQUESTOR_SECRET_METADATA if requestor else PARTICIPANT_SECRET_METADATA
        self._metadata = () if secret is None else ((name, secret.reveal()),)
        self._client = client
        self._stub = rpc.SettlementServiceStub(client.channel)

    def close_window(self, number: int) -> pb.SettlementWindow:
        """Closes the next window, or shows it as it was closed before. Safe to repeat."""
        request = pb.CloseWindowRequest(caller=self._who, number=number)
        return self._ask(self._stub.CloseWindow, request).window

    def window(self, number: int) -> pb.SettlementWindow:
        """A closed window."""
        request = pb.GetWindowRequest(caller=self._who, number=number)
        return self._ask(self._stub.GetWindow, request).window

    def windows(self) -> Iterator[pb.SettlementWindow]:
        """Closed windows, newest first."""
        token = ""
        while True:
            request = pb.ListWindowsRequest(caller=self._who, page_size=PAGE, page_token=token)
            answer = self._ask(self._stub.ListWindows, request)
            yield from answer.windows
            token = answer.next_page_token
            if not token:
                return

    def positions(self, number: int) -> Iterator[pb.SettlementPosition]:
        """Positions of a window: a participant's own, or for an operator all."""
        token = ""
        while True:
            request = pb.ListPositionsRequest(caller=self._who, number=number, page_size=PAGE, page_token=token)
            answer = self._ask(self._stub.ListPositions, request)
            yield from answer.positions
            token = answer.next_page_token
            if not token:
                return

    def statement(self, number: int, participant: str, shape: int, currency: str = "") -> Iterator[bytes]:
        """A statement's bytes, piece by piece, in the shape of a StatementFormat. Raises CallError(DATA_LOSS) at the
        end if they are not what the gateway sent."""
        request = pb.ReadStatementRequest(
            caller=self._who,
            number=number,
            participant_id=participant,
            format=shape,  # type: ignore[arg-type]
            currency=currency,
        )
        digest, size, last = hashlib.sha256(), 0, pb.ReadStatementResponse()
        stream = self._stub.ReadStatement(request, timeout=STATEMENT_S, metadata=self._metadata)
        try:
            for last in stream:
                digest.update(last.content)
                size += len(last.content)
                if last.content:
                    yield last.content
        except grpc.RpcError as failure:
            raise typed(failure) from None
        finally:
            stream.cancel()  # type: ignore[no-untyped-call]
        if (last.sha256, last.size_bytes) != (digest.digest(), size):
            raise CallError(grpc.StatusCode.DATA_LOSS, "the statement did not arrive as it was sent; read it again")

    def _ask(self, method: Unary[Request, Response], request: Request) -> Response:
        """Every call may be repeated: a window is closed once."""
        return self._client.call(method, request, repeatable=True, metadata=self._metadata)
