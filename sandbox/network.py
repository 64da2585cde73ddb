"""A whole network, wired: the composition root.

`Network.start` makes or opens a data folder, and runs gateway, token service, face service and simulated participants
on it: all in this process, or the participants as processes of their own, or elsewhere, from where they dial in.

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
import sqlite3
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final

from facepay.gallery.engine import GalleryUnavailable
from facepay.model import Options as FaceOptions
from facepay.operators import Operators
from gateway import directory
from gateway import listen as listening
from gateway.barcode.server import BarcodeServicer
from gateway.clearing.closing import Closer
from gateway.clearing.reader import ClearingReader
from gateway.clearing.server import SettlementServicer
from gateway.engine.clock import Clock
from gateway.engine.model import Close
from gateway.links.loopback import LoopbackLink
from gateway.risk.book import RuleBook
from gateway.risk.rule_file import RulesError
from gateway.server import Gateway, GatewayOptions, Register
from hutong_contract import confinement
from hutong_contract.extras import check_installed
from hutong_contract.secret import Secret
from sandbox import services
from sandbox.folder import key_file, private, read_json, restoring, write_private
from sandbox.institutions import BOOKS_FOLDER, Institutions, ParticipantTls, Process, end
from sandbox.journals import JournalError, check_unused, check_url, compare_clock, open_journal, remembered
from sandbox.options import NetworkOptions, Where
from sandbox.participants.books import Books, BooksError
from sandbox.participants.simulated import Participants, SimulatedParticipant
from sandbox.places import PlaceError, check_folder, check_free, read_network
from sandbox.population import Population, populate
from sandbox.vaults import open_vault
from tokenization.errors import VaultError
from tokenization.requestors import Action
from tokenization.server import TokenServicer
from tokenization.service import TokenService

if TYPE_CHECKING:
    from facepay.service import FaceService
    from sandbox.face_side import FaceSide

log = logging.getLogger(__name__)

CONNECT_S: Final = 20.0
"""How long to wait for participants that connect from elsewhere, in seconds; then the network runs without them."""
OWN_CONNECT_S: Final = 120.0
"""The same for participants that this process starts: nine that import their modules at once, on a busy machine. If one
of them ends, the wait ends."""
CONNECT_POLL_S: Final = 0.05
GC_THRESHOLD: Final = 50_000
"""Allocations between garbage collections. The engine makes no reference cycles, and each collection visits all
payments in flight."""


class NetworkError(Exception):
    """The network cannot run; the text says what to change."""


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
        """Wallet id -> the account-unified token of its account."""
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
            self._directory = directory.parse(self._read_directory())
            self.tokens.know_issuers(
                one.id for one in self._directory.participants.values() if one.role == directory.ISSUER
            )
            opened.callback(self._close_books)
            self._register()
            self._opened = open_journal(
                self.data,
                options.journal,
                key=key_file(self.data / "gateway.key"),
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
            with restoring(options.data, journal=options.journal), confinement.kept_to_owner():
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
        """Connects the participants, and writes the network's address. Raises NetworkError."""
        if self.options.participants is Where.CONNECT:
            self._announce()  # those who are to dial in may read where
        if self.options.participants is not Where.HERE:
            self._wait_for_participants()
        if self._closer is not None:
            self._closer.start()
        self._announce()

    def _announce(self) -> None:
        """Writes the network's address to its folder."""
        said = {
            "seed": self.options.seed,
            "wallets_per_issuer": self.options.wallets_per_issuer,
            "merchants_per_acquirer": self.options.merchants_per_acquirer,
            "target": self.target,
            "pid": os.getpid(),
            "journal": remembered(self.options.journal),
        }
        with open(self.data / "network.json", "w", encoding="utf-8", opener=private) as file:
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
        """Whether a defect stopped the engine."""
        return self.gateway.engine.failure is not None

    # -- parts -----------------------------------------------------------------------------------------------

    def _read_directory(self) -> Any:
        """Writes the gateway's directory file. An existing file is kept, so that a user's changes stay."""
        path = self.data / "directory.json"
        if not path.exists():
            write_private(path, self.population.directory().encode())
        return read_json(path)

    def _register(self) -> None:
        """Requests a token for every account, and opens the account at its participant."""
        options = self.options
        self._institutions = Institutions(
            self.population,
            self.data,
            options.magic_amounts,
            options.opening_minor,
            ParticipantTls.towards(options.tls, options.participant_certificates),
        )
        if options.participants is Where.PROCESSES:
            self._institutions.check_proofs()
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
                open_files=confinement.open_files(),
                drain_s=options.drain_s,
            ),
            self._directory,
            opened.journal,
            opened.open_reader,
            self.tokens,
            key_file(self.data / "gateway.key"),
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
        """The services on the gateway's port besides payments."""
        self._settlement = SettlementServicer(self._directory, self._admit_operator, self._open_clearing, self._put)
        faces = () if self._face_side is None else (self._face_side.register,)
        return (
            services.barcodes(BarcodeServicer(self._directory)),
            services.tokens(self._token_servicer),
            *faces,
            services.settlement(self._settlement),
        )

    def _admit_operator(self, trid: str, secret: str) -> None:
        """Raises HutongError unless this requestor may operate the gateway."""
        self.tokens.authenticate(trid, secret)
        self.tokens.permit(trid, Action.OPERATE)

    def _open_clearing(self) -> ClearingReader:
        return ClearingReader(self._opened.open_reader())

    def _put(self, events: Iterable[Close]) -> None:
        """Passes events to the engine."""
        self.gateway.engine.inbox.put(events)

    def _wait_for_participants(self) -> None:
        """Starts every participant, if this network has to, and waits until all have connected."""
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
        """Drains and stops everything, once. Returns whether no payment was left in flight."""
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


def _face_operators(options: NetworkOptions) -> Operators:
    """Who may operate the face service. A plaintext port is on loopback, unless it was allowed elsewhere."""
    local = options.tls is None and not options.plaintext_anywhere
    return Operators(options.face_operators, options.face_operator_secret, whoever_reaches=local)


def _check(options: NetworkOptions) -> None:
    """Checks everything that can be checked before anything is created. Raises JournalError, ListenError or
    PlaceError."""
    address = listening.parse(options.listen)
    listening.check(address, secured=options.tls is not None, plaintext_allowed=options.plaintext_anywhere)
    if options.journal:
        check_url(options.journal)
    check_folder(options.data)
    if options.vault is not None:
        check_folder(options.vault)
    check_unused(options.data)
    check_free(address)
