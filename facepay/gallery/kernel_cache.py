"""The cache of compiled search kernels, and compiling them in a process of its own.

Compiling takes some 5 seconds of CPU, or a minute on a busy machine, and holds the GIL. Therefore it is done once per
machine, in a process of low priority, into a folder that outlives checkouts and upgrades: `$HUTONG_CACHE`, else
`$CACHE_DIRECTORY` (systemd), else `$XDG_CACHE_HOME/hutong`, else `~/.cache/hutong`. The cache is keyed by the kernels'
sources; numba also keys each entry by the processor. This module loads neither numba nor the kernels;
facepay.gallery.compile_kernels is what that process runs.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import logging
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

from hutong_contract.confinement import environment

log = logging.getLogger(__name__)

COMPILE_S: Final = 15.0
"""What compiling usually takes, in seconds, for the message and for callers who are told when to come back."""
COMPILE_MAX_S: Final = 600.0
"""A compiler that takes longer is stopped, and the kernels are compiled in this process when they are needed."""
_SOURCES: Final = ("kernels.py", "instructions.py", "compiled.py")


def root() -> Path:
    """The folder of everything that may be deleted at any time."""
    # CACHE_DIRECTORY may list several folders.
    given = os.environ.get("HUTONG_CACHE") or os.environ.get("CACHE_DIRECTORY", "").split(":")[0]
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~/.cache").expanduser()) / "hutong"


@functools.cache
def _sources() -> str:
    """A digest of the kernels' sources: numba looks at one file only, and instructions are inlined from another."""
    digest = hashlib.sha256()
    for name in _SOURCES:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def _machine() -> str:
    """A digest of what compiled code depends on besides its source: processor, Python, numba."""
    parts = [platform.machine(), sys.version, *(importlib.metadata.version(one) for one in ("numba", "llvmlite"))]
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n")[0].splitlines()
        parts += [line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))]
    except OSError:
        parts.append(platform.processor())
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def folder() -> Path | None:
    """The folder of this version's kernels, made where it is missing; None where it cannot be written, or is another
    user's (compiled code that somebody else may write must not be loaded)."""
    path = root() / f"kernels-{_sources()}"
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        if path.stat().st_mode & 0o077 and path.stat().st_uid == os.geteuid():
            path.chmod(0o700)
        if path.stat().st_uid != os.geteuid() or not os.access(path, os.W_OK | os.X_OK):
            return None
    except (OSError, RuntimeError):  # RuntimeError: no home folder.
        return None
    return path


def _marker() -> Path | None:
    path = folder()
    return path / f"complete-{_machine()}" if path else None


def is_warm() -> bool:
    """Whether all kernels were compiled for this machine before."""
    marker = _marker()
    return marker is not None and marker.exists()


def mark_warm() -> None:
    """Notes that all kernels are in the cache."""
    marker = _marker()
    if marker is not None:
        marker.touch()


class Compilation:
    """Compiling in a process of its own; it starts at once. Safe from several threads."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        log.info("compiling face search kernels, once, about %.0f s", COMPILE_S)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "facepay.gallery.compile_kernels"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment(),
            umask=0o077,
        )
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._wait, name="face-compiling", daemon=True)
        self._thread.start()

    def _wait(self) -> None:
        try:
            _, said = self._process.communicate(timeout=COMPILE_MAX_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _, said = self._process.communicate()
        taken = time.monotonic() - self._started
        if self._process.returncode == 0:
            log.info("face search kernels are compiled, in %.1f s", taken)
        elif self._process.returncode > 0:
            lines = said.decode(errors="replace").strip().splitlines()
            log.warning(
                "face search kernels could not be compiled apart, and are compiled when they are needed: %s",
                lines[-1] if lines else f"status {self._process.returncode}",
            )
        self._done.set()

    def left_s(self) -> float:
        """About how many seconds it still takes; 0 once it has ended, well or not."""
        return 0.0 if self._done.is_set() else max(1.0, COMPILE_S - (time.monotonic() - self._started))

    def wait(self, timeout_s: float | None = None) -> bool:
        """Waits until it has ended; whether it has."""
        return self._done.wait(timeout_s)

    def stop(self) -> None:
        """Ends it; what was compiled so far stays in the cache."""
        if not self._done.is_set():
            self._process.terminate()
        self._thread.join()
