"""Requests that load a gateway, as bytes: every wallet in turn pays every merchant in turn."""

from __future__ import annotations

import time
from typing import Final

from google.protobuf.timestamp_pb2 import Timestamp

from hutong.gateway.v1 import payment_pb2 as pb
from hutong_contract.wire import framed
from loadtest.h2 import Reply

_KEY_FIELD: Final = b"\x0a"
"""CreatePaymentRequest.idempotency_key."""
_REQUEST_FIELD: Final = b"\x0a"
"""BatchCreatePaymentsRequest.requests."""
_SERVICE: Final = "/hutong.gateway.v1.PaymentService/"
CREATE_PATH: Final = _SERVICE + "CreatePayment"
CREATE_BATCH_PATH: Final = _SERVICE + "BatchCreatePayments"
GET_PATH: Final = _SERVICE + "GetPayment"


class Payments:
    """Makes requests: every wallet in turn pays every merchant in turn, each request with a key of its own."""

    def __init__(
        self, tokens: list[str], merchants: list[tuple[str, str]], *, expires_s: int = 0, prefix: bytes = b"bench"
    ) -> None:
        """`expires_s`: the payments' own deadline, seconds from now; 0 for the gateway's. `prefix` of the keys."""
        deadline = Timestamp(seconds=int(time.time()) + expires_s) if expires_s else None
        self._bodies = [
            pb.CreatePaymentRequest(
                payer=pb.RoutingKey(token={"token": token}),  # type: ignore[arg-type]
                payee=pb.RoutingKey(merchant=pb.MerchantKey(merchant_id=merchant, terminal_id=terminal)),
                amount_minor=100 + index % 900,
                currency="CNY",
                deadline=deadline,
            ).SerializeToString()
            for index, token in enumerate(tokens)
            for merchant, terminal in (merchants[index % len(merchants)],)
        ]
        self._prefix = prefix
        self._made = 0

    def message(self, tag: int) -> bytes:
        """A serialized CreatePaymentRequest: the key is field 1, the rest is prepared."""
        self._made += 1
        key = self._prefix + b"-%016d" % self._made
        return framed(_KEY_FIELD, key) + self._bodies[self._made % len(self._bodies)]

    def batch(self, size: int) -> bytes:
        """A serialized BatchCreatePaymentsRequest of new payments."""
        return b"".join(framed(_REQUEST_FIELD, self.message(0)) for _ in range(size))


def succeeded(reply: Reply) -> bool:
    """Whether a payment ended well."""
    return pb.CreatePaymentResponse.FromString(reply.body).payment.state == pb.PAYMENT_STATE_SUCCEEDED
