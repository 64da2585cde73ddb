"""The child process that reads pictures of strangers: started by `readers`, which says what it hears and answers.

Whoever starts it need not trust it: the kernel ends this process at its limits of processor time, wall time and memory,
in the midst of any native code; it can write no file and leave no core; and the end of its input is its end.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any, Final

from gateway.barcode import read
from gateway.barcode.found import Effort, Reading
from gateway.barcode.readers import read_frame, write_frame
from hutong_contract.errors import HutongError

_NICENESS: Final = 10
"""Payments beside the worker go first."""
_PR_SET_PDEATHSIG: Final = 1
_STATM: Final = Path("/proc/self/statm")


def main() -> None:
    """Serves jobs until the input ends."""
    jobs, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a native library prints must not stand between frames
    os.nice(_NICENESS)
    read.warm_up()
    _fence()
    write_frame(answers, {"ready": True})
    while (job := read_frame(jobs)) is not None:
        data = jobs.read(int(job["bytes"]))
        _bound(job)
        _serve(data, Effort(job["effort"]), answers)
        signal.setitimer(signal.ITIMER_REAL, 0)


def _fence() -> None:
    """Limits for the whole life of the process, which is not longer than its parent's."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    for limit in (resource.RLIMIT_CORE, resource.RLIMIT_FSIZE):
        resource.setrlimit(limit, (0, 0))
    for number in (signal.SIGALRM, signal.SIGXCPU):
        signal.signal(number, signal.SIG_DFL)


def _bound(job: dict[str, Any]) -> None:
    """Limits for one job, above what the process has used and holds already."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    spent = math.ceil(used.ru_utime + used.ru_stime)
    _lower(resource.RLIMIT_CPU, spent + int(job["cpu_s"]))
    signal.setitimer(signal.ITIMER_REAL, float(job["wall_s"]))
    with contextlib.suppress(OSError, ValueError):  # no /proc: the other limits hold
        held = int(_STATM.read_text("ascii").split()[0]) * resource.getpagesize()
        _lower(resource.RLIMIT_AS, held + int(job["memory_bytes"]))


def _lower(limit: int, value: int) -> None:
    """Sets the limit that counts, within the one that was handed down."""
    _, hard = resource.getrlimit(limit)
    resource.setrlimit(limit, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


def _serve(data: bytes, effort: Effort, answers: IO[bytes]) -> None:
    try:
        started, complete = time.process_time(), True
        for reading in _readings(data, effort):
            complete = reading.complete
            write_frame(answers, {"symbols": [[s.text, s.format, s.position, s.reader] for s in reading.symbols]})
        write_frame(answers, {"done": True, "complete": complete, "cpu_s": time.process_time() - started})
    except HutongError as error:
        write_frame(answers, {"problem": error.fields.get("problem", error.name)})
    except MemoryError:
        write_frame(answers, {"problem": "reading it takes more memory than is allowed: send a smaller picture"})
    except Exception as error:  # noqa: BLE001 - native libraries fail in ways of their own; the next picture is another
        write_frame(answers, {"problem": f"the reader failed on it ({type(error).__name__})"})


def _readings(data: bytes, effort: Effort) -> Iterable[Reading]:
    if effort in {Effort.ZXING, Effort.ZXING_FIRST, Effort.OPENCV}:
        return (Reading(tuple(read.alone(data, effort.value))),)
    return read.readings(data, effort)


if __name__ == "__main__":
    main()
