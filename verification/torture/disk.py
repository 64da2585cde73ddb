"""A small disk of its own for a run, so that it can be full: a tmpfs that nobody else sees and that ends with the run.

The tmpfs is mounted in a mount namespace of this process (as root, or in a user namespace of its own), which ends with
the last process in it: no mount is left behind, however the run ends. Where neither is allowed, a limit on the size of
files is set on the running processes instead: their writes beyond it fail as well, with EFBIG.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol

CLONE_NEWNS: Final = 0x00020000
CLONE_NEWUSER: Final = 0x10000000
MS_REC: Final = 0x4000
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2
PAGE_BYTES: Final = 4096
"""What the last of the ballast is written in."""
LIMITED_BYTES: Final = 1
"""Size beyond which no file grows while the disk counts as full; what lies beyond it cannot be written anew either."""


class Disk(Protocol):
    """Something that can be full."""

    method: str
    """How, for the report."""

    def fill(self, pids: Iterable[int]) -> None:
        """Makes writes of these processes fail. Call it again and again: space may become free meanwhile."""
        ...

    def free(self, pids: Iterable[int]) -> None:
        """Ends it."""
        ...

    def close(self) -> None:
        """Gives the disk up, with all that is on it."""
        ...


class SmallTmpfs:
    """A tmpfs at a folder. Raises OSError where this process may not mount one."""

    def __init__(self, folder: Path, size_bytes: int) -> None:
        """Moves this process, and all that it starts from now on, to a mount namespace of its own. Call it before
        there are threads: a thread that is there already stays where it was."""
        self.method = "tmpfs of its own" if os.geteuid() == 0 else "tmpfs of its own in a user namespace"
        self._folder = folder
        self._ballast = folder / "ballast"
        _unshare()
        _mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        _mount(b"tmpfs", os.fsencode(folder), b"tmpfs", 0, f"size={size_bytes},mode=0755".encode())

    def fill(self, pids: Iterable[int]) -> None:
        with self._ballast.open("ab", buffering=0) as file:
            room = os.statvfs(self._folder)
            with suppress(OSError):  # others took some of it meanwhile
                os.posix_fallocate(file.fileno(), file.tell(), room.f_bavail * room.f_frsize)
                file.seek(0, os.SEEK_END)
            with suppress(OSError):
                while file.write(bytes(PAGE_BYTES)) == PAGE_BYTES:
                    pass

    def free(self, pids: Iterable[int]) -> None:
        self._ballast.unlink(missing_ok=True)

    def close(self) -> None:
        _call("umount2", os.fsencode(self._folder), MNT_DETACH)


class SizeLimit:
    """RLIMIT_FSIZE on running processes."""

    def __init__(self) -> None:
        self.method = "RLIMIT_FSIZE on the running processes"

    def fill(self, pids: Iterable[int]) -> None:
        self._limit(pids, LIMITED_BYTES)

    def free(self, pids: Iterable[int]) -> None:
        self._limit(pids, resource.RLIM_INFINITY)

    def close(self) -> None:
        """Removes nothing: the folder belongs to the run."""

    def _limit(self, pids: Iterable[int], soft: int) -> None:
        for pid in pids:
            with suppress(ProcessLookupError):
                _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
                most = hard if soft == resource.RLIM_INFINITY else min(soft, hard) if hard >= 0 else soft
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (most, hard))


def small_disk(folder: Path, size_bytes: int, *, mounted: bool | None = None) -> Disk:
    """The best that this process may have, or what is asked for. Raises OSError where it may not mount and must."""
    if mounted is False:
        return SizeLimit()
    try:
        return SmallTmpfs(folder, size_bytes)
    except OSError as error:
        if mounted or error.errno not in (errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSPC, errno.ENOSYS):
            raise
        return SizeLimit()


def _unshare() -> None:
    if os.geteuid() == 0:
        _call("unshare", CLONE_NEWNS)
        return
    uid, gid = os.geteuid(), os.getegid()
    _call("unshare", CLONE_NEWUSER | CLONE_NEWNS)
    Path("/proc/self/setgroups").write_text("deny")
    # Oneself: a database server refuses to run as root, also as a namespace's.
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _mount(source: bytes, target: bytes, kind: bytes | None, flags: int, data: bytes | None) -> None:
    _call("mount", source, target, kind, ctypes.c_ulong(flags), data)


def _call(name: str, *arguments: object) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
