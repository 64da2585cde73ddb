"""The grpc.aio front: TLS, mTLS, Unix sockets, streaming. One event loop in a thread of its own.

Serves PaymentService from raw bytes, so that both fronts share every decision, and whatever other services the
composition adds.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import grpc

from gateway.admission import Gate
from gateway.budgets import QueryBudgets
from gateway.calls import METHODS, QUERIES, WATCH, bad_caller, payments_in
from hutong_contract.errors import HutongError
from hutong_contract.names import CALLER_METADATA
from hutong_contract.serving import abort, proven_identities

STREAM_QUEUE_MAX: Final = 64
"""Most messages to a watcher that wait in this process; then its connection counts as full."""

_SERVICE: Final = METHODS[0].split("/")[1]
Context = grpc.aio.ServicerContext[Any, Any]


class AioCall:
    """A call of the aio front. Answers are set on the event loop, many at a time."""

    __slots__ = ("_front", "caller", "future", "method", "payload", "time_left_us")

    def __init__(self, front: AioFront, method: int, payload: bytes, caller: str, time_left_us: int | None) -> None:
        self._front = front
        self.future: asyncio.Future[bytes] = front.loop.create_future()
        self.method = method
        self.payload = payload
        self.caller = caller
        self.time_left_us = time_left_us

    def answer(self, payload: bytes) -> None:
        self._front.deliver(self.future, payload, None)

    def fail(self, error: HutongError) -> None:
        self._front.deliver(self.future, b"", error)


class AioStream:
    """A subscriber to the events of payments, on the aio front."""

    def __init__(self, loop: asyncio.AbstractEventLoop, asker: str, origin: str) -> None:
        self._loop = loop
        self.asker = asker
        self.origin = origin
        self.queue: asyncio.Queue[bytes | HutongError] = asyncio.Queue()
        self.closed = False

    def try_send(self, message: bytes) -> bool:
        if self.queue.qsize() >= STREAM_QUEUE_MAX:
            return False
        self._put(message)
        return True

    def fail(self, error: HutongError) -> None:
        self.closed = True
        self._put(error)

    def _put(self, item: bytes | HutongError) -> None:
        try:
            self._loop.call_soon_threadsafe(self.queue.put_nowait, item)
        except RuntimeError:  # the loop has ended, and the stream with it
            self.closed = True


class AioFront:
    """Passes calls to the gate, which the engine empties."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        gate: Gate,
        budgets: QueryBudgets,
        query: Callable[[AioCall], None],
        watch: Callable[[bytes, AioStream], None],
    ) -> None:
        self.loop = loop
        self._gate = gate
        self._budgets = budgets
        self._query = query
        self._watch = watch
        self._answers: list[tuple[asyncio.Future[bytes], bytes, HutongError | None]] = []
        self._scheduled = False
        self._lock = threading.Lock()

    def handler(self) -> grpc.GenericRpcHandler[Any, Any]:
        """PaymentService, from raw bytes."""
        handlers = {
            path.split("/")[2]: grpc.unary_stream_rpc_method_handler(self._stream)
            if number == WATCH
            else grpc.unary_unary_rpc_method_handler(self._unary(number))
            for number, path in enumerate(METHODS)
        }
        return grpc.method_handlers_generic_handler(_SERVICE, handlers)

    def _unary(self, method: int) -> Callable[[bytes, Context], Any]:
        async def handle(payload: bytes, context: Context) -> bytes:
            left = context.time_remaining()
            left_us = None if left is None or left > 1e9 else int(left * 1e6)
            call = AioCall(self, method, payload, await self._caller(context), left_us)
            if method in QUERIES:
                await self._charge(context)
                self._query(call)
            else:
                self._gate.offer((call,), payments_in(call))
            try:
                return await call.future
            except HutongError as error:
                await abort(context, error)

        return handle

    async def _caller(self, context: Context) -> str:
        """`caller_of`; ends the call where what it says of itself can be no name."""
        caller = caller_of(context)
        refusal = bad_caller(caller) if not proven_identities(context) else None
        if refusal is not None:
            await abort(context, refusal)
        return caller

    async def _stream(self, payload: bytes, context: Context) -> AsyncIterator[bytes]:
        await self._caller(context)
        asker, proven = asker_of(context)
        stream = AioStream(self.loop, await self._charge(context), asker if proven else str(context.peer()))
        self._watch(payload, stream)
        try:
            while True:
                item = await stream.queue.get()
                if isinstance(item, HutongError):
                    await abort(context, item)
                yield item
        finally:
            stream.closed = True

    async def _charge(self, context: Context) -> str:
        """Takes a query from the caller's budget and returns whose budget it is; ends the call if the budget is
        spent."""
        asker, proven = asker_of(context)
        refusal = self._budgets.refusal(asker, proven=proven)
        if refusal is not None:
            await abort(context, refusal)
        return asker

    def deliver(self, future: asyncio.Future[bytes], payload: bytes, error: HutongError | None) -> None:
        """Takes an answer from any thread. Answers are sent to their callers in batches, soon after."""
        with self._lock:
            self._answers.append((future, payload, error))
            if self._scheduled:
                return
            self._scheduled = True
        try:
            self.loop.call_soon_threadsafe(self._set_answers)
        except RuntimeError:  # the loop has ended, and every call with it
            self._answers.clear()

    def _set_answers(self) -> None:
        with self._lock:
            answers, self._answers = self._answers, []
            self._scheduled = False
        for future, payload, error in answers:
            if future.done():
                continue  # the caller left
            if error is None:
                future.set_result(payload)
            else:
                future.set_exception(error)


def caller_of(context: Context) -> str:
    """The owner of the caller's idempotency keys: the identity proven by mTLS, or else the name that the caller gives.
    Never used for authorisation."""
    identities = proven_identities(context)
    if identities:
        return min(identities)
    for key, value in context.invocation_metadata() or ():
        if key == CALLER_METADATA:
            return value if isinstance(value, str) else value.decode("ascii", "replace")
    return ""


def asker_of(context: Context) -> tuple[str, bool]:
    """The owner of the query budget, and whether it is proven: the identity of mTLS, or else the caller's name, or else
    its connection."""
    identities = proven_identities(context)
    if identities:
        return min(identities), True
    return caller_of(context) or str(context.peer()), False
