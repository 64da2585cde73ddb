"""Errors at the edge of a grpc.aio server: every failed call ends with an error of the table, its text and details.

`Guard` wraps all services of a server. A service raises HutongError, or aborts by itself; any other exception is a
defect, which the caller gets as INTERNAL with the number of the log's entry, never with its text.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeAlias

import grpc
from google.protobuf.message import DecodeError

from hutong_contract.errors import DETAILS_METADATA_KEY, HutongError, Reason
from hutong_contract.incidents import incident, too_large

log = logging.getLogger(__name__)

TRANSPORT_TIMES: Final = 4
"""The transport accepts messages of this many times a service's limit, so that those above the limit are refused with
details. It refuses larger ones itself, with RESOURCE_EXHAUSTED alone."""

_SAN: Final = "x509_subject_alternative_name"
"""gRPC's name for them in an authenticated context."""

Context = grpc.aio.ServicerContext[Any, Any]
Parse = Callable[[bytes], Any]
if TYPE_CHECKING:
    Handler: TypeAlias = grpc.RpcMethodHandler[Any, Any]
    Interceptor: TypeAlias = grpc.aio.ServerInterceptor[Any, Any]
else:  # generic for the type checker alone
    Interceptor = grpc.aio.ServerInterceptor


async def abort(context: Context, error: HutongError) -> NoReturn:
    """Ends the call with the error's status and its google.rpc details. Does not return."""
    _, text, details = error.packed()
    context.set_trailing_metadata(((DETAILS_METADATA_KEY, details),))
    await context.abort(error.status_code, text)
    raise AssertionError("abort does not return")


def proven_identities(context: Context) -> frozenset[str]:
    """The caller's identities by its certificate (mTLS): its subject alternative names. Empty if the channel proves
    nothing. A CN is no identity: an authority may have signed it unchecked."""
    names = context.auth_context().get(_SAN, ())
    return frozenset(bytes(name).decode("utf-8", "replace") for name in names)


def proves(context: Context, identity: str, known: Container[str]) -> bool:
    """Whether the caller's certificate is that of this one, among those that are known here. One certificate stands for
    one of them: a certificate that names several proves none."""
    return [name for name in proven_identities(context) if name in known] == [identity]


class Guard(Interceptor):
    """Wraps every method of every service of a server: bounds messages, and turns exceptions into typed errors."""

    def __init__(self, most_bytes: int, known: Callable[[Exception], HutongError | None] = lambda _: None) -> None:
        """`most_bytes`: the largest message that services accept. `known`: the errors of exceptions that are no
        defects, such as a journal that cannot be read; None for all others."""
        self._most_bytes = most_bytes
        self._known = known
        self._handlers: dict[str, tuple[Handler, Handler]] = {}
        """Method's path to its handler and the same under guard: made once, there are as many as methods."""

    @property
    def options(self) -> list[tuple[str, int]]:
        """The server's options that belong to it."""
        return [("grpc.max_receive_message_length", self._most_bytes * TRANSPORT_TIMES)]

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler: Handler | None = await continuation(handler_call_details)
        if handler is None:
            return handler  # type: ignore[return-value] # a method that nobody serves: gRPC says UNIMPLEMENTED
        path = str(handler_call_details.method)
        known = self._handlers.get(path)
        if known is None or known[0] is not handler:
            known = self._handlers[path] = (handler, self._guarded(handler, path))
        return known[1]

    def _guarded(self, handler: Handler, path: str) -> Handler:
        """The same method with the guard. It receives its requests as bytes, which are parsed here."""
        inner: Any = next(
            one
            for one in (handler.unary_unary, handler.unary_stream, handler.stream_unary, handler.stream_stream)
            if one is not None
        )
        parse: Parse | None = handler.request_deserializer
        take = self._all if handler.request_streaming else self._one
        if inspect.isasyncgenfunction(inner):

            async def stream(raw: Any, context: Context) -> AsyncIterator[Any]:
                error: HutongError | None = None
                try:
                    async with contextlib.aclosing(inner(take(raw, parse), context)) as answers:
                        async for answer in answers:
                            yield answer
                except grpc.aio.AbortError:
                    raise
                except Exception as raised:  # noqa: BLE001 - the edge of every service
                    error = self._typed(raised, path)
                if error is not None:
                    await abort(context, error)

            call: Any = stream
        elif inspect.iscoroutinefunction(inner):

            async def once(raw: Any, context: Context) -> Any:
                try:
                    return await inner(take(raw, parse), context)
                except grpc.aio.AbortError:
                    raise
                except Exception as raised:  # noqa: BLE001 - as above
                    error = self._typed(raised, path)
                return await abort(context, error)

            call = once
        else:
            raise TypeError(f"{path} is served by a function that is not asynchronous")
        kinds = {
            (False, False): grpc.unary_unary_rpc_method_handler,
            (False, True): grpc.unary_stream_rpc_method_handler,
            (True, False): grpc.stream_unary_rpc_method_handler,
            (True, True): grpc.stream_stream_rpc_method_handler,
        }
        make = kinds[bool(handler.request_streaming), bool(handler.response_streaming)]
        made: Handler = make(call, None, handler.response_serializer)
        return made

    def _one(self, raw: bytes, parse: Parse | None) -> Any:
        """A request. Raises HutongError where it is too large or malformed."""
        if len(raw) > self._most_bytes:
            raise too_large(self._most_bytes)
        if parse is None:
            return raw
        try:
            return parse(raw)
        except DecodeError:
            raise HutongError(Reason.ERROR_REASON_MESSAGE_MALFORMED) from None

    async def _all(self, raws: AsyncIterator[bytes], parse: Parse | None) -> AsyncIterator[Any]:
        """A stream of requests."""
        async for raw in raws:
            yield self._one(raw, parse)

    def _typed(self, raised: Exception, path: str) -> HutongError:
        if isinstance(raised, HutongError):
            return raised
        return self._known(raised) or incident(log, path, raised)
