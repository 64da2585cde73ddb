"""The native front: HTTP/2 and gRPC in Rust, outside the GIL; calls reach the engine in batches.

Plaintext only: for loopback, or a Unix socket behind a TLS proxy. Methods other than PaymentService's go to a grpc.aio
server on a Unix socket. While the engine is busy it empties this front itself, once a tick; only when it is idle does a
thread wait here in its place, so that under load no thread is woken for a call. In an overload, when more has come in
a tick than may wait, the thread takes over: it looks each PACE_S, so that what is refused does not wait for a tick.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from pygrpc_native import EVENT_CALL, STREAM_FULL, NativeGrpcFront

from contract.errors import DETAILS_METADATA_KEY, HutongError, Reason
from gateway.admission import Gate
from gateway.budgets import QueryBudgets
from gateway.calls import (
    CALLER_METADATA,
    CREATE_BATCH,
    MESSAGE_BYTES_MAX,
    METHODS,
    NEW_WORK,
    QUERIES,
    WATCH,
    batch_size,
)

EVENTS_MAX: Final = 4096
IO_THREADS: Final = 1
IDLE_WAIT_MS: Final = 100
PACE_S: Final = 0.002
"""How often the thread looks in an overload: a refusal waits half of it, and each look costs the engine a turn."""
SWITCH_S: Final = 0.001
"""How long this thread waits for the engine to let go of the GIL; Python's own 5 ms would be most of a refusal."""
CALM_S: Final = 0.25
"""Without a refusal for so long, the engine empties this front again."""
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
        code, text, details = error.packed()
        self._front.fail(self._id, code, text, [(DETAILS_METADATA_KEY, details)])


class NativeStream(NativeCall):
    """See gateway.watch.Subscriber."""

    __slots__ = ("asker",)
    asker: str

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
        gate: Gate,
        budgets: QueryBudgets,
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
        self._gate = gate
        self._budgets = budgets
        self._query = query
        self._watch = watch
        self._turn = threading.Event()
        """Set where the thread is to wait for calls: the engine is idle, or overloaded."""
        self._shedding = False
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="native-front", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._front.bound_port

    def start(self) -> None:
        """Takes connections."""
        self._front.start()
        self._thread.start()

    def poll(self, at_most: int) -> list[Any]:
        """See the interface."""
        if not self._shedding and self._receive(0) is False:
            self._shedding = True
            self._turn.set()
        return self._gate.poll(at_most)

    def idle(self) -> None:
        """See the interface."""
        self._gate.idle()
        self._turn.set()

    def _receive(self, wait_ms: int) -> bool | None:
        """Takes what has come to where it belongs. None if nothing came, False if something had to be refused because
        too much waits already."""
        events = self._front.recv_batch_details(EVENTS_MAX, wait_ms)
        if not events:
            return None
        fitting = self._turn_away(events) if self._shedding else events
        calls, payments = self._calls(fitting)
        return (self._gate.offer(calls, payments) if calls else True) and len(fitting) == len(events)

    def _turn_away(self, events: list[Any]) -> list[Any]:
        """In an overload: refuses what cannot fit before anything is made of it, and returns the rest. What this thread
        does the engine cannot do meanwhile, since both need the GIL."""
        fail = self._front.fail
        code, text, details = self._gate.refusal.packed()
        trailers = [(DETAILS_METADATA_KEY, details)]
        room = self._gate.room
        fitting: list[Any] = []
        for event in events:
            if event[0] == EVENT_CALL and event[2] in NEW_WORK:
                if room <= 0:
                    fail(event[1], code, text, trailers)
                    continue
                room -= 1
            fitting.append(event)
        if len(fitting) < len(events):
            self._gate.turned_away(len(events) - len(fitting))
        return fitting

    def _run(self) -> None:
        while not self._closed:
            self._turn.wait()
            self._turn.clear()
            if self._shedding:
                self._shed()
            else:
                self._wait_for_calls()

    def _wait_for_calls(self) -> None:
        """The engine is idle: waits for the first calls in its place."""
        while not self._closed and not self._turn.is_set():
            if self._receive(IDLE_WAIT_MS) is not None:
                return

    def _shed(self) -> None:
        """The engine is overloaded: takes what may wait, and refuses the rest, until nothing had to be refused."""
        interval_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        calm_s = time.monotonic()
        while not self._closed and time.monotonic() - calm_s < CALM_S:
            if self._receive(0) is False:
                calm_s = time.monotonic()
            time.sleep(PACE_S)
        sys.setswitchinterval(interval_s)
        self._shedding = False
        self._gate.wake()

    def _calls(self, events: list[Any]) -> tuple[list[NativeCall], int]:
        """What is for the engine, and how many payments that asks for; queries go their own way."""
        front = self._front
        calls: list[NativeCall] = []
        more = 0
        for kind, call_id, method, payload, key, details in events:
            if kind != EVENT_CALL:
                continue  # the caller left: its payment goes on, and its answer finds nobody
            left = details[2] if details is not None else None
            # Bytes are what the caller says of itself. Text is its address, which changes with every connection: an
            # idempotency key that belonged to it would pay again when a request is repeated on another one.
            caller = key.decode("ascii", "replace") if isinstance(key, bytes) else ANONYMOUS
            left_us = None if left is None else int(left * 1e6)
            if method in QUERIES:
                self._ask(call_id, method, payload, caller, caller or str(key), left_us)
                continue
            call = NativeCall(front, call_id, method, payload, caller, left_us)
            if len(payload) > MESSAGE_BYTES_MAX:
                call.fail(HutongError(Reason.ERROR_REASON_MESSAGE_TOO_LARGE, most_bytes=str(MESSAGE_BYTES_MAX)))
                continue
            if method == CREATE_BATCH:
                more += batch_size(payload) - 1
            calls.append(call)
        return calls, len(calls) + more

    def _ask(
        self, call_id: int, method: int, payload: bytes, caller: str, asker: str, time_left_us: int | None
    ) -> None:
        """A query, if its caller's budget has one left."""
        call = (NativeStream if method == WATCH else NativeCall)(
            self._front, call_id, method, payload, caller, time_left_us
        )
        refusal = self._budgets.refusal(asker, proven=False)
        if refusal is not None:
            call.fail(refusal)
        elif isinstance(call, NativeStream):
            call.asker = asker
            self._watch(payload, call)
        else:
            self._query(call)

    def close(self) -> None:
        """Closes the port and all connections."""
        self._closed = True
        self._turn.set()
        self._front.close()
        self._thread.join(1.0)
