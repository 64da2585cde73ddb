"""A whole network, wired: the composition root.

`Network.start` makes or opens a data folder, and runs gateway, token service, face service and simulated participants
on it: all in this process, or the participants as processes of their own.

    DIR/network.json       seed and address          DIR/gateway.db    the journal
    DIR/directory.json     who is here               DIR/vault/        tokens, sealed
    DIR/participants/      the participants' books   DIR/faces/        templates, sealed
    DIR/gateway.key        keys the fingerprints of requests (a request's code must not be guessed from the journal)
"""

from __future__ import annotations

import gc
import json
import logging
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Final

import grpc

from clients.command.journals import JournalError, open_journal, remembered
from clients.command.vaults import SECRET_VARIABLES, KeyModule, open_vault
from clients.participants.books import Books
from clients.participants.process import SECRET_VARIABLE
from clients.participants.simulated import Participants, SimulatedAcquirer, SimulatedIssuer, SimulatedParticipant
from clients.population import Population, Wallet, populate
from contract.secret import Secret
from facepay.server import FaceServicer
from facepay.service import FaceService
from facepay.service import open_service as open_faces
from gateway import directory
from gateway import listen as listening
from gateway.barcode.server import BarcodeServicer
from gateway.engine.loop import IN_FLIGHT_MAX
from gateway.engine.transitions import Timing
from gateway.links.loopback import LoopbackLink
from gateway.server import Gateway, GatewayOptions, Register
from hutong.facepay.v1 import face_pb2, face_pb2_grpc
from hutong.gateway.v1 import barcode_pb2, barcode_pb2_grpc
from hutong.tokenization.v1 import token_pb2, token_pb2_grpc
from tokenization.errors import VaultError
from tokenization.interface import Account
from tokenization.server import TokenServicer
from tokenization.service import TokenService

log = logging.getLogger(__name__)

DEFAULT_LISTEN: Final = "127.0.0.1:50050"
KEY_BYTES: Final = 32
CONNECT_S: Final = 20.0
"""How long participants of their own process may take to connect."""
GC_THRESHOLD: Final = 50_000
"""Allocations between collections: the engine makes no cycles, and each collection looks at all payments in flight."""
OPENING_MERCHANT_MINOR: Final = 0


class NetworkError(Exception):
    """The network cannot run; the text says what to change."""


@dataclass(frozen=True, slots=True)
class NetworkOptions:
    """What kind of network."""

    data: Path
    seed: int = 1
    listen: str = DEFAULT_LISTEN
    front: str = "native"
    """`native` or `aio`."""
    tls: listening.Tls | None = None
    plaintext_anywhere: bool = False
    processes: bool = False
    """Participants as processes of their own, over gRPC."""
    magic_amounts: bool = True
    wallets_per_issuer: int = 3
    merchants_per_acquirer: int = 2
    opening_minor: int | None = None
    """Every wallet's opening balance; None: as the population has it."""
    journal: str = field(default="", repr=False)
    """URL of a PostgreSQL database, which may hold a password; empty for SQLite in the folder."""
    vault: Path | None = None
    """Folder of the token vault, which several gateways of one machine may share; None: `vault` in the data folder."""
    key_module: KeyModule | None = None
    """Hardware module that keeps the vault's key-encryption keys; None: a sealed file in the vault's folder."""
    timing: Timing = field(default_factory=Timing)
    in_flight_max: int = IN_FLIGHT_MAX
    drain_s: float = 10.0


class Network:
    """A running network. Use it as a context manager, or call `close`."""

    def __init__(self, options: NetworkOptions) -> None:
        self.options = options
        self.data = options.data
        self.population: Population = populate(
            options.seed,
            wallets_per_issuer=options.wallets_per_issuer,
            merchants_per_acquirer=options.merchants_per_acquirer,
        )
        self.participants: dict[str, SimulatedParticipant] = {}
        """Participants in this process, by id; empty with `processes`."""
        self._vault = open_vault(options.vault or self.data / "vault", options.key_module)
        self.tokens: TokenService = self._vault.service
        self.faces: FaceService = open_faces(self.data / "faces")
        self._token_servicer = TokenServicer(self.tokens)
        self._face_servicer = FaceServicer(self.faces)
        self.wallet_tokens: dict[str, Secret[str]] = {}
        """Wallet id to the account-unified token of its account."""
        self._closed: bool | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self._books: list[Books] = []
        self.recovered = 0
        """Payments that were in flight when the folder was last used."""
        self._directory = directory.parse(json.loads(self._write_directory()))
        self._register()
        self.gateway = self._build()

    @classmethod
    def start(cls, options: NetworkOptions) -> Network:
        """Builds the network and opens its port. Raises NetworkError."""
        options.data.mkdir(parents=True, exist_ok=True)
        options = replace(options, seed=_settle_seed(options))
        try:
            network = cls(options)
        except (listening.ListenError, JournalError, VaultError, ValueError, OSError) as error:
            raise NetworkError(str(error)) from error
        network._run()
        return network

    def _run(self) -> None:
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 100)
        try:
            self.recovered = self.gateway.start()
        except (OSError, RuntimeError) as error:
            self.close()
            raise NetworkError(f"{self.options.listen} cannot be listened on: {error}") from error
        if self.options.processes:
            self._spawn()
        (self.data / "network.json").write_text(
            json.dumps(
                {
                    "seed": self.options.seed,
                    "target": self.target,
                    "pid": os.getpid(),
                    "journal": remembered(self.options.journal),
                }
            )
            + "\n"
        )

    @property
    def target(self) -> str:
        """The address for clients."""
        return self.gateway.target

    @property
    def failed(self) -> bool:
        """Whether the engine stopped by a defect."""
        return self.gateway.engine.failure is not None

    # -- parts -----------------------------------------------------------------------------------------------

    def _write_directory(self) -> str:
        """The gateway's directory file; one that is there already is kept, so that a user's changes stay."""
        path = self.data / "directory.json"
        if not path.exists():
            _write_private(path, self.population.directory().encode())
        return path.read_text(encoding="utf-8")

    def _register(self) -> None:
        """Gives every account its token at the token service, and its balance at its participant."""
        wallets = self.population.wallets
        registrations = self.tokens.register_accounts([Account(wallet.issuer_id, wallet.account) for wallet in wallets])
        self.wallet_tokens = {wallet.id: one.token for wallet, one in zip(wallets, registrations, strict=True)}
        if self.options.processes:
            for institution in self.population.institutions:
                books = Books(self._books_folder(institution.id))
                self._open_accounts(self._participant(institution.id, institution.role, books))
                books.close()
            return
        books = Books(self.data / "participants")
        self._books.append(books)
        for institution in self.population.institutions:
            participant = self._participant(institution.id, institution.role, books)
            self._open_accounts(participant)
            self.participants[institution.id] = participant

    def _books_folder(self, participant_id: str) -> Path:
        return self.data / "participants" / participant_id

    def _participant(self, participant_id: str, role: str, books: Books) -> SimulatedParticipant:
        kind = SimulatedIssuer if role == "issuer" else SimulatedAcquirer
        return kind(participant_id, books, seed=self.options.seed, magic_amounts=self.options.magic_amounts)

    def _open_accounts(self, participant: SimulatedParticipant) -> None:
        people = self.population.wallets_of(participant.id)
        shops = self.population.merchants_of(participant.id)
        participant.ledger.open_accounts(
            [(self.wallet_tokens[one.id].reveal(), one.currency, self._opening(one)) for one in people]
            + [(shop.id, shop.currency, OPENING_MERCHANT_MINOR) for shop in shops]
        )

    def _opening(self, wallet: Wallet) -> int:
        return wallet.opening_minor if self.options.opening_minor is None else self.options.opening_minor

    def _build(self) -> Gateway:
        options = self.options
        opened = self._opened = open_journal(self.data, options.journal, key=_key(self.data / "gateway.key"))
        local = None if options.processes else LoopbackLink(Participants(self._books[0], self.participants.values()))
        return Gateway(
            GatewayOptions(
                listen=listening.parse(options.listen),
                front=options.front,
                tls=options.tls,
                plaintext_anywhere=options.plaintext_anywhere,
                timing=options.timing,
                in_flight_max=options.in_flight_max,
                drain_s=options.drain_s,
            ),
            self._directory,
            opened.journal,
            opened.open_reader,
            self.tokens,
            _key(self.data / "gateway.key"),
            faces=self.faces,
            local=local,
            local_ids=frozenset(self.participants),
            services=self._services(),
            neighbours=opened.neighbours,
        )

    def _services(self) -> Sequence[Register]:
        """What the gateway's port serves besides payments."""

        def barcodes(server: grpc.aio.Server) -> Sequence[str]:
            barcode_pb2_grpc.add_BarcodeServiceServicer_to_server(BarcodeServicer(self._directory), server)
            return (barcode_pb2.DESCRIPTOR.services_by_name["BarcodeService"].full_name,)

        def tokens(server: grpc.aio.Server) -> Sequence[str]:
            token_pb2_grpc.add_TokenServiceServicer_to_server(self._token_servicer, server)
            return (token_pb2.DESCRIPTOR.services_by_name["TokenService"].full_name,)

        def faces(server: grpc.aio.Server) -> Sequence[str]:
            face_pb2_grpc.add_FaceServiceServicer_to_server(self._face_servicer, server)
            return (face_pb2.DESCRIPTOR.services_by_name["FaceService"].full_name,)

        return (barcodes, tokens, faces)

    def _spawn(self) -> None:
        """Starts every participant as a process, and waits until all have connected."""
        for institution in self.population.institutions:
            command = [
                *(sys.executable, "-m", "clients.participants.process"),
                *("--target", self.target, "--id", institution.id, "--role", institution.role),
                *("--folder", str(self._books_folder(institution.id)), "--seed", str(self.options.seed)),
                "--magic" if self.options.magic_amounts else "--no-magic",
                "--until-eof",  # the pipe ends with this process, however it ends
            ]
            environment = {name: value for name, value in os.environ.items() if name not in SECRET_VARIABLES}
            environment[SECRET_VARIABLE] = institution.secret.reveal()
            self._children.append(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE))  # noqa: S603 - our own module
        deadline = time.monotonic() + CONNECT_S
        waiting = [institution.id for institution in self.population.institutions]
        while waiting := [one for one in waiting if not self.gateway.reachable(one)]:
            if time.monotonic() > deadline or any(child.poll() is not None for child in self._children):
                self.close()
                raise NetworkError(f"these participants did not connect: {', '.join(waiting)}")
            time.sleep(0.05)

    # -- end -------------------------------------------------------------------------------------------------

    def close(self) -> bool:
        """Drains and stops everything, once. Returns whether nothing was left in flight."""
        if self._closed is not None:
            return self._closed
        self._closed = empty = self.gateway.stop()
        self._opened.unlock()
        for child in self._children:
            child.terminate()
            if child.stdin is not None:
                child.stdin.close()
        for child in self._children:
            try:
                child.wait(CONNECT_S)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for books in self._books:
            books.close()
        self._face_servicer.close()
        self.faces.close()
        self._token_servicer.threads.shutdown()
        self._vault.close()
        gc.unfreeze()
        return empty

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _settle_seed(options: NetworkOptions) -> int:
    """A folder keeps the seed that it was made with: its people and books belong to it."""
    path = options.data / "network.json"
    if not path.exists():
        return options.seed
    return int(json.loads(path.read_text())["seed"])


def _key(path: Path) -> bytes:
    """A secret key in a file that only its owner can read; made when it is first needed."""
    if not path.exists():
        _write_private(path, secrets.token_bytes(KEY_BYTES))
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise NetworkError(f"{path} is not a key of {KEY_BYTES} bytes; restore it from a copy")
    return key


def _write_private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
