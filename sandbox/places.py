"""Checks folders and addresses given to a command, before anything is created."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any, Final

from gateway.listen import Address

FREE_BYTES_MIN: Final = 16 * 1024 * 1024
"""Free space required to start something new: an empty network takes about 2 MB."""
SOCKET_PATH_BYTES_MAX: Final = 107
"""Longest path of a Unix socket (unix(7): sun_path has 108 bytes with the zero at its end)."""
CONNECT_S: Final = 1.0
"""Seconds that an existing Unix socket has to show that somebody listens on it."""
NETWORK_FILES: Final = frozenset({"network.json", "directory.json", "gateway.db", "gateway.key", "gateway.holder"})
"""Files by any of which a folder is recognised as a network's."""
NETWORK_FOLDERS: Final = frozenset({"participants", "vault", "faces"})
"""Folders that may be there before any of those files; other programs use these names too."""
LOG_SUFFIX: Final = ".log"
"""Suffix of a file that a shell may have opened there for this command's output."""
IGNORED: Final = frozenset({"lost+found"})
"""Entries that a new file system contains."""


class PlaceError(Exception):
    """A folder or address cannot be used; the text says why and what to do. Nothing was made."""


def check_folder(folder: Path) -> None:
    """Checks that a folder can be written, or created if it does not exist. Raises PlaceError; creates nothing."""
    place = folder.absolute()
    while not os.path.lexists(place) and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise PlaceError(f"{folder} cannot be used: {place} is no folder. Name another one.")
    try:
        if place == folder.absolute() and os.listdir(place):
            # In use before: what is in it must be settled even where the disk is nearly full.
            if not os.access(place, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        os.rmdir(tempfile.mkdtemp(prefix=".hutong-", dir=place))
        free = shutil.disk_usage(place).free
    except OSError as error:
        raise PlaceError(
            f"{folder} cannot be used: nothing can be written in {place} ({error.strerror}). Name a folder that this "
            "user may write."
        ) from None
    if free < FREE_BYTES_MIN:
        raise PlaceError(
            f"{folder} cannot be used: {free // 1024:,} KiB are free there, and {FREE_BYTES_MIN // 1024:,} KiB are "
            "needed. Make room, or name a folder on another disk."
        )


def check_network_folder(folder: Path) -> None:
    """`check_folder`, and that the folder contains nothing but a network, if anything. Raises PlaceError."""
    check_folder(folder)
    if not folder.is_dir():
        return
    found = {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")}
    found = {name for name in found if not name.endswith(LOG_SUFFIX)}
    strangers = found - NETWORK_FILES - NETWORK_FOLDERS - IGNORED
    if strangers and not found & NETWORK_FILES:
        raise PlaceError(
            f"{folder} has files that are no network's ({', '.join(sorted(strangers)[:3])}). Name a folder that is new "
            "or empty, or one that `hutong up --data` has used."
        )


def check_empty(folder: Path) -> None:
    """`check_folder`, and that the folder is empty or not there. Raises PlaceError."""
    check_folder(folder)
    if folder.is_dir() and any(folder.iterdir()):
        raise PlaceError(f"{folder} is not empty. Name a folder that is new or empty.")


def make_folder(folder: Path) -> None:
    """Makes a folder with those above it. Raises PlaceError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise PlaceError(f"{folder} cannot be made: {error.strerror}. Name another folder.") from None


def read_network(folder: Path) -> dict[str, Any]:
    """The content of `network.json` in a data folder; empty if no network has run there. Raises PlaceError."""
    path = folder / "network.json"
    if not os.path.lexists(path):
        return {}
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(said, dict) and isinstance(said["seed"], int) and isinstance(said["target"], str):
            return said
        reason = "it lacks a seed or a target"
    except (OSError, ValueError, KeyError) as error:
        reason = str(error)
    raise PlaceError(f"{path} cannot be read ({reason}). Restore it from a copy, or name another folder.")


def check_free(address: Address) -> None:
    """Checks that a server could listen on an address. Raises PlaceError; nothing stays open."""
    try:
        if address.path:
            _check_socket_free(Path(address.path))
        else:
            _check_port_free(address)
    except OSError as error:
        raise PlaceError(f"{address.target} cannot be listened on: {_why(error)}") from None


def _check_port_free(address: Address) -> None:
    """Raises OSError if no address of the name can be bound, or one is in use."""
    found = socket.getaddrinfo(address.host or None, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    failure: OSError | None = None
    usable = False
    for family, kind, protocol, _, place in found:
        try:
            with socket.socket(family, kind, protocol) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
                probe.listen(1)  # on some systems two may be bound to a port, but only one may listen
                usable = True
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise
            failure = error
    if failure is not None and not usable:
        raise failure


def _check_socket_free(path: Path) -> None:
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
        raise OSError(errno.ENAMETOOLONG, f"a socket's path has at most {SOCKET_PATH_BYTES_MAX} bytes")
    if not path.parent.is_dir():
        raise OSError(errno.ENOENT, f"there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise OSError(errno.EEXIST, "there is a file of that name, which is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_S)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return  # left behind by a process that was killed
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def _why(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another process listens there. Stop that one, or give another address with --listen."
    if error.errno == errno.EACCES:
        return "this user may not listen there. Ports below 1024 are the system's; give another with --listen."
    if error.errno == errno.EADDRNOTAVAIL:
        return "that is no address of this machine. Give one that is with --listen, such as 127.0.0.1:50050."
    if isinstance(error, socket.gaierror):
        return f"the name does not lead to an address ({error.strerror}). Correct it with --listen."
    return f"{error.strerror}. Give another address with --listen."
