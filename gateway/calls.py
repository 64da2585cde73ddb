"""Calls, as both fronts pass them to the engine: raw bytes in; raw bytes or a typed error out."""

from __future__ import annotations

from typing import Final

from gateway.engine.ports import Call
from hutong_contract.errors import HutongError, Reason
from hutong_contract.limits import CALLER_CHARACTERS_MAX
from hutong_contract.names import CALLER_METADATA
from hutong_contract.wire import framed, read_varint

CREATE: Final = 0
CREATE_BATCH: Final = 1
CANCEL: Final = 2
REFUND: Final = 3
CAPTURE: Final = 4
GET: Final = 5
RECEIPT: Final = 6
WATCH: Final = 7
LIST: Final = 8
METHODS: Final = (
    "/hutong.gateway.v1.PaymentService/CreatePayment",
    "/hutong.gateway.v1.PaymentService/BatchCreatePayments",
    "/hutong.gateway.v1.PaymentService/CancelPayment",
    "/hutong.gateway.v1.PaymentService/RefundPayment",
    "/hutong.gateway.v1.PaymentService/CapturePayment",
    "/hutong.gateway.v1.PaymentService/GetPayment",
    "/hutong.gateway.v1.PaymentService/GetReceipt",
    "/hutong.gateway.v1.PaymentService/WatchPayments",
    "/hutong.gateway.v1.PaymentService/ListPayments",
)
"""Paths of the methods, indexed by the numbers above. The engine serves those before GET."""
QUERIES: Final = frozenset({GET, RECEIPT, WATCH, LIST})
"""Methods that count against their caller's query budget."""
NEW_WORK: Final = frozenset({CREATE, CREATE_BATCH, REFUND})
"""Methods that begin payments or refunds. In an overload they are refused first."""


_REQUEST_TAG: Final = 0x0A
"""BatchCreatePaymentsRequest.requests."""
_RESULT_FIELD: Final = b"\x0a"
"""BatchCreatePaymentsResponse.results."""
_ERROR_FIELD: Final = b"\x12"
"""BatchCreatePaymentsResult.error."""


def bad_caller(caller: str) -> HutongError | None:
    """What to refuse a caller's name with; None where it may be one."""
    if len(caller) <= CALLER_CHARACTERS_MAX and (not caller or (caller.isascii() and caller.isprintable())):
        return None
    most = str(CALLER_CHARACTERS_MAX)
    return HutongError(Reason.ERROR_REASON_FIELD_INVALID, field=CALLER_METADATA, most=most, of="printable ASCII")


def batch_size(payload: bytes) -> int:
    """Number of requests in a serialized BatchCreatePaymentsRequest; at least 1. Skips over them without parsing. Of a
    malformed message the readable part counts; it is rejected later, when it is parsed."""
    at, size, end = 0, 0, len(payload)
    while at < end and payload[at] == _REQUEST_TAG:
        length, at = read_varint(payload, at + 1)
        at += length
        size += 1
    return max(size, 1)


def payments_in(call: Call) -> int:
    """Number of payments requested; 1 unless a batch."""
    return batch_size(call.payload) if call.method == CREATE_BATCH else 1


class BatchWaiter:
    """Collects the answers to the parts of a batch and sends them as one BatchCreatePaymentsResponse.

    A part's answer is a CreatePaymentResponse, whose bytes are those of a BatchCreatePaymentsResult with the
    payment set; so results are framed here without being parsed.
    """

    __slots__ = ("_call", "_left", "_results")

    def __init__(self, call: Call, size: int) -> None:
        self._call = call
        self._left = size
        self._results: list[bytes] = [b""] * size

    def part(self, index: int) -> BatchPart:
        """The waiter of one request of the batch."""
        return BatchPart(self, index)

    def put(self, index: int, result: bytes) -> None:
        """Takes the result of one part; the last one sends the response."""
        if self._results[index]:
            return
        self._results[index] = framed(_RESULT_FIELD, result)
        self._left -= 1
        if not self._left:
            self._call.answer(b"".join(self._results))


class BatchPart:
    """Waits for one payment of a batch."""

    __slots__ = ("_batch", "_index")

    def __init__(self, batch: BatchWaiter, index: int) -> None:
        self._batch = batch
        self._index = index

    def answer(self, payload: bytes) -> None:
        """Takes the payment."""
        self._batch.put(self._index, payload)

    def fail(self, error: HutongError) -> None:
        """Takes the error: field 2 of BatchCreatePaymentsResult."""
        status = error.to_status().SerializeToString()
        self._batch.put(self._index, framed(_ERROR_FIELD, status))
