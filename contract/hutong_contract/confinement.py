"""What a process that holds secrets keeps from others on its machine: its files, its memory, its environment.

keep_to_owner()       files and folders that this process makes from now on are its user's alone (umask 077)
tighten(folder)       files and folders that are there already become so
without_dumps()       no core dump of this process, and no reading of its memory by other processes of its user
raise_open_files()    as many open files as the system lets this process have, up to what it needs
environment()         what a child process gets of this process's environment: nothing that may be a secret
"""

from __future__ import annotations

import ctypes
import logging
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

OTHERS: Final = 0o077
"""Permission bits of everybody except the owner."""
OPEN_FILES_WANTED: Final = 65_536
"""Open files and connections that a gateway requests from the system."""
OPEN_FILES_LEAST: Final = 8_192
"""With fewer it starts, but logs a warning: idle connections may then exhaust them."""
ENTRIES_MAX: Final = 1_000_000
"""Most files that `tighten` visits; a folder of ours has some hundreds."""
_PR_SET_DUMPABLE: Final = 4
_KEPT: Final = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "SHELL", "TMPDIR", "TEMP", "TMP", "TZ", "LANG", "LANGUAGE",
        "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "VIRTUAL_ENV", "CACHE_DIRECTORY", "HUTONG_CACHE",
        "XDG_CACHE_HOME",
    }
)  # fmt: skip
_KEPT_PREFIXES: Final = ("LC_", "NUMBA_", "OMP_", "OPENBLAS_", "MKL_", "GRPC_", "PYTHON", "COVERAGE_", "CUDA_")
"""Settings of libraries, none of which is a secret."""


def keep_to_owner() -> None:
    """Makes files and folders that this process and its children create from now on readable by their owner alone."""
    os.umask(os.umask(OTHERS) | OTHERS)


@contextmanager
def kept_to_owner() -> Iterator[None]:
    """The same for a while. The mask is the whole process's, so it also applies to what other threads create
    meanwhile."""
    before = os.umask(OTHERS)
    os.umask(before | OTHERS)
    try:
        yield
    finally:
        os.umask(before)


def tighten(folder: Path) -> int:
    """Takes everybody else's permissions from a folder and all that is in it, and returns from how many. Links are not
    followed. What belongs to another user cannot be changed: it is named in the log."""
    changed, foreign = 0, []
    for count, path in enumerate(_within(folder)):
        if count >= ENTRIES_MAX:
            log.warning("%s has more than %d files: the others' permissions were not looked at", folder, ENTRIES_MAX)
            break
        try:
            found = path.lstat()
        except OSError:
            continue  # gone meanwhile
        if stat.S_ISLNK(found.st_mode) or not found.st_mode & OTHERS:
            continue
        if found.st_uid != os.geteuid():
            foreign.append(path)
            continue
        try:
            path.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)
            changed += 1
        except FileNotFoundError:
            continue
        except OSError:  # a file system that is read-only, or knows no permissions
            foreign.append(path)
    if changed:
        log.warning("%s: other users could use %d files or folders there; now they cannot", folder, changed)
    if foreign:
        log.warning(
            "%s: other users can use %d files or folders there that this user cannot change, such as %s",
            folder, len(foreign), foreign[0],
        )  # fmt: skip
    return changed


def _within(folder: Path) -> Iterator[Path]:
    """The folder, then all below it; a folder is closed to others before what is in it is looked at."""
    yield folder
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            yield Path(place, name)


def without_dumps() -> bool:
    """Suppresses core dumps, which would hold keys, and lets no other process of this user read this one's memory.
    Returns whether the system took both; where it did not, the log says so."""
    done = True
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError) as error:
        log.warning("core dumps could not be turned off: %s", error)
        done = False
    if sys.platform == "linux":
        # A pipe of kernel.core_pattern gets dumps in spite of the limit; this ends those too.
        try:
            done = ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) == 0 and done
        except (OSError, AttributeError):
            done = False
        if not done:
            log.warning("other processes of this user may read this one's memory: prctl was refused")
    return done


def raise_open_files(wanted: int = OPEN_FILES_WANTED, least: int = OPEN_FILES_LEAST) -> int:
    """Raises this process's limit of open files to `wanted`, or as far as the system lets it, and returns the limit.
    Below `least` the log says what to change."""
    try:
        import resource
    except ImportError:  # not a Unix
        return wanted
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return wanted
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft < most:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
            soft = most
    if soft < least:
        log.warning(
            "this process may have %d files and connections open, and %d are advised: set `ulimit -Hn %d` before, or "
            "LimitNOFILE in its unit",
            soft, least, wanted,
        )  # fmt: skip
    return soft


def open_files() -> int:
    """Files and connections that this process may have open."""
    try:
        import resource
    except ImportError:  # not a Unix
        return OPEN_FILES_WANTED
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return OPEN_FILES_WANTED if soft == resource.RLIM_INFINITY else soft


def environment(**more: str) -> dict[str, str]:
    """What a child process of ours gets of this process's environment: paths, language and settings of libraries, and
    `more`. Passwords, PINs and whatever else somebody put there stay here."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith(_KEPT_PREFIXES)}
    paths = [path for path in sys.path if path]
    return {**kept, "PYTHONPATH": os.pathsep.join(paths), **more}
