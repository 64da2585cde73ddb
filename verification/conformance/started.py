"""A participant that the suite starts itself, so that it can kill it without warning and start it again."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final

END_S: Final = 10.0
"""How long it may take to end when it is asked to; then it is killed."""


class Started:
    """A command that runs until the suite ends, in a process group of its own. Use as a context manager."""

    def __init__(self, command: Sequence[str]) -> None:
        """`command`: program and arguments. Its input is empty, and its output goes to standard error."""
        self._command = list(command)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Started:
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            _signal(process, signal.SIGTERM)
            with suppress(subprocess.TimeoutExpired):
                process.wait(END_S)
        self._kill()

    def restart(self) -> None:
        """Kills it as a power cut would (SIGKILL, its children too), and starts it again. Raises OSError."""
        self._kill()
        self._start()

    def _start(self) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - the user's own command
            self._command, stdin=subprocess.DEVNULL, stdout=2, start_new_session=True
        )

    def _kill(self) -> None:
        if self._process is not None:
            _signal(self._process, signal.SIGKILL)
            self._process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To the whole group: what the command has started ends with it."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
