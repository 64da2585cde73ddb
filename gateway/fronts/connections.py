"""Connections of the native front, as the kernel counts them: the silent ones are ended, and how many there may be.

The library behind that front takes a connection and waits without end for its first bytes; it has no bound for how many
there are. So the port's TCP connections are looked at every SWEEP_S: one that has not sent as much as an HTTP/2 client
must send first (its preface and a SETTINGS frame) within SILENT_S is shut down; and where there are more than `most`,
those that have sent least. What a connection has sent is TCP_INFO's bytes_received. Connections whose other end is gone
are the library's own matter: it pings those that say nothing.

Linux alone; elsewhere, and on a Unix socket, nothing is looked at. For any thread.
"""

from __future__ import annotations

import logging
import os
import socket
import stat
import struct
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Final

from hutong_contract.confinement import open_files

log = logging.getLogger(__name__)

SWEEP_S: Final = 2.0
SILENT_S: Final = 10.0
FIRST_BYTES: Final = 24 + 9
"""An HTTP/2 connection begins with a preface of 24 bytes and a SETTINGS frame, of which 9 are its head (RFC 9113)."""
_DESCRIPTORS: Final = "/proc/self/fd"
_ESTABLISHED: Final = 1
_CLOSE_WAIT: Final = 8
_TCP_INFO: Final = 11
_RECEIVED: Final = struct.Struct("=128xQ")
"""tcpi_bytes_received, since Linux 4.1."""


class _Seen:
    __slots__ = ("received", "since_s")

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.received = 0


class Connections:
    """The connections to one TCP port of this process."""

    def __init__(self, port: int, most: int) -> None:
        self._port = port
        self._most = most
        self._seen: dict[int, _Seen] = {}
        """By inode of the socket, which is its own while the connection lives."""
        self._strays: list[int] = []
        """Descriptors that turned out to be files: closing one would give up this process's locks on the file."""
        self._nothing = os.open(os.devnull, os.O_RDONLY)
        self._mine = os.dup(self._nothing)
        """Under which a connection is looked at: there is no other descriptor where connections have taken all."""
        self._lock = threading.Lock()
        self.ended = 0
        """Connections that were shut down so far."""

    def __len__(self) -> int:
        """As many as there were at the last look."""
        return len(self._seen)

    def sweep(self, now_s: float) -> int:
        """Looks at all connections, and returns how many were shut down. `now_s`: of a clock that never runs back."""
        if sys.platform != "linux":
            return 0
        with self._lock:
            if self._nothing < 0:
                return 0  # closed
            try:
                return self._sweep(now_s)
            finally:
                self._let_go()

    def _sweep(self, now_s: float) -> int:
        seen: dict[int, _Seen] = {}
        silent: list[int] = []
        for inode, number in self._sockets():
            known = self._seen.get(inode)
            if known is None or known.received < FIRST_BYTES:
                received = self._received(number, inode)
                if received is None:
                    continue
                known = known or _Seen(now_s)
                known.received = received
            seen[inode] = known
            if known.received < FIRST_BYTES and now_s - known.since_s >= SILENT_S:
                silent.append(inode)
        self._seen = seen
        ended = self._shut(silent, "said nothing")
        if len(seen) > self._most:
            ended += self._shut(self._least(len(seen) - self._most, now_s), f"are more than {self._most}")
        self.ended += ended
        return ended

    def _least(self, count: int, now_s: float) -> list[int]:
        """Those that have sent least, of those that had time to send something."""
        for inode, number in self._sockets():
            if inode in self._seen:
                self._seen[inode].received = self._received(number, inode) or 0
        old = [inode for inode, one in self._seen.items() if now_s - one.since_s >= SWEEP_S]
        return sorted(old, key=lambda inode: self._seen[inode].received)[:count]

    def _shut(self, inodes: list[int], why: str) -> int:
        wanted = set(inodes)
        ended = 0
        for inode, number in self._sockets() if wanted else ():
            if inode not in wanted:
                continue
            one = self._hold(number, inode)
            if one is not None:
                try:
                    one.shutdown(socket.SHUT_RDWR)
                    ended += 1
                except OSError:
                    pass  # it has ended meanwhile
                finally:
                    one.detach()
                self._seen.pop(inode, None)
        if ended:
            log.warning("%d connections to port %d were ended: they %s", ended, self._port, why)
        return ended

    @staticmethod
    def _sockets() -> Iterator[tuple[int, int]]:
        """(inode, descriptor) of this process's sockets."""
        numbers: Iterable[int]
        try:
            numbers = [int(name) for name in os.listdir(_DESCRIPTORS)]
        except OSError:  # reading the folder takes a descriptor, and all are taken
            numbers = range(open_files())
        for number in numbers:
            try:
                found = os.fstat(number)
            except OSError:
                continue  # closed meanwhile
            if stat.S_ISSOCK(found.st_mode):
                yield found.st_ino, number

    def _received(self, number: int, inode: int) -> int | None:
        """Bytes that came on a connection to the port; None where it is none."""
        one = self._hold(number, inode)
        if one is None:
            return None
        try:
            if one.family not in (socket.AF_INET, socket.AF_INET6) or one.getsockname()[1] != self._port:
                return None
            info = one.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _RECEIVED.size)
        except OSError:
            return None
        finally:
            one.detach()
        if len(info) < _RECEIVED.size or info[0] not in (_ESTABLISHED, _CLOSE_WAIT):
            return None
        return int(_RECEIVED.unpack(info)[0])

    def _hold(self, number: int, inode: int) -> socket.socket | None:
        """The socket under a descriptor of our own, which is there already: the library may close its own at any
        moment, and another file may get its number. None where that has happened. To be detached, not closed."""
        try:
            if self._mine < 0:
                self._mine = os.dup(self._nothing)
            os.dup2(number, self._mine, inheritable=False)
        except OSError:
            return None
        found = os.fstat(self._mine)
        if not stat.S_ISSOCK(found.st_mode):
            self._strays.append(self._mine)
            self._mine = -1
            return None
        return socket.socket(fileno=self._mine) if found.st_ino == inode else None

    def _let_go(self) -> None:
        """Holds no connection any more: it would not end while it is held."""
        if self._mine >= 0:
            os.dup2(self._nothing, self._mine, inheritable=False)

    def close(self) -> None:
        """Gives its own descriptors back."""
        with self._lock:  # a look that goes on would use numbers that are another's by then
            for number in (self._nothing, self._mine):
                if number >= 0:
                    os.close(number)
            self._nothing = self._mine = -1
