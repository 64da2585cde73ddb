"""A whole network, wired: the composition root.

`Network.start` makes or opens a data folder, and runs gateway, token service, face service and simulated participants
on it: all in this process, or the participants as processes of their own, or elsewhere, from where they dial in.

    DIR/network.json       seed and address          DIR/gateway.db    the journal
    DIR/directory.json     who is here               DIR/vault/        tokens, sealed
    DIR/participants/      the participants' books   DIR/faces/        templates, sealed
    DIR/gateway.key        keys the fingerprints of requests (a request's code must not be guessed from the journal)
"""

from __future__ import annotations

import enum
import gc
import json
import logging
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

import grpc

from facepay.gallery.engine import GalleryUnavailable
from facepay.gallery.opening import Place as GalleryPlace
from facepay.model import Options as FaceOptions
from facepay.operators import Operators
from gateway import directory
from gateway import listen as listening
from gateway.barcode.server import BarcodeServicer
from gateway.budgets import QueryLimits
from gateway.clearing.closing import Closer
from gateway.clearing.reader import ClearingReader
from gateway.clearing.server import SettlementServicer
from gateway.engine.clock import Clock
from gateway.engine.loop import IN_FLIGHT_MAX
from gateway.engine.model import Close
from gateway.engine.transitions import Timing
from gateway.links.loopback import LoopbackLink
from gateway.links.windows import WINDOW
from gateway.risk.book import RuleBook
from gateway.risk.rule_file import RulesError
from gateway.server import Gateway, GatewayOptions, Register
from hutong.gateway.v1 import barcode_pb2, barcode_pb2_grpc, settlement_pb2, settlement_pb2_grpc
from hutong.tokenization.v1 import token_pb2, token_pb2_grpc
from hutong_contract import confinement
from hutong_contract.extras import check_installed
from hutong_contract.secret import Secret
from sandbox.institutions import BOOKS_FOLDER, Institutions, ParticipantTls, Process, end
from sandbox.journals import JournalError, check_unused, check_url, compare_clock, open_journal, remembered
from sandbox.participants.books import Books, BooksError
from sandbox.participants.simulated import Participants, SimulatedParticipant
from sandbox.places import PlaceError, check_folder, check_free, make_folder, read_network
from sandbox.population import Population, populate
from sandbox.vaults import KeyModule, open_vault
from tokenization.errors import VaultError
from tokenization.requestors import Action
from tokenization.server import TokenServicer
from tokenization.service import TokenService

if TYPE_CHECKING:
    from facepay.service import FaceService
    from sandbox.face_side import FaceSide

log = logging.getLogger(__name__)

DEFAULT_LISTEN: Final = "127.0.0.1:50050"
KEY_BYTES: Final = 32
CONNECT_S: Final = 20.0
"""How long participants that dial in from elsewhere are waited for; then the network goes on without them."""
OWN_CONNECT_S: Final = 120.0
"""The same of participants that this process starts: nine that import their modules at once, on a busy machine. When
one of them ends, none is waited for any longer."""
CONNECT_POLL_S: Final = 0.05
GC_THRESHOLD: Final = 50_000
"""Allocations between collections: the engine makes no cycles, and each collection looks at all payments in flight."""


class Where(enum.StrEnum):
    """Where the participants run."""

    HERE = "here"
    """In this process."""
    PROCESSES = "processes"
    """As processes of their own, which this one starts, over gRPC."""
    CONNECT = "connect"
    """Wherever they are: none is started, they dial in."""


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
    participants: Where = Where.HERE
    participant_certificates: Path | None = None
    """With TLS, folder of `ID.pem` and `ID.key` with which participants that are processes prove who they are; None:
    by their secrets, which a gateway that asks for certificates does not let in."""
    magic_amounts: bool = True
    wallets_per_issuer: int = 3
    merchants_per_acquirer: int = 2
    opening_minor: int | None = None
    """Every wallet's opening balance; None: as the population has it."""
    journal: str = field(default="", repr=False)
    """URL of a PostgreSQL database, which may hold a password; empty for SQLite in the folder."""
    accept_lost_commits: bool = False
    """Serve on a database that lacks what this folder's gateways saw committed, and record that in it."""
    vault: Path | None = None
    """Folder of the token vault, which several gateways of one machine may share; None: `vault` in the data folder."""
    faces: bool = True
    """Whether there is a face service; it needs the extra `faces`."""
    face_gallery: GalleryPlace | None = None
    """Where templates are searched; None: in this process, on files in the data folder."""
    face_operators: frozenset[str] = frozenset()
    """Names in client certificates that may enrol faces, erase them and register terminals."""
    face_operator_secret: Secret[str] | None = field(default=None, repr=False)
    """Or who sends this. With neither: whoever reaches the port, where that is this machine alone."""
    key_module: KeyModule | None = None
    """Hardware module that keeps the vault's key-encryption keys; None: a sealed file in the vault's folder."""
    risk_rules: Path | None = None
    """File of risk rules; None: the package's own."""
    timing: Timing = field(default_factory=Timing)
    in_flight_max: int = IN_FLIGHT_MAX
    participant_window: int = WINDOW
    """Legs that may be unanswered at one participant that is not in this process."""
    queries: QueryLimits = field(default_factory=QueryLimits)
    drain_s: float = 10.0
    settle_every_us: int = 0
    """Period after whose turns settlement windows are closed; 0: only when an operator asks."""


class Network:
    """A running network. Use it as a context manager, or call `close`."""

    def __init__(self, options: NetworkOptions) -> None:
        self.options = options
        self.data = options.data
        self._risk = RuleBook(options.risk_rules)
        self.population: Population = populate(
            options.seed,
            wallets_per_issuer=options.wallets_per_issuer,
            merchants_per_acquirer=options.merchants_per_acquirer,
        )
        self.participants: dict[str, SimulatedParticipant] = {}
        """Participants in this process, by id; empty where they are not `Where.HERE`."""
        self.wallet_tokens: dict[str, Secret[str]] = {}
        """Wallet id to the account-unified token of its account."""
        self._closed: bool | None = None
        self._children: list[Process] = []
        self._books: list[Books] = []
        self.recovered = 0
        """Payments that were in flight when the folder was last used."""
        clock = self.clock = Clock()
        """The one clock of gateway, token and face service."""
        compare_clock(options.journal, clock)
        with ExitStack() as opened:
            self._vault = open_vault(options.vault or self.data / "vault", options.key_module, clock)
            opened.callback(self._vault.close)
            self.tokens: TokenService = self._vault.service
            self._face_side = _open_faces(options, clock)
            if self._face_side is not None:
                opened.callback(self._face_side.close)
            self._token_servicer = TokenServicer(self.tokens)
            self._directory = directory.parse(_json(self._write_directory(), self.data / "directory.json"))
            self.tokens.know_issuers(
                one.id for one in self._directory.participants.values() if one.role == directory.ISSUER
            )
            opened.callback(self._close_books)
            self._register()
            self._opened = open_journal(
                self.data,
                options.journal,
                key=_key(self.data / "gateway.key"),
                accept_lost_commits=options.accept_lost_commits,
                clock=self.clock,
            )
            opened.callback(self._opened.unlock)
            opened.callback(self._opened.journal.close)
            self.gateway = self._build()
            opened.pop_all()  # `close` ends them
        self._closer = (
            Closer(options.settle_every_us, self._open_clearing, self._put, clock) if options.settle_every_us else None
        )

    @classmethod
    def start(cls, options: NetworkOptions) -> Network:
        """Builds the network and opens its port.

        Raises:
            NetworkError: it cannot run; then a folder that was new is as before.
            hutong_contract.extras.MissingExtraError: a part that was asked for is not installed; likewise.
        """
        try:
            _check(options)
            with _restoring(options), confinement.kept_to_owner():
                network = cls(replace(options, seed=int(read_network(options.data).get("seed", options.seed))))
                network._open()
            # After the vault is open: it is refused where others could read what opens it.
            for folder in {options.data, options.vault or options.data}:
                confinement.tighten(folder)
        except (
            listening.ListenError,
            directory.DirectoryError,
            BooksError,
            JournalError,
            PlaceError,
            VaultError,
            GalleryUnavailable,
            RulesError,
            ValueError,
        ) as error:
            raise NetworkError(str(error)) from error
        except (OSError, sqlite3.Error) as error:
            raise NetworkError(f"{options.data} cannot be used: {error}") from error
        network._run()
        return network

    def _open(self) -> None:
        """Recovers payments and opens the port. Raises NetworkError."""
        gc.collect()
        gc.freeze()
        gc.set_threshold(GC_THRESHOLD, 20, 100)
        gc.disable()  # What is recovered is no garbage, and lives as long as it must without being looked at.
        try:
            self.recovered = self.gateway.start()
            gc.freeze()
        except (OSError, RuntimeError) as error:
            self.close()
            raise NetworkError(f"{self.options.listen} cannot be listened on: {error}") from error
        finally:
            gc.enable()

    def _run(self) -> None:
        """Brings in the participants, and says where the network is. Raises NetworkError."""
        if self.options.participants is Where.CONNECT:
            self._announce()  # those who are to dial in may read where
        if self.options.participants is not Where.HERE:
            self._wait_for_participants()
        if self._closer is not None:
            self._closer.start()
        self._announce()

    def _announce(self) -> None:
        """Writes down where the network is."""
        said = {
            "seed": self.options.seed,
            "wallets_per_issuer": self.options.wallets_per_issuer,
            "merchants_per_acquirer": self.options.merchants_per_acquirer,
            "target": self.target,
            "pid": os.getpid(),
            "journal": remembered(self.options.journal),
        }
        with open(self.data / "network.json", "w", encoding="utf-8", opener=_private) as file:
            file.write(json.dumps(said) + "\n")

    @property
    def faces(self) -> FaceService | None:
        """The face service; None where the network has none."""
        return None if self._face_side is None else self._face_side.service

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
        options = self.options
        self._institutions = Institutions(
            self.population, self.data, options.magic_amounts, options.opening_minor, _participant_tls(options)
        )
        if options.participants is Where.PROCESSES:
            _check_participants(options, self._institutions)
        self.wallet_tokens = self._institutions.register(self.tokens)
        if options.participants is Where.HERE:
            books = Books(self.data / BOOKS_FOLDER)
            self._books.append(books)
            self.participants = self._institutions.on(books, self.wallet_tokens)
        elif options.participants is Where.PROCESSES:
            self._institutions.open_accounts(self.wallet_tokens)

    def _build(self) -> Gateway:
        options, opened = self.options, self._opened
        here = options.participants is Where.HERE
        local = LoopbackLink(Participants(self._books[0], self.participants.values())) if here else None
        return Gateway(
            GatewayOptions(
                listen=listening.parse(options.listen),
                front=options.front,
                tls=options.tls,
                plaintext_anywhere=options.plaintext_anywhere,
                timing=options.timing,
                in_flight_max=options.in_flight_max,
                participant_window=options.participant_window,
                queries=options.queries,
                drain_s=options.drain_s,
            ),
            self._directory,
            opened.journal,
            opened.open_reader,
            self.tokens,
            _key(self.data / "gateway.key"),
            operators=self._admit_operator,
            faces=self.faces,
            local=local,
            local_ids=frozenset(self.participants),
            services=self._services(),
            neighbours=opened.neighbours,
            risk=self._risk,
            clock=self.clock,
        )

    def _services(self) -> Sequence[Register]:
        """What the gateway's port serves besides payments."""

        def barcodes(server: grpc.aio.Server) -> Sequence[str]:
            barcode_pb2_grpc.add_BarcodeServiceServicer_to_server(BarcodeServicer(self._directory), server)
            return (barcode_pb2.DESCRIPTOR.services_by_name["BarcodeService"].full_name,)

        def tokens(server: grpc.aio.Server) -> Sequence[str]:
            token_pb2_grpc.add_TokenServiceServicer_to_server(self._token_servicer, server)
            return (token_pb2.DESCRIPTOR.services_by_name["TokenService"].full_name,)

        def settlement(server: grpc.aio.Server) -> Sequence[str]:
            settlement_pb2_grpc.add_SettlementServiceServicer_to_server(self._settlement, server)
            return (settlement_pb2.DESCRIPTOR.services_by_name["SettlementService"].full_name,)

        self._settlement = SettlementServicer(self._directory, self._admit_operator, self._open_clearing, self._put)
        faces = () if self._face_side is None else (self._face_side.register,)
        return (barcodes, tokens, *faces, settlement)

    def _admit_operator(self, trid: str, secret: str) -> None:
        """Raises HutongError unless this requestor may run the gateway."""
        self.tokens.authenticate(trid, secret)
        self.tokens.permit(trid, Action.OPERATE)

    def _open_clearing(self) -> ClearingReader:
        return ClearingReader(self._opened.open_reader())

    def _put(self, events: Iterable[Close]) -> None:
        """Gives the engine events."""
        self.gateway.engine.inbox.put(events)

    def _wait_for_participants(self) -> None:
        """Starts every participant, where that is this network's to do, and waits until all have connected."""
        ours = self.options.participants is Where.PROCESSES
        if ours:
            self._children = self._institutions.start_all([self.target])
        deadline = time.monotonic() + (OWN_CONNECT_S if ours else CONNECT_S)
        waiting = [institution.id for institution in self.population.institutions]
        while waiting := [one for one in waiting if not self.gateway.reachable(one)]:
            if time.monotonic() > deadline or any(child.poll() is not None for child in self._children):
                break
            time.sleep(CONNECT_POLL_S)
        if waiting and ours:
            self.close()
            raise NetworkError(f"these participants did not connect: {', '.join(waiting)}")
        if waiting:
            log.warning("not connected yet, payments that need them are declined: %s", ", ".join(waiting))

    # -- end -------------------------------------------------------------------------------------------------

    def close(self) -> bool:
        """Drains and stops everything, once. Returns whether nothing was left in flight."""
        if self._closed is not None:
            return self._closed
        if self._closer is not None:
            self._closer.stop()
        self._closed = empty = self.gateway.stop()
        self._settlement.close()
        self._opened.unlock()
        end(self._children)
        self._close_books()
        if self._face_side is not None:
            self._face_side.close()
        self._token_servicer.threads.shutdown()
        self._vault.close()
        gc.unfreeze()
        return empty

    def _close_books(self) -> None:
        for books in self._books:
            books.close()

    def __enter__(self) -> Network:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _open_faces(options: NetworkOptions, clock: Clock) -> FaceSide | None:
    """Opens the face service, where there is to be one. Raises MissingExtraError."""
    if not options.faces:
        return None
    check_installed("faces")
    from sandbox.face_side import FaceSide

    chosen = FaceOptions(gallery=options.face_gallery, wait_for_kernels=False)
    return FaceSide(options.data / "faces", chosen, _face_operators(options), clock)


def _check_participants(options: NetworkOptions, institutions: Institutions) -> None:
    """Raises NetworkError where participants that this network is to start cannot prove who they are."""
    tls = institutions.tls
    if tls is None or options.tls is None:
        return
    if options.tls.client_authority is not None and tls.certificates is None:
        raise NetworkError(
            "this gateway asks its callers for certificates, and the participants that it starts have none: give "
            "--participant-certs a folder with ID.pem and ID.key of each"
        )
    missing = tls.missing(one.id for one in institutions.population.institutions)
    if missing:
        raise NetworkError(f"participants lack {len(missing)} files, such as {missing[0]}")


def _participant_tls(options: NetworkOptions) -> ParticipantTls | None:
    """How the participants that this network starts reach its gateway: they know its very certificate, so they need no
    authority."""
    tls = options.tls
    if tls is None:
        return None
    return ParticipantTls(tls.certificate, listening.certified_name(tls.certificate), options.participant_certificates)


def _face_operators(options: NetworkOptions) -> Operators:
    """A plaintext port is on loopback unless it was allowed to be elsewhere."""
    local = options.tls is None and not options.plaintext_anywhere
    return Operators(options.face_operators, options.face_operator_secret, whoever_reaches=local)


def _check(options: NetworkOptions) -> None:
    """What can be known before anything is made. Raises JournalError, ListenError or PlaceError."""
    address = listening.parse(options.listen)
    listening.check(address, secured=options.tls is not None, plaintext_allowed=options.plaintext_anywhere)
    if options.journal:
        check_url(options.journal)
    check_folder(options.data)
    if options.vault is not None:
        check_folder(options.vault)
    check_unused(options.data)
    check_free(address)


@contextmanager
def _restoring(options: NetworkOptions) -> Iterator[None]:
    """Makes the data folder; where the network then does not start, a folder that was new or empty is so again: a start
    with another seed would find another's people in it. Where the journal is a database, the folder has the key by
    which the database knows it, and stays."""
    folder = options.data
    made = [one for one in (folder, *folder.absolute().parents) if not one.exists()]
    make_folder(folder)
    fresh = not options.journal and not any(folder.iterdir())
    try:
        yield
    except BaseException:
        if fresh:
            for entry in list(folder.iterdir()):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
            for one in made:
                one.rmdir()
        raise


def _json(text: str, path: Path) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise directory.DirectoryError(f"{path} is not JSON: {error}") from None


def _key(path: Path) -> bytes:
    """A secret key in a file that only its owner can read; made when it is first needed."""
    if not path.exists():
        _write_private(path, secrets.token_bytes(KEY_BYTES))
    key = path.read_bytes()
    if len(key) != KEY_BYTES:
        raise NetworkError(f"{path} is not a key of {KEY_BYTES} bytes; restore it from a copy")
    return key


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _write_private(path: Path, content: bytes) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
