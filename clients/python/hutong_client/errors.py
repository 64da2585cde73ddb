"""Errors of a call other than refusals with a reason of the contract's table (`hutong_contract.errors`)."""

from __future__ import annotations

from typing import Final

import grpc

from hutong_contract.errors import HutongError, from_rpc_error


class CallError(Exception):
    """A call failed for a reason that is not in the contract's table. `code` is the gRPC status, `details` its text."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        self.code = code
        self.details = details
        super().__init__(f"{code.name}: {details}")


class Unreachable(CallError):  # noqa: N818 - names a condition, as callers say it
    """The gateway could not be reached, or the connection broke. What was sent may have been done: repeat it with the
    same idempotency key, or look at the payment."""


class DeadlineExceeded(CallError):  # noqa: N818 - names a condition, as callers say it
    """No answer within the time that the call was given. What was sent may have been done: as above."""


_KINDS: Final = {
    grpc.StatusCode.UNAVAILABLE: Unreachable,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
}


def typed(error: grpc.RpcError) -> HutongError | CallError:
    """The exception to raise for a failed call."""
    reason = from_rpc_error(error)
    if reason is not None:
        return reason
    call: object = error  # every error that a stub raises is also the call itself
    if not isinstance(call, grpc.Call | grpc.aio.AioRpcError):
        return CallError(grpc.StatusCode.UNKNOWN, str(error))
    code = call.code()
    return _KINDS.get(code, CallError)(code, call.details() or "")
