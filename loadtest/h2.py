"""Unary gRPC calls by the tens of thousands a second from one Python process: a bare HTTP/2 client for load.

It does what a load generator needs and nothing else: one connection, many concurrent unary calls, requests prepared as
bytes, responses returned as bytes with their status and latency. Client libraries cost 200 microseconds a call, which
would measure the generator; this costs about ten. It waits in `select.select`, so under gevent's patched `select` other
greenlets run meanwhile. RFC 9113 (HTTP/2), RFC 7541 (HPACK, with a dynamic table of size 0,
so that a header block means the same each time and is decoded once).
"""

from __future__ import annotations

import base64
import binascii
import os
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from hutong_contract.extras import needs
from hutong_contract.names import CALLER_METADATA

with needs("bench"):
    import hpack


PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW: Final = 2**31 - 1
INITIAL_WINDOW: Final = 65_535
"""Also the largest request, with its five bytes of framing: a stream's window is never waited for."""
FRAME_BYTES_MAX: Final = 16_384
"""What every server takes in one frame (RFC 9113 section 4.2)."""
WINDOW_REFRESH_BYTES: Final = 2**28
"""Received bytes after which the connection's window is opened again."""
READ_BYTES: Final = 1 << 18
STREAM_ID_MAX: Final = 2**31 - 1
BLOCKS_MAX: Final = 10_000
"""Distinct header blocks remembered."""

_HEADER: Final = struct.Struct(">HBBBL")
_DATA, _HEADERS, _RST, _SETTINGS, _PING, _GOAWAY, _WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
_END_STREAM, _END_HEADERS, _ACK = 0x1, 0x4, 0x1
_RESET: Final = (-1, "")


class ConnectionLostError(Exception):
    """The server closed the connection or broke the protocol; calls under way have no answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The end of one call."""

    tag: int
    """What `send` was given."""
    status: int
    """gRPC status code; -1 where the stream was reset."""
    body: bytes
    """The response message; empty for a failure."""
    latency_s: float
    """From when the call was written to the last frame."""
    reason: str = ""
    """Of a failure: the reason's name in the contract's table of errors; empty where the server named none."""


class _Stream:
    __slots__ = ("body", "sent", "tag")

    def __init__(self, tag: int, sent: float) -> None:
        self.tag = tag
        self.sent = sent
        self.body = b""


class UnaryLoad:
    """One connection to one server, for calls of any unary method. Not for several threads."""

    def __init__(self, target: str, path: str, *, timeout: str = "60S", caller: str = "") -> None:
        """`target` is HOST:PORT or unix:/path; `path` is /package.Service/Method of calls that name none; `timeout` as
        in grpc-timeout; `caller` goes into each call's metadata."""
        self._socket = _connect(target)
        headers = [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "localhost"),
            ("te", "trailers"),
            ("content-type", "application/grpc"),
            ("grpc-timeout", timeout),
        ]
        if caller:
            headers.append((CALLER_METADATA, caller))
        self._headers = headers
        self._paths: dict[str, bytes] = {}
        self._path = path
        self._decoder = hpack.Decoder()
        self._blocks: dict[bytes, tuple[int, str] | None] = {}
        self._streams: dict[int, _Stream] = {}
        self._next_stream = 1
        self._out = bytearray()
        self._in = bytearray()
        self._window = INITIAL_WINDOW
        self._received = 0
        self._waiting: deque[tuple[int, bytes, bytes]] = deque()
        self.streams_max = 100
        self._greet()

    @property
    def in_flight(self) -> int:
        """Calls that have no answer yet."""
        return len(self._streams) + len(self._waiting)

    def send(self, tag: int, message: bytes, path: str = "") -> None:
        """Queues a call of `path`, or of the method that the connection was made for; `exchange` moves it.

        Raises:
            ValueError: a message above 64 KB.
        """
        if len(message) + 5 > INITIAL_WINDOW:
            raise ValueError(f"{len(message):,} bytes do not fit into a stream's first window")
        path = path or self._path
        block = self._paths.get(path)
        if block is None:
            block = self._paths[path] = _stateless([*self._headers[:2], (":path", path), *self._headers[2:]])
        self._waiting.append((tag, message, block))

    def exchange(self, timeout_s: float) -> list[Reply]:
        """Writes what is queued, reads what has come, waiting up to `timeout_s` for something. Returns what ended."""
        self._start_streams()
        readable, _, _ = select.select([self._socket], [self._socket] if self._out else [], [], timeout_s)
        if self._out:
            self._write()
        replies: list[Reply] = []
        if readable:
            data = self._read()
            self._in += data
            self._parse(replies)
        return replies

    def fileno(self) -> int:
        """The socket's, so that several connections can be waited for at once."""
        return self._socket.fileno()

    def close(self) -> None:
        """Closes the connection."""
        self._socket.close()

    # -- writing -----------------------------------------------------------------------------------------

    def _greet(self) -> None:
        # HEADER_TABLE_SIZE 0: header blocks without state. INITIAL_WINDOW_SIZE: responses are never held back.
        settings = struct.pack(">HLHL", 0x1, 0, 0x4, WINDOW)
        self._out += PREFACE + _frame(_SETTINGS, 0, 0, settings)
        self._out += _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">L", WINDOW - INITIAL_WINDOW))

    def _start_streams(self) -> None:
        out = self._out
        now = time.perf_counter()
        while self._waiting and len(self._streams) < self.streams_max:
            tag, message, headers = self._waiting[0]
            size = len(message) + 5
            if size > self._window:
                return
            self._waiting.popleft()
            self._window -= size
            stream_id = self._next_stream
            if stream_id > STREAM_ID_MAX:
                raise ConnectionLostError("no stream ids are left on this connection")
            self._next_stream += 2
            self._streams[stream_id] = _Stream(tag, now)
            out += _frame(_HEADERS, _END_HEADERS, stream_id, headers)
            data = b"\x00" + len(message).to_bytes(4, "big") + message
            while size > FRAME_BYTES_MAX:
                out += _frame(_DATA, 0, stream_id, data[:FRAME_BYTES_MAX])
                data = data[FRAME_BYTES_MAX:]
                size -= FRAME_BYTES_MAX
            out += _frame(_DATA, _END_STREAM, stream_id, data)

    def _write(self) -> None:
        try:
            sent = self._socket.send(self._out)
        except BlockingIOError:
            return
        del self._out[:sent]

    # -- reading -----------------------------------------------------------------------------------------

    def _read(self) -> bytes:
        try:
            data = self._socket.recv(READ_BYTES)
        except BlockingIOError:
            return b""
        except OSError as error:
            raise ConnectionLostError(str(error)) from error
        if not data:
            raise ConnectionLostError("the server closed the connection")
        return data

    def _parse(self, replies: list[Reply]) -> None:
        data, at, end = bytes(self._in), 0, len(self._in)
        unpack = _HEADER.unpack_from
        now = time.perf_counter()
        while end - at >= 9:
            high, low, kind, flags, stream_id = unpack(data, at)
            size = (high << 8) | low
            if end - at - 9 < size:
                break
            payload = data[at + 9 : at + 9 + size]
            at += 9 + size
            if kind == _DATA:
                stream = self._streams.get(stream_id)
                if stream is not None:
                    stream.body = stream.body + payload if stream.body else payload
                self._count_received(size)
            elif kind == _HEADERS:
                if flags & _END_STREAM:
                    self._finish(stream_id, self._status(payload), now, replies)
                elif payload not in self._blocks:
                    self._status(payload)
            elif kind == _RST:
                self._finish(stream_id, None, now, replies)
            else:
                self._control(kind, flags, payload, stream_id)
        del self._in[:at]

    def _finish(self, stream_id: int, end: tuple[int, str] | None, now: float, replies: list[Reply]) -> None:
        stream = self._streams.pop(stream_id, None)
        if stream is not None:
            status, reason = end or _RESET
            body = stream.body[5:] if status == 0 else b""
            replies.append(Reply(stream.tag, status, body, now - stream.sent, reason))

    def _status(self, block: bytes) -> tuple[int, str] | None:
        """Status and reason in a header block, None where it has none. Blocks have no state here, so each distinct one
        is decoded once."""
        if block in self._blocks:
            return self._blocks[block]
        headers = {str(name): str(value) for name, value in self._decoder.decode(block, raw=False)}
        value = headers.get("grpc-status")
        end = None if value is None else (int(value), _reason(headers.get("grpc-status-details-bin", "")))
        if len(self._blocks) < BLOCKS_MAX:
            self._blocks[block] = end
        return end

    def _count_received(self, size: int) -> None:
        self._received += size
        if self._received >= WINDOW_REFRESH_BYTES:
            self._out += _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">L", self._received))
            self._received = 0

    def _control(self, kind: int, flags: int, payload: bytes, stream_id: int) -> None:
        if kind == _SETTINGS and not flags & _ACK:
            for start in range(0, len(payload), 6):
                name, value = struct.unpack_from(">HL", payload, start)
                if name == 0x3:
                    self.streams_max = value
            self._out += _frame(_SETTINGS, _ACK, 0, b"")
        elif kind == _PING and not flags & _ACK:
            self._out += _frame(_PING, _ACK, 0, payload)
        elif kind == _WINDOW_UPDATE and stream_id == 0:
            self._window += struct.unpack(">L", payload)[0] & WINDOW
        elif kind == _GOAWAY:
            raise ConnectionLostError("the server is going away")


def closed_loop(
    load: UnaryLoad, concurrency: int, until: float, message: Callable[[int], bytes], seen: Callable[[Reply], None]
) -> int:
    """Keeps `concurrency` calls in flight until `until` (perf_counter), then waits for the last ones. Returns how many
    calls were made. `message` makes the request for a tag, `seen` takes each reply."""
    tag = 0
    while time.perf_counter() < until:
        for _ in range(concurrency - load.in_flight):
            load.send(tag, message(tag))
            tag += 1
        for reply in load.exchange(0.05):
            seen(reply)
    deadline = time.perf_counter() + 30.0
    while load.in_flight and time.perf_counter() < deadline:
        for reply in load.exchange(0.05):
            seen(reply)
    return tag


def open_loop(
    load: UnaryLoad, rate: float, seconds: float, message: Callable[[int], bytes], seen: Callable[[Reply, float], None]
) -> int:
    """Sends on a schedule, `rate` calls a second, whatever the server does. `seen` takes each reply with its latency in
    seconds from when the call was due, so that a stall counts for every call that it delayed."""
    start = time.perf_counter()
    due: dict[int, float] = {}
    tag, total = 0, int(rate * seconds)
    deadline = start + seconds + 30.0
    while (tag < total or load.in_flight) and time.perf_counter() < deadline:
        now = time.perf_counter()
        while tag < total and start + tag / rate <= now:
            due[tag] = start + tag / rate
            load.send(tag, message(tag))
            tag += 1
        wait = min(0.05, max(0.0, start + tag / rate - time.perf_counter())) if tag < total else 0.05
        for reply in load.exchange(wait):
            seen(reply, time.perf_counter() - due.pop(reply.tag))
    return tag


def _connect(target: str) -> socket.socket:
    if target.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.connect(os.fspath(target.removeprefix("unix:")))
    else:
        host, _, port = target.rpartition(":")
        connection = socket.create_connection((host.strip("[]"), int(port)), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setblocking(False)
    return connection


def _reason(details: str) -> str:
    """The name of the contract's reason in a `grpc-status-details-bin` header: base64 of a google.rpc.Status."""
    if not details:
        return ""
    try:
        status = status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4)))
    except (binascii.Error, DecodeError):
        return ""
    info = error_details_pb2.ErrorInfo()
    return next((info.reason for one in status.details if one.Unpack(info)), "")


def _stateless(headers: list[tuple[str, str]]) -> bytes:
    """Headers as literals without indexing, the same bytes for every request (RFC 7541 section 6.2.2)."""
    out = bytearray()
    for name, value in headers:
        for text in (b"\x00", name.encode(), value.encode()):
            out += text if text == b"\x00" else _string(text)
    return bytes(out)


def _string(text: bytes) -> bytes:
    assert len(text) < 127, "a longer length needs a second byte"
    return bytes([len(text)]) + text


def _frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    size = len(payload)
    return _HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream_id) + payload
