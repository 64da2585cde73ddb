"""Routing keys: how a request names the two ends of a payment."""

from __future__ import annotations

from hutong.facepay.v1 import face_pb2
from hutong.gateway.v1.payment_pb2 import MerchantKey, RoutingKey
from hutong.tokenization.v1 import token_pb2


def barcode(text: str) -> RoutingKey:
    """What a camera saw: the text of any QR or bar code, a merchant's or a wallet's."""
    return RoutingKey(barcode=text)


def payment_code(digits: str) -> RoutingKey:
    """The digits of a wallet's one-time code."""
    return RoutingKey(payment_code=digits)


def token(digits: str, requestor_id: str = "", cryptogram: token_pb2.Cryptogram | None = None) -> RoutingKey:
    """A token, with the requestor that presents it, and a cryptogram if its domain asks for one."""
    return RoutingKey(token=token_pb2.TokenKey(token=digits, requestor_id=requestor_id, cryptogram=cryptogram))


def face(sealed: bytes) -> RoutingKey:
    """A sealed face capture."""
    return RoutingKey(face=face_pb2.FaceCapture(sealed=sealed))


def merchant(merchant_id: str, terminal_id: str = "") -> RoutingKey:
    """A merchant of the gateway's directory, and one of its terminals."""
    return RoutingKey(merchant=MerchantKey(merchant_id=merchant_id, terminal_id=terminal_id))
