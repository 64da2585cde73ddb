"""Answers a gRPC call with an error of the table: status, text and details, on grpc.aio."""

from __future__ import annotations

from typing import Any, NoReturn

import grpc

from contract.errors import DETAILS_METADATA_KEY, HutongError


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: HutongError) -> NoReturn:
    """Ends the call with the error's status and its google.rpc details. Does not return."""
    _, text, details = error.packed()
    context.set_trailing_metadata(((DETAILS_METADATA_KEY, details),))
    await context.abort(error.status_code, text)
    raise AssertionError("abort does not return")


def proven_identities(context: grpc.aio.ServicerContext[Any, Any]) -> frozenset[str]:
    """Who the caller is by its certificate (mTLS): the names in it. Empty where the channel proves nothing."""
    return frozenset(bytes(name).decode("utf-8", "replace") for name in context.peer_identities() or ())
