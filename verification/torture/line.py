"""A line to a PostgreSQL server that can be cut in the middle of what goes over it, while the server's end stays open.

So it is for the server when a machine dies, or where something in between keeps the connection alive: no end, no reset,
and the rest of what was begun never comes. Clients use TCP; the server's own end is its Unix socket.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

READ_BYTES: Final = 65_536
_HEAD_BYTES: Final = 5
"""Of a message: a letter, and the length of all that follows."""
_PARSE, _BIND = ord("P"), ord("B")


FOREVER_MAX: Final = 1_000
"""Connections that were cut and whose server's end is still open: the server has fewer than that."""


@dataclass(eq=False)
class Cable:
    """One connection."""

    client: socket.socket
    server: socket.socket
    statements: dict[bytes, bytes] = field(default_factory=dict)
    """Text of each prepared statement by its name."""
    cut: bool = False


class Line:
    """All connections of one gateway to the server with this Unix socket. For any thread."""

    def __init__(self, path: str, database: str = "postgres", user: str = "postgres") -> None:
        self._path = path
        self._before: bytes | None = None
        self._dies = False
        self._dead = False
        self._cables: list[Cable] = []
        self._lock = threading.Lock()
        self.was_cut = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        self.url = f"postgresql://{user}@127.0.0.1:{port}/{database}?sslmode=disable"
        """Of the server, over this line."""
        threading.Thread(target=self._accept, name="line", daemon=True).start()

    def cut(self, *, before: str, dies: bool = False) -> None:
        """The next connection that is about to send this statement is cut before it: the server gets what came before,
        and then nothing. `dies`: all other connections are cut with it, and no new one gets through until `mend`."""
        with self._lock:
            self.was_cut.clear()
            self._dies, self._before = dies, before.encode()

    def mend(self) -> None:
        """New connections get through, and nothing more is cut. What was cut stays so."""
        with self._lock:
            self._before, self._dead = None, False

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                cable = self._plug(client)
                if cable is None:
                    client.close()
                    continue
                for pump in (self._to_server, self._to_client):
                    threading.Thread(target=pump, args=(cable,), daemon=True).start()

    def _plug(self, client: socket.socket) -> Cable | None:
        server = socket.socket(socket.AF_UNIX)
        try:
            server.connect(self._path)
        except OSError:  # the server is down
            server.close()
            return None
        with self._lock:
            self._cables = [one for one in self._cables if one.server.fileno() >= 0]
            if self._dead or len(self._cables) >= FOREVER_MAX:
                server.close()
                return None
            cable = Cable(client, server)
            self._cables.append(cable)
        return cable

    def _to_server(self, cable: Cable) -> None:
        with suppress(OSError, ValueError):
            for message in _messages(cable.client):
                if self._is_it(cable, message):
                    self._cut(cable)
                if cable.cut:
                    return
                cable.server.sendall(message)
        if not cable.cut:
            _close(cable.server)

    def _to_client(self, cable: Cable) -> None:
        with suppress(OSError):
            while data := cable.server.recv(READ_BYTES):
                if not cable.cut:
                    cable.client.sendall(data)
        _close(cable.client)
        if cable.cut:
            _close(cable.server)

    def _is_it(self, cable: Cable, message: bytes) -> bool:
        """Whether the connection is to be cut before this message."""
        if message[0] == _PARSE:
            name, text, _ = message[_HEAD_BYTES:].split(b"\0", 2)
            cable.statements[name] = text
        elif message[0] == _BIND:
            _, name, _ = message[_HEAD_BYTES:].split(b"\0", 2)
            text = cable.statements.get(name, b"")
        else:
            return False
        with self._lock:
            found = self._before is not None and text.startswith(self._before)
            if found:
                self._before = None
        return found

    def _cut(self, cable: Cable) -> None:
        with self._lock:
            self._dead = self._dies
            for one in self._cables if self._dies else [cable]:
                one.cut = True
                _close(one.client)
        self.was_cut.set()

    def close(self) -> None:
        """Ends everything."""
        _close(self._listener)
        for cable in self._cables:
            _close(cable.client)
            _close(cable.server)


def _messages(client: socket.socket) -> Iterator[bytes]:
    """What a client sends, message by message; the first has no letter."""
    waiting = b""
    head = _HEAD_BYTES - 1
    while data := client.recv(READ_BYTES):
        waiting += data
        while len(waiting) >= head and len(waiting) >= (whole := _length(waiting, head)):
            yield waiting[:whole]
            waiting, head = waiting[whole:], _HEAD_BYTES


def _length(waiting: bytes, head: int) -> int:
    (length,) = struct.unpack_from("!I", waiting, head - 4)
    return int(length) + head - 4


def _close(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
