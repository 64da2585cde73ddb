"""Resolves barcodes to routes: by a directory file, or by asking a running network; or not at all, if neither is
there."""

from __future__ import annotations

from typing import Any, Final, Protocol

from gateway.barcode.model import Decoded
from gateway.barcode.routing import EMPTY, Directory
from gateway.barcode.shape import to_json
from hutong.gateway.v1 import barcode_pb2 as pb
from hutong.gateway.v1 import barcode_pb2_grpc as rpc
from hutong_client.client import HutongClient
from hutong_contract.errors import HutongError

NOT_ASKED: Final = "recognised, no network was asked"
"""Status of a route if nobody could say which participants there are."""


class Leads(Protocol):
    """Resolves codes to routes."""

    def shape(self, text: str, decoded: Decoded) -> dict[str, Any]:
        """A decoded payload as plain values, with its route and those of its candidates; `text` is the payload."""
        ...


class ByDirectory:
    """Resolves by a directory."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    def shape(self, text: str, decoded: Decoded) -> dict[str, Any]:
        return to_json(decoded, self._directory)


class NotAsked:
    """Resolves nothing: nobody was asked."""

    def shape(self, text: str, decoded: Decoded) -> dict[str, Any]:
        shape = to_json(decoded, EMPTY)
        for one in (shape, *shape["candidates"]):
            if one["route"] is not None:
                one["route"]["status"] = NOT_ASKED
        return shape


class AsNetworkSays:
    """Resolves by a running gateway's directory. Codes are decoded here; the gateway is asked only for their routes."""

    def __init__(self, client: HutongClient) -> None:
        self._client = client
        self._stub = rpc.BarcodeServiceStub(client.channel)

    def shape(self, text: str, decoded: Decoded) -> dict[str, Any]:
        """What the gateway says of the code. Raises as hutong_client.client does."""
        try:
            barcode = self._client.call(self._stub.Decode, pb.DecodeRequest(payload=text), repeatable=True).barcode
        except HutongError:
            return NotAsked().shape(text, decoded)  # a text that no message may hold is no code of anybody
        shape = to_json(decoded, EMPTY)
        routes = [barcode.route, *(one.route for one in barcode.candidates)]
        for one, route in zip((shape, *shape["candidates"]), routes, strict=False):
            if one["route"] is not None and route.status:
                leads = {"status": route.status, "to": route.to or None, "merchant_id": route.merchant_id or None}
                one["route"] |= leads
        return shape
