"""Errors on the wire: a reason from the contract's table, the fields at fault, a gRPC status.

The table is `hutong/status/v1/status.proto`; this module reads it once, so a reason has one code and one text
everywhere. Details follow google.rpc (AIP-193): `ErrorInfo` always, and `RetryInfo` if a time to retry is known.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import grpc
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from hutong.status.v1 import status_pb2 as table

DOMAIN: Final = "hutong"
DETAILS_METADATA_KEY: Final = "grpc-status-details-bin"
Reason = table.ErrorReason

_PREFIX: Final = "ERROR_REASON_"
_STATUS_CODES: Final = {code.value[0]: code for code in grpc.StatusCode}
_RULES: Final = {
    value.number: (value.name.removeprefix(_PREFIX), value.GetOptions().Extensions[table.rule])
    for value in table.ErrorReason.DESCRIPTOR.values
    if value.number
}


class HutongError(Exception):
    """A request was refused, for a reason of the table.

    `reason` is the enum's number, `name` its stable name, `text` what happened and what to do, and `fields`
    facts for the ErrorInfo metadata. Fields must never hold a secret.
    """

    def __init__(self, reason: int, **fields: str) -> None:
        self.reason = reason
        self.fields = fields
        self.retry_us = 0
        """When the same request may be tried again, in microseconds from now; 0 if that is not known."""
        self._packed: tuple[int, str, bytes] | None = None
        super().__init__(reason, fields)

    @property
    def name(self) -> str:
        """The reason's stable name, such as "CODE_SPENT"."""
        return _RULES[self.reason][0]

    @property
    def text(self) -> str:
        """What is wrong, and what the caller can do about it."""
        return str(_RULES[self.reason][1].text)

    @property
    def code(self) -> int:
        """The gRPC status code's number."""
        return int(_RULES[self.reason][1].code)

    @property
    def status_code(self) -> grpc.StatusCode:
        """The gRPC status code."""
        return _STATUS_CODES[self.code]

    def after(self, retry_us: int) -> HutongError:
        """The same refusal, which says when to try again."""
        self.retry_us = retry_us
        self._packed = None
        return self

    def __str__(self) -> str:
        facts = ", ".join(f"{name}={value}" for name, value in sorted(self.fields.items()))
        return f"{self.name}: {self.text}" + (f" ({facts})" if facts else "")

    def to_status(self) -> status_pb2.Status:
        """The google.rpc.Status that travels in `grpc-status-details-bin`."""
        info = error_details_pb2.ErrorInfo(reason=self.name, domain=DOMAIN, metadata=self.fields)
        details = [any_pb2.Any()]
        details[0].Pack(info)
        if self.retry_us:
            retry = error_details_pb2.RetryInfo()
            retry.retry_delay.FromMicroseconds(self.retry_us)
            details.append(any_pb2.Any())
            details[1].Pack(retry)
        return status_pb2.Status(code=self.code, message=str(self), details=details)

    def packed(self) -> tuple[int, str, bytes]:
        """gRPC code, text and serialized status, made once, so that a refusal that many callers get costs little for
        each. Fields must not be changed after it."""
        if self._packed is None:
            status = self.to_status()
            self._packed = (status.code, status.message, status.SerializeToString())
        return self._packed


def from_status(status: status_pb2.Status) -> HutongError | None:
    """Parses what `to_status` wrote; None if the status has no reason of the table."""
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    error: HutongError | None = None
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info) and info.domain == DOMAIN:
            name = _PREFIX + info.reason
            if name in table.ErrorReason.keys():  # noqa: SIM118 - an enum wrapper, not a dict
                error = HutongError(table.ErrorReason.Value(name), **dict(info.metadata))
        elif detail.Is(retry.DESCRIPTOR):
            detail.Unpack(retry)
    if error is not None:
        error.retry_us = max(0, retry.retry_delay.ToMicroseconds())
    return error


def from_rpc_error(error: grpc.RpcError) -> HutongError | None:
    """The typed error of a failed call; None if the failure has no reason of the table (no connection, say)."""
    metadata: Callable[[], Iterable[tuple[str, str | bytes]] | None] = getattr(error, "trailing_metadata", lambda: None)
    for key, value in metadata() or ():
        if key == DETAILS_METADATA_KEY:
            status = status_pb2.Status()
            status.ParseFromString(value if isinstance(value, bytes) else value.encode("latin-1"))
            return from_status(status)
    return None
