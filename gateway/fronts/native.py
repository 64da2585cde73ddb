"""The native front: HTTP/2 and gRPC in Rust, outside the GIL; calls reach the engine in batches.

Plaintext only: for loopback, or a Unix socket behind a TLS proxy. Methods other than PaymentService's go to a grpc.aio
server on a Unix socket. While the engine is busy it empties this front itself, once a tick; only when it is idle does a
thread wait here in its place, so that under load no thread is woken for a call.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from pygrpc_native import EVENT_CALL, STREAM_FULL, NativeGrpcFront

from contract.errors import DETAILS_METADATA_KEY, HutongError, Reason
from gateway.calls import CALLER_METADATA, GET, MESSAGE_BYTES_MAX, METHODS, WATCH
from gateway.engine.inbox import Inbox

EVENTS_MAX: Final = 4096
IO_THREADS: Final = 1
IDLE_WAIT_MS: Final = 100
STREAMS_PER_CONNECTION_MAX: Final = 10_000
ANONYMOUS: Final = ""


class NativeCall:
    """See gateway.calls.Call."""

    __slots__ = ("_front", "_id", "caller", "method", "payload", "time_left_us")

    def __init__(
        self, front: NativeGrpcFront, call_id: int, method: int, payload: bytes, caller: str, time_left_us: int | None
    ) -> None:
        self._front = front
        self._id = call_id
        self.method = method
        self.payload = payload
        self.caller = caller
        self.time_left_us = time_left_us

    def answer(self, payload: bytes) -> None:
        """See the protocol."""
        self._front.respond(self._id, payload)

    def fail(self, error: HutongError) -> None:
        """See the protocol."""
        status = error.to_status()
        self._front.fail(self._id, error.code, status.message, [(DETAILS_METADATA_KEY, status.SerializeToString())])


class NativeStream(NativeCall):
    """See gateway.watch.Subscriber."""

    __slots__ = ()

    def try_send(self, message: bytes) -> bool:
        """See the protocol."""
        return self._front.stream_try_send(self._id, message) != STREAM_FULL

    @property
    def closed(self) -> bool:
        """See the protocol."""
        return not self._front.stream_open(self._id)


class NativeFront:
    """See gateway.engine.loop.Source."""

    def __init__(
        self,
        target: str,
        inbox: Inbox[Any],
        query: Callable[[NativeCall], None],
        watch: Callable[[bytes, NativeStream], None],
        fallback_path: str,
    ) -> None:
        self._front = NativeGrpcFront(
            target,
            [(path, number == WATCH) for number, path in enumerate(METHODS)],
            io_threads=IO_THREADS,
            client_key_metadata=CALLER_METADATA,
            call_details=True,
            max_concurrent_streams=STREAMS_PER_CONNECTION_MAX,
        )
        self._front.set_fallback(fallback_path)
        self._inbox = inbox
        self._query = query
        self._watch = watch
        self._idle = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._wait_for_calls, name="native-front", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._front.bound_port

    def start(self) -> None:
        """Takes connections."""
        self._front.start()
        self._thread.start()

    def poll(self, at_most: int) -> list[NativeCall]:
        """See the interface."""
        return self._calls(self._front.recv_batch_details(min(at_most, EVENTS_MAX), 0))

    def idle(self) -> None:
        """See the interface."""
        self._idle.set()

    def _wait_for_calls(self) -> None:
        while not self._closed:
            self._idle.wait()
            self._idle.clear()
            while not self._closed and not self._idle.is_set():
                events = self._front.recv_batch_details(EVENTS_MAX, IDLE_WAIT_MS)
                if events is None:
                    return
                if events:
                    self._inbox.put(self._calls(events))
                    break

    def _calls(self, events: list[Any] | None) -> list[NativeCall]:
        front = self._front
        calls: list[NativeCall] = []
        for kind, call_id, method, payload, key, details in events or ():
            if kind != EVENT_CALL:
                continue  # the caller left: its payment goes on, and its answer finds nobody
            left = details[2] if details is not None else None
            # Bytes are what the caller says of itself. Text is its address, which changes with every connection: an
            # idempotency key that belonged to it would pay again when a request is repeated on another one.
            caller = key.decode("ascii", "replace") if isinstance(key, bytes) else ANONYMOUS
            left_us = None if left is None else int(left * 1e6)
            if method == WATCH:
                stream = NativeStream(front, call_id, method, payload, caller, left_us)
                self._watch(payload, stream)
                continue
            call = NativeCall(front, call_id, method, payload, caller, left_us)
            if len(payload) > MESSAGE_BYTES_MAX:
                call.fail(HutongError(Reason.ERROR_REASON_MESSAGE_TOO_LARGE, most_bytes=str(MESSAGE_BYTES_MAX)))
            elif method == GET:
                self._query(call)
            else:
                calls.append(call)
        return calls

    def close(self) -> None:
        """Closes the port and all connections."""
        self._closed = True
        self._idle.set()
        self._front.close()
        self._thread.join(1.0)
