"""The native front: HTTP/2 and gRPC in Rust, outside the GIL; calls reach the engine in batches.

Plaintext only: for loopback, or a Unix socket behind a TLS proxy. Methods other than PaymentService's are forwarded to
a grpc.aio server on a Unix socket. While the engine is busy it empties this front itself, once a tick. While it is idle
a thread waits here in its place, so that under load no thread is woken for a call. In an overload, when more calls have
come in a tick than may wait, the thread takes over and looks each PACE_S, so that a refusal does not wait for a tick.
"""

from __future__ import annotations

import enum
import logging
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from pygrpc_native import EVENT_CALL, STREAM_FULL, NativeGrpcFront

from gateway.admission import Gate
from gateway.budgets import QueryBudgets
from gateway.calls import CREATE_BATCH, METHODS, NEW_WORK, QUERIES, WATCH, bad_caller, batch_size
from gateway.fronts.connections import Connections
from gateway.fronts.limits import CONNECTIONS_MAX, KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS
from hutong_contract.errors import DETAILS_METADATA_KEY, HutongError
from hutong_contract.incidents import incident, too_large
from hutong_contract.limits import MESSAGE_BYTES_MAX
from hutong_contract.names import CALLER_METADATA

log = logging.getLogger(__name__)

EVENTS_MAX: Final = 4096
IO_THREADS: Final = 1
IDLE_WAIT_MS: Final = 100
PACE_S: Final = 0.002
"""Seconds between two looks in an overload. A refusal waits half of it on average; each look costs the engine a turn at
the GIL."""
SWITCH_S: Final = 0.001
"""How long this thread waits for the GIL, in seconds. Python's own 5 ms would be most of the time of a refusal."""
CALM_S: Final = 0.25
"""After this many seconds without a refusal, the engine empties this front again."""
METADATA_BYTES_MAX: Final = 16_384
STREAMS_PER_CONNECTION_MAX: Final = 10_000
RETRY_S: Final = 0.1
"""Delay before calls are received again after a failure of the transport, in seconds."""
ANONYMOUS: Final = ""


class TransportError(Exception):
    """The HTTP/2 library failed: no call can be received now."""


class _Came(enum.Enum):
    """The result of one look at the front."""

    NOTHING = enum.auto()
    ASIDE = enum.auto()
    """Only what is not for the engine: queries, callers that left, calls that were refused here. The engine is not
    woken."""
    CALLS = enum.auto()
    """Calls that the gate accepted; the engine was woken."""
    OVERLOAD = enum.auto()
    """More calls than fit the gate."""


class NativeCall:
    """A call of the native front."""

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
        self._front.respond(self._id, payload)

    def fail(self, error: HutongError) -> None:
        code, text, details = error.packed()
        self._front.fail(self._id, code, text, [(DETAILS_METADATA_KEY, details)])


class NativeStream(NativeCall):
    """A subscriber to the events of payments, on the native front."""

    __slots__ = ("asker", "origin")
    asker: str
    origin: str

    def try_send(self, message: bytes) -> bool:
        return self._front.stream_try_send(self._id, message) != STREAM_FULL

    @property
    def closed(self) -> bool:
        return not self._front.stream_open(self._id)


class NativeFront:
    """The native front, as the engine empties it (a Source)."""

    def __init__(
        self,
        target: str,
        gate: Gate,
        budgets: QueryBudgets,
        query: Callable[[NativeCall], None],
        watch: Callable[[bytes, NativeStream], None],
        fallback_path: str,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        """`connections_max`: beyond so many those that have sent least are ended."""
        self._front = NativeGrpcFront(
            target,
            [(path, number == WATCH) for number, path in enumerate(METHODS)],
            io_threads=IO_THREADS,
            client_key_metadata=CALLER_METADATA,
            call_details=True,
            max_concurrent_streams=STREAMS_PER_CONNECTION_MAX,
            max_metadata_size=METADATA_BYTES_MAX,
            keepalive_time_ms=KEEPALIVE_MS,
            keepalive_timeout_ms=KEEPALIVE_TIMEOUT_MS,
        )
        self._front.set_fallback(fallback_path)
        self.connections = Connections(self._front.bound_port, connections_max)
        self._gate = gate
        self._budgets = budgets
        self._query = query
        self._watch = watch
        self._turn = threading.Event()
        """Set when the thread must wait for calls: the engine is idle, or overloaded."""
        self._shedding = False
        self._closed = False
        self._ended = False
        """Set when the engine has ended: this thread refuses all calls."""
        self.failure: TransportError | None = None
        """Why calls cannot be received now; None while they can."""
        self._thread = threading.Thread(target=self._run, name="native-front", daemon=True)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self._front.bound_port

    def start(self) -> None:
        """Starts to accept connections."""
        self._front.start()
        self._thread.start()

    def poll(self, at_most: int) -> list[Any]:
        if not self._shedding:
            try:
                if self._receive(0) is _Came.OVERLOAD:
                    self._shedding = True
                    self._turn.set()
            except TransportError as error:  # the engine goes on with what is in flight
                self._broken(error)
        return self._gate.poll(at_most)

    def idle(self) -> None:
        self._gate.idle()
        self._turn.set()

    def end(self, error: HutongError) -> None:
        self._gate.end(error)
        self._ended = True
        self._turn.set()

    def relieve(self) -> None:
        """Makes the thread answer in the engine's place: the gate is shut, and the engine may not come for a while."""
        self._shedding = True
        self._turn.set()

    def _receive(self, wait_ms: int) -> _Came:
        """Receives calls and passes each to where it belongs. Raises TransportError."""
        try:
            events = self._front.recv_batch_details(EVENTS_MAX, wait_ms)
        except BaseException as error:  # a panic of the library is no Exception
            raise TransportError(f"the native front cannot receive calls: {type(error).__name__}: {error}") from error
        if self.failure is not None:
            log.warning("the native front receives calls again")
            self.failure = None
        if not events:
            return _Came.NOTHING
        try:
            return self._take(events)
        except Exception as error:  # noqa: BLE001 - whatever the defect, these callers get an answer, and the front takes others
            self._refuse_all(events, error)
            return _Came.ASIDE

    def _take(self, events: list[Any]) -> _Came:
        fitting = self._turn_away(events) if self._shedding else events
        calls, payments = self._calls(fitting)
        fits = not calls or self._gate.offer(calls, payments)
        if not fits or len(fitting) < len(events):
            return _Came.OVERLOAD
        return _Came.CALLS if calls else _Came.ASIDE

    def _refuse_all(self, events: list[Any], error: Exception) -> None:
        """Answers all calls of a batch whose handling a defect ended. Some may be in the gate already; what is done for
        them is found by their idempotency keys, as after any lost answer. The transport ignores a second answer."""
        code, text, details = incident(log, "the native front", error).packed()
        for event in events:
            if event[0] == EVENT_CALL:
                self._front.fail(event[1], code, text, [(DETAILS_METADATA_KEY, details)])

    def _broken(self, error: TransportError) -> None:
        """Sets `failure`, which health follows, and logs the first of successive failures."""
        if self.failure is None and not self._closed:
            log.critical("%s; it is tried again each %s s", error, RETRY_S, exc_info=error)
        self.failure = error
        self._turn.set()

    def _turn_away(self, events: list[Any]) -> list[Any]:
        """In an overload: rejects excess calls before building call objects, and returns the rest. The engine cannot
        work at the same time, since both need the GIL."""
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
            if not self._ended:
                self._turn.wait()
            self._turn.clear()
            try:
                if self._shedding:
                    self._shed()
                else:
                    self._wait_for_calls()
            except TransportError as error:
                self._broken(error)
                time.sleep(RETRY_S)

    def _wait_for_calls(self) -> None:
        """Waits in place of the idle engine until there is a call for it. A query alone does not wake it."""
        while not self._closed and not self._turn.is_set():
            if self._receive(IDLE_WAIT_MS) in (_Came.CALLS, _Came.OVERLOAD):
                return

    def _shed(self) -> None:
        """In an overload, or with the gate shut: accepts what may wait and refuses the rest, until nothing had to be
        refused."""
        while not self._closed and self._gate.is_shut:
            self._receive(IDLE_WAIT_MS)
        interval_s = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_S)
        try:
            calm_s = time.monotonic()
            while not self._closed and time.monotonic() - calm_s < CALM_S:
                if self._receive(0) is _Came.OVERLOAD:
                    calm_s = time.monotonic()
                time.sleep(PACE_S)
        finally:
            sys.setswitchinterval(interval_s)
            self._shedding = False
            self._gate.wake()

    def _calls(self, events: list[Any]) -> tuple[list[NativeCall], int]:
        """The calls for the engine, and the number of payments they ask for. Queries are passed on to their thread."""
        calls: list[NativeCall] = []
        more = 0
        for event in events:
            if event[0] != EVENT_CALL:
                continue  # the caller left: its payment goes on, and its answer finds nobody
            try:
                call = self._call(event)
                if call is None:
                    continue
                if call.method == CREATE_BATCH:
                    more += batch_size(call.payload) - 1
                calls.append(call)
            except Exception as error:  # noqa: BLE001 - a defect is this caller's alone
                self._refuse_all([event], error)
        return calls, len(calls) + more

    def _call(self, event: Any) -> NativeCall | None:
        """The call for the engine; None if it was refused or is a query."""
        _, call_id, method, payload, key, details = event
        _, peer, left = details if details is not None else ((), "", None)
        # Bytes are what the caller says of itself. Text is its address, which changes with every connection: an
        # idempotency key that belonged to it would pay again when a request is repeated on another one.
        caller = key.decode("ascii", "replace") if isinstance(key, bytes) else ANONYMOUS
        left_us = None if left is None else int(left * 1e6)
        call = (NativeStream if method == WATCH else NativeCall)(self._front, call_id, method, payload, caller, left_us)
        if len(payload) > MESSAGE_BYTES_MAX:
            call.fail(too_large(MESSAGE_BYTES_MAX))
        elif (refusal := bad_caller(caller) if caller else None) is not None:
            call.fail(refusal)
        elif method in QUERIES:
            self._ask(call, caller or str(key), peer)
        else:
            return call
        return None

    def _ask(self, call: NativeCall, asker: str, peer: str) -> None:
        """Passes on a query, if its caller's budget allows."""
        refusal = self._budgets.refusal(asker, proven=False)
        if refusal is not None:
            call.fail(refusal)
        elif isinstance(call, NativeStream):
            call.asker, call.origin = asker, peer
            self._watch(call.payload, call)
        else:
            self._query(call)

    def close(self) -> None:
        """Closes the port and all connections."""
        self._closed = True
        self._turn.set()
        self._front.close()
        self._thread.join(1.0)
        self.connections.close()
