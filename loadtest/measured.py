"""A gateway under measurement: a whole network in a process of its own, and the requests that load it."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from gateway.budgets import QueryLimits
from gateway.engine.loop import IN_FLIGHT_MAX
from hutong.participant.v1 import participant_pb2
from hutong_contract.extras import needs
from loadtest.errors import BenchError
from sandbox.journals import LOCAL_SERVER, SQLITE_FILE, local_server
from sandbox.network import Network
from sandbox.options import NetworkOptions
from sandbox.participants.script import Script

with needs("bench"):
    import psutil


WALLETS_PER_ISSUER: Final = 250
MERCHANTS_PER_ACQUIRER: Final = 20
OPENING_MINOR: Final = 10**14
CHILD_S: Final = 120.0
SILENCE: Final = Script(lose_request=0.5, lose_answer=0.5, kinds=frozenset(participant_pb2.LegKind.values()))
"""Nothing is answered, and half of it is done all the same."""


@dataclass(frozen=True, slots=True)
class Setting:
    """Which gateway."""

    folder: str
    front: str = "native"
    journal: str = ""
    """URL; empty for SQLite in the folder."""
    in_flight_max: int = IN_FLIGHT_MAX
    wallets: int = WALLETS_PER_ISSUER
    queries: QueryLimits = field(default_factory=QueryLimits)
    silent: bool = False
    """Whether issuers and acquirers answer nothing."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A gateway's own accounting."""

    cpu_s: float
    commits: int
    admitted: int
    in_flight: int
    gate: int
    """Payments that may wait for the engine."""
    wal_mb: float
    """Write-ahead log of SQLite."""
    recovered: int
    """Payments that were in flight when the gateway started."""
    rss_mb: float


@contextmanager
def place(journal: str) -> Iterator[tuple[Path, str]]:
    """A temporary folder for a network, and the URL of its journal: a server's started for the run where that is asked
    for, empty for SQLite."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hutong-bench-")))
        yield folder, stack.enter_context(local_server()).url if journal == LOCAL_SERVER else journal


def journal_name(url: str) -> str:
    """What a report calls a journal."""
    return "postgresql" if url else "sqlite, WAL, synchronous=FULL"


def verdict(result: Mapping[str, Any]) -> str:
    """What the conservation check found, for a person."""
    return "no money was lost" if result["conserved"] else f"NOT conserved: {result['findings']}"


class Child:
    """A server in a process of its own, asked through a pipe."""

    def __init__(self, target: Callable[..., None], *args: object) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=target, args=(theirs, *args), daemon=True)
        self._process.start()
        self.first = self._receive()
        """What it sent when it was ready."""

    def ask(self) -> Any:
        """Its usage now."""
        self._pipe.send("usage")
        return self._receive()

    def _receive(self) -> Any:
        if not self._pipe.poll(CHILD_S):
            raise BenchError("a server of the bench does not answer; is the machine overloaded?")
        return self._pipe.recv()

    def kill(self) -> None:
        """kill -9, and waits."""
        self._process.kill()
        self._process.join(CHILD_S)

    def stop(self) -> None:
        """Ends it and waits."""
        self._pipe.send(None)
        self._process.join(CHILD_S)


def serve_gateway(pipe: Connection, setting: Setting) -> None:
    """Runs a network and answers for its usage until told to stop."""
    options = NetworkOptions(
        data=Path(setting.folder),
        listen="127.0.0.1:0",
        front=setting.front,
        journal=setting.journal,
        in_flight_max=setting.in_flight_max,
        queries=setting.queries,
        magic_amounts=False,
        wallets_per_issuer=setting.wallets,
        merchants_per_acquirer=MERCHANTS_PER_ACQUIRER,
        opening_minor=OPENING_MINOR,
    )
    with Network.start(options) as network:
        if setting.silent:
            for participant in network.participants.values():
                participant.script = SILENCE
        wal = Path(setting.folder) / (SQLITE_FILE + "-wal")
        process, engine = psutil.Process(), network.gateway.engine
        tokens = [token.reveal() for token in network.wallet_tokens.values()]
        merchants = [(shop.id, shop.terminals[0]) for shop in network.population.merchants]
        pipe.send((network.target, tokens, merchants))
        while pipe.recv() is not None:
            counts = engine.counts
            pipe.send(
                Usage(
                    cpu_s=time.process_time(),
                    commits=counts.commits,
                    admitted=counts.admitted,
                    in_flight=engine.in_flight,
                    gate=network.gateway.gate.bound,
                    wal_mb=wal.stat().st_size / 2**20 if wal.exists() else 0.0,
                    recovered=network.recovered,
                    rss_mb=process.memory_info().rss / 2**20,
                )
            )
