"""A client's I/O: send, receive, wait. One class blocks, the other awaits; nothing else differs between the clients.

`hutong_client.calls` is written once, as coroutines over a `Wire`. On `BlockingWire` such a coroutine never suspends,
so `run` and `iterate` drive it without an event loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from hutong_client.errors import CallError
from hutong_client.options import ClientOptions, channel_arguments, channel_credentials

Metadata = tuple[tuple[str, str], ...]
Answer = TypeVar("Answer", bound=Message)
Item = TypeVar("Item")
Result = TypeVar("Result")


class Wire(Protocol):
    """A connection to a gateway. `method` is a path such as "/hutong.gateway.v1.PaymentService/GetPayment"."""

    async def unary(
        self, method: str, request: Message, answer: type[Answer], timeout_s: float, metadata: Metadata
    ) -> Answer:
        """One request, one answer. Raises grpc.RpcError."""
        ...

    def stream(
        self, method: str, request: Message, answer: type[Answer], timeout_s: float | None, metadata: Metadata
    ) -> AsyncGenerator[Answer, None]:
        """One request, many answers; closing the generator cancels the call. Raises grpc.RpcError while iterated."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Waits."""
        ...


class BlockingWire:
    """A wire whose methods return when they are done. Safe to share between threads."""

    def __init__(self, target: str, options: ClientOptions) -> None:
        """Raises ValueError as `options.check_target` does, and for plaintext to a remote machine."""
        self.channel: Final = open_channel(target, options)
        self._methods: dict[str, Any] = {}
        self._closed = threading.Event()

    async def unary(
        self, method: str, request: Message, answer: type[Answer], timeout_s: float, metadata: Metadata
    ) -> Answer:
        with self._open():
            send = _known(self._methods, method, self.channel.unary_unary, answer)
            received: Answer = send(request, timeout=timeout_s, metadata=metadata)
            return received

    async def stream(
        self, method: str, request: Message, answer: type[Answer], timeout_s: float | None, metadata: Metadata
    ) -> AsyncGenerator[Answer, None]:
        with self._open():
            call = _known(self._methods, method, self.channel.unary_stream, answer)(
                request, timeout=timeout_s, metadata=metadata
            )
        try:
            for one in call:
                yield one
        finally:
            call.cancel()

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def close(self) -> None:
        """Closes the connection; calls under way, and later ones, fail with CallError(CANCELLED)."""
        self._closed.set()
        self.channel.close()

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Around the sending of a request. Raises CallError where the wire is closed."""
        try:
            yield
        except ValueError:  # as gRPC says it
            if self._closed.is_set():
                raise _closed() from None
            raise


class AioWire:
    """A wire for asyncio. It belongs to the event loop in which it is first used."""

    def __init__(self, target: str, options: ClientOptions) -> None:
        """Raises ValueError as `BlockingWire` does; connects when it is first used."""
        self._target = target
        self._arguments = channel_arguments(target, options)
        self._credentials = channel_credentials(options)
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[str, Any] = {}
        self._closed = threading.Event()

    @property
    def channel(self) -> grpc.aio.Channel:
        """The gRPC channel, made when it is first asked for: it binds itself to the running event loop."""
        if self._channel is None:
            if self._credentials is None:
                self._channel = grpc.aio.insecure_channel(self._target, self._arguments)
            else:
                self._channel = grpc.aio.secure_channel(self._target, self._credentials, self._arguments)
        return self._channel

    async def unary(
        self, method: str, request: Message, answer: type[Answer], timeout_s: float, metadata: Metadata
    ) -> Answer:
        with self._open():
            send = _known(self._methods, method, self.channel.unary_unary, answer)
            received: Answer = await send(request, timeout=timeout_s, metadata=metadata)
            return received

    async def stream(
        self, method: str, request: Message, answer: type[Answer], timeout_s: float | None, metadata: Metadata
    ) -> AsyncGenerator[Answer, None]:
        with self._open():
            call = _known(self._methods, method, self.channel.unary_stream, answer)(
                request, timeout=timeout_s, metadata=metadata
            )
        answers = aiter(call)
        try:
            while True:
                with self._open():
                    one = await anext(answers, None)
                if one is None:
                    return
                yield one
        finally:
            call.cancel()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def close(self) -> None:
        """Closes the connection; calls under way, and later ones, fail with CallError(CANCELLED)."""
        self._closed.set()
        if self._channel is not None:
            await self._channel.close(None)

    @contextmanager
    def _open(self) -> Iterator[None]:
        """Around the sending of a request and the wait for an answer. Raises CallError where the wire is closed.

        gRPC ends calls of a closed channel as it ends those of a cancelled task; only the latter are to look so.
        """
        if self._closed.is_set():
            raise _closed()
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closed.is_set() and not (task is not None and task.cancelling()):
                raise _closed() from None
            raise


def open_channel(target: str, options: ClientOptions) -> grpc.Channel:
    """A blocking channel to `target`, "host:port" or "unix:/path".

    Raises:
        ValueError: another form of target, or plaintext to a remote machine.
    """
    arguments = channel_arguments(target, options)
    credentials = channel_credentials(options)
    if credentials is None:
        return grpc.insecure_channel(target, arguments)
    return grpc.secure_channel(target, credentials, arguments)


def run(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Runs a coroutine over a BlockingWire to its end, in this thread."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: Result = done.value
        return result
    coroutine.close()
    raise RuntimeError("a coroutine over a blocking wire was suspended")


def iterate(source: AsyncGenerator[Item, None]) -> Iterator[Item]:
    """What an asynchronous generator over a BlockingWire yields; closing the iterator closes it."""
    try:
        while True:
            try:
                item = run(_next(source))
            except StopAsyncIteration:
                return
            yield item
    finally:
        run(source.aclose())


async def _next(source: AsyncGenerator[Item, None]) -> Item:
    return await source.__anext__()


def _closed() -> CallError:
    return CallError(grpc.StatusCode.CANCELLED, "this client is closed: make another one")


def _known(methods: dict[str, Any], method: str, make: Callable[..., Any], answer: type[Message]) -> Any:
    """The channel's function for a method, made once."""
    known = methods.get(method)
    if known is None:
        known = make(method, request_serializer=_serialize, response_deserializer=answer.FromString)
        methods[method] = known
    return known


def _serialize(request: Message) -> bytes:
    return request.SerializeToString()
