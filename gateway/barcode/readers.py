"""Reads pictures of strangers in a child process that can be ended at any moment.

zxing-cpp and OpenCV are native code that cannot be interrupted: a picture of a hundred kilobytes keeps them busy for
minutes. So a picture that comes from outside is read by `worker`, under limits of processor time, wall time and memory
that the kernel enforces, and the child is killed when the caller leaves or the process is told to stop.

`Reader` is one child, for threads and commands; `Readers` is a bounded number of them for an event loop.

Frames between the two are four bytes of length (big-endian) and JSON. A job's frame is followed by the picture's bytes.
It is answered by any number of `{"symbols": [...]}`, each with everything found so far, and by one of `{"done": true}`
and `{"problem": "..."}`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final

from gateway.barcode import files
from gateway.barcode.found import SYMBOLS_MAX, Effort, Reading, Symbol
from hutong_contract.confinement import environment
from hutong_contract.errors import HutongError, Reason

START_S: Final = 60.0
"""How long a child may take to import its libraries on a busy machine, before it is given up."""
READERS: Final = 2
WAITING_MAX: Final = 16
"""Pictures that wait for a child; who comes then is told to come again."""
IDLE_S: Final = 60.0
"""A child that has nothing to do for so long is ended: it holds some hundred megabytes."""
JOBS_MAX: Final = 1_000
"""A child is replaced after so many pictures, so that what a native library leaks does not add up."""
MESSAGE_BYTES_MAX: Final = 8 * 1024 * 1024
PROBLEM_CHARACTERS_MAX: Final = 200

_RETRY_US: Final = 1_000_000
_WORKER: Final = "gateway.barcode.worker"
_ONE_THREAD: Final = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OPENCV_FOR_THREADS_NUM")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one picture may cost."""

    cpu_s: int = 4
    """Seconds of processor time."""
    wall_s: float = 20.0
    """Seconds by the clock: on a machine that is busy with payments a worker waits for its turn."""
    memory_bytes: int = 1_500_000_000
    """Address space above what the libraries themselves take."""


def write_frame(stream: IO[bytes], message: dict[str, Any], data: bytes = b"") -> None:
    """Writes one message, and the bytes that follow it.

    Raises:
        OSError: nobody reads any more.
    """
    body = json.dumps(message).encode("ascii")
    stream.write(len(body).to_bytes(4) + body)
    stream.write(data)
    stream.flush()


def read_frame(stream: IO[bytes]) -> dict[str, Any] | None:
    """Reads one message; None at the end of the stream, or where no message stands."""
    head = stream.read(4)
    length = int.from_bytes(head)
    if len(head) < 4 or not 0 < length <= MESSAGE_BYTES_MAX:
        return None
    body = stream.read(length)
    if len(body) < length:
        return None
    try:
        message = json.loads(body)
    except ValueError:
        return None
    return message if isinstance(message, dict) else None


class Reader:
    """One child process, started when it is first needed, and again after it was ended.

    `read` is for one thread at a time; `stop` may be called from any, and makes a `read` that runs end at once.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._ending = False
        self._jobs = 0

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def read(
        self, source: bytes | Path, effort: Effort = Effort.LADDER, leaving: threading.Event | None = None
    ) -> Reading:
        """The symbols of a picture.

        Args:
            source: the bytes of a PNG, JPEG, WebP, BMP or TIFF file, or the path of one.
            effort: how far to go.
            leaving: set by who calls `stop`, so that a job is not begun any more.

        Raises:
            HutongError: FIELD_INVALID where the picture cannot be read, or cannot be read within the limits;
                INTERNAL where no child can be started.
        """
        data = source if isinstance(source, bytes) else files.read_file(source)
        files.require_readable(data)
        process = self._started()
        if leaving is not None and leaving.is_set():
            return Reading((), complete=False)
        limits = self._limits
        clean = False
        try:
            found, end = self._exchange(process, data, effort)
            clean = end is not None
        finally:
            if not clean:
                self.close()
        if end is not None and "problem" in end:
            raise files.refusal(str(end["problem"])[:PROBLEM_CHARACTERS_MAX])
        if end is None and not found:
            raise files.refusal(
                f"nothing was read in it within {limits.cpu_s} s of computing and "
                f"{limits.memory_bytes // 1_000_000} MB: send a smaller picture, of the code alone"
            )
        if end is None:
            return Reading(found, complete=False)
        return Reading(found, complete=bool(end.get("complete")), cpu_s=float(end.get("cpu_s", 0)))

    def _exchange(
        self, process: subprocess.Popen[bytes], data: bytes, effort: Effort
    ) -> tuple[tuple[Symbol, ...], dict[str, Any] | None]:
        """What the child found, and its last message: None where it was ended before that."""
        limits = self._limits
        job = {
            "bytes": len(data),
            "effort": effort.value,
            "cpu_s": limits.cpu_s,
            "wall_s": limits.wall_s,
            "memory_bytes": limits.memory_bytes,
        }
        found: tuple[Symbol, ...] = ()
        assert process.stdin is not None
        assert process.stdout is not None
        with _Deadline(process, limits.wall_s + 1), contextlib.suppress(OSError):
            write_frame(process.stdin, job, data)
            while (answer := read_frame(process.stdout)) is not None:
                if "symbols" not in answer:
                    return found, answer
                found = tuple(_symbol(*fields) for fields in answer["symbols"][:SYMBOLS_MAX])
        return found, None

    def stop(self) -> None:
        """Kills the child; a `read` that runs ends with what was found so far."""
        with self._lock:
            if self._process is not None:
                self._ending = True  # a killed process lives on for a moment
                self._process.kill()

    def close(self) -> None:
        """Ends the child and waits for its end. For the thread that reads."""
        with self._lock:
            process, self._process = self._process, None
            self._ending, self._jobs = False, 0
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()

    def _started(self) -> subprocess.Popen[bytes]:
        with self._lock:
            process, ending = self._process, self._ending or self._jobs >= JOBS_MAX
        if process is not None and not ending and process.poll() is None:
            self._jobs += 1
            return process
        self.close()
        try:
            process = subprocess.Popen(  # noqa: S603 - this interpreter, and our own module
                [sys.executable, "-P", "-m", _WORKER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise HutongError(Reason.ERROR_REASON_INTERNAL, problem="no process to read pictures in") from error
        with self._lock:
            self._process = process
        assert process.stdout is not None
        with _Deadline(process, START_S):
            ready = read_frame(process.stdout)
        if ready is None:
            self.close()
            raise HutongError(Reason.ERROR_REASON_INTERNAL, problem="the process that reads pictures did not start")
        return process


class Readers:
    """A bounded number of children for one event loop, with a bounded number of pictures that wait for them."""

    def __init__(self, count: int = READERS, waiting_max: int = WAITING_MAX, limits: Limits | None = None) -> None:
        # One thread for each child: what a cancelled call leaves behind ends before the child's next picture.
        self._idle = [(Reader(limits), ThreadPoolExecutor(1, "pictures")) for _ in range(count)]
        self._free = asyncio.Semaphore(count)
        self._waiting = 0
        self._waiting_max = waiting_max
        self._releases: dict[Reader, asyncio.TimerHandle] = {}

    async def read(self, data: bytes, effort: Effort = Effort.LADDER) -> Reading:
        """The symbols of a picture. A caller that leaves (cancels) ends the work at once.

        Raises:
            HutongError: as `Reader.read`; OVERLOADED where too many pictures wait already.
        """
        if self._waiting >= self._waiting_max:
            raise HutongError(Reason.ERROR_REASON_OVERLOADED).after(_RETRY_US)
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        reader, thread = pair = self._idle.pop()
        if (release := self._releases.pop(reader, None)) is not None:
            release.cancel()
        leaving = threading.Event()
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(thread, reader.read, data, effort, leaving)
        except asyncio.CancelledError:
            leaving.set()
            reader.stop()
            raise
        finally:
            self._idle.append(pair)
            self._releases[reader] = loop.call_later(IDLE_S, reader.stop)
            self._free.release()

    def close(self) -> None:
        """Ends the children that have nothing to do; those that read end with their calls."""
        for reader, _ in self._idle:
            reader.stop()


class _Deadline:
    """Kills a process that is not done in time: whoever reads its answers then sees their end."""

    def __init__(self, process: subprocess.Popen[bytes], seconds: float) -> None:
        self._timer = threading.Timer(seconds, process.kill)
        self._timer.daemon = True

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self._timer.cancel()


def _symbol(text: str, form: str, corners: list[list[int]], reader: str) -> Symbol:
    first, second, third, fourth = ((int(x), int(y)) for x, y in corners)
    return Symbol(text, form, (first, second, third, fourth), reader)


def _environment() -> dict[str, str]:
    """What the child needs of this process's environment, which may hold secrets, and where its modules are."""
    return {
        **environment(),
        **dict.fromkeys(_ONE_THREAD, "1"),
        "OPENCV_IO_MAX_IMAGE_PIXELS": str(files.PIXELS_MAX),
        "OPENCV_LOG_LEVEL": "OFF",
    }
