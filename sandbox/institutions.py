"""The simulated issuers and acquirers of a data folder: their accounts, and each of them as a process of its own.

Every process connects to all gateways that it is told of, and has one set of books for all of them, so a payment that
one gateway began can be ended by another.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.listen import Tls, certified_name
from hutong_contract.confinement import environment
from hutong_contract.secret import Secret
from sandbox.participants.books import Books
from sandbox.participants.simulated import SimulatedAcquirer, SimulatedIssuer, SimulatedParticipant
from sandbox.places import PlaceError
from sandbox.population import Institution, Population, Wallet
from tokenization.interface import Account
from tokenization.service import TokenService

BOOKS_FOLDER: Final = "participants"
"""In the data folder."""
END_S: Final = 20.0
"""Longest time for a participant to end, in seconds."""
OPENING_MERCHANT_MINOR: Final = 0
ASSURED_BY_ISSUER: Final = "14"
"""EMV assurance method of the simulated people's accounts: their issuers have verified them with two factors."""


@dataclass(frozen=True, slots=True)
class ParticipantTls:
    """How participants that run as processes connect to a gateway with TLS, and prove their identity."""

    authority: Path
    """The authority that signed the gateway's certificate, or that certificate itself (PEM)."""
    server_name: str = ""
    """The name in the gateway's certificate, if it is not the target's."""
    certificates: Path | None = None
    """Folder with `ID.pem` and `ID.key` of each participant; None: they prove their identity by secrets."""

    asked: bool = False
    """Whether the gateway asks for certificates."""

    @classmethod
    def towards(cls, tls: Tls | None, certificates: Path | None) -> ParticipantTls | None:
        """For participants beside a gateway with these files: they know its very certificate, so they need no
        authority. None where it serves plaintext."""
        if tls is None:
            return None
        asked = tls.client_authority is not None
        return cls(tls.certificate, certified_name(tls.certificate), certificates, asked)

    def missing(self, ids: Iterable[str]) -> list[Path]:
        """Files that are missing."""
        wanted = [path for one in ids for path in self._own(one)]
        return [path for path in (self.authority, *wanted) if not path.is_file()]

    def options(self, participant_id: str) -> list[str]:
        """Command-line options for the process of one participant."""
        own = self._own(participant_id)
        return [
            *("--tls-ca", str(self.authority)),
            *(("--tls-name", self.server_name) if self.server_name else ()),
            *(("--tls-cert", str(own[0]), "--tls-key", str(own[1])) if own else ()),
        ]

    def _own(self, participant_id: str) -> tuple[Path, ...]:
        if self.certificates is None:
            return ()
        return self.certificates / f"{participant_id}.pem", self.certificates / f"{participant_id}.key"


@dataclass(frozen=True, slots=True)
class Institutions:
    """The issuers and acquirers, and their books."""

    population: Population
    data: Path
    magic_amounts: bool = True
    opening_minor: int | None = None
    """Opening balance of every wallet; None: the population's."""
    tls: ParticipantTls | None = None
    """How participants that run as processes connect; None: in plaintext."""

    def register(self, tokens: TokenService) -> dict[str, Secret[str]]:
        """Requests a token for every account from the token service; wallet id -> token. Idempotent."""
        wallets = self.population.wallets
        done = tokens.register_accounts(
            [Account(wallet.issuer_id, wallet.account) for wallet in wallets], assurance_method=ASSURED_BY_ISSUER
        )
        return {wallet.id: one.token for wallet, one in zip(wallets, done, strict=True)}

    def folder(self, participant_id: str) -> Path:
        """Folder of the books of a participant that runs as a process."""
        return self.data / BOOKS_FOLDER / participant_id

    def on(self, books: Books, wallet_tokens: Mapping[str, Secret[str]]) -> dict[str, SimulatedParticipant]:
        """All participants on shared books, with their accounts open."""
        found: dict[str, SimulatedParticipant] = {}
        for institution in self.population.institutions:
            participant = found[institution.id] = self._participant(institution, books)
            self._open_accounts(participant, wallet_tokens)
        return found

    def open_accounts(self, wallet_tokens: Mapping[str, Secret[str]]) -> None:
        """Opens the accounts in the separate books of each participant. Raises BooksError."""
        for institution in self.population.institutions:
            books = Books(self.folder(institution.id))
            self._open_accounts(self._participant(institution, books), wallet_tokens)
            books.close()

    def _participant(self, institution: Institution, books: Books) -> SimulatedParticipant:
        kind = SimulatedIssuer if institution.role == "issuer" else SimulatedAcquirer
        return kind(institution.id, books, seed=self.population.seed, magic_amounts=self.magic_amounts)

    def _open_accounts(self, participant: SimulatedParticipant, wallet_tokens: Mapping[str, Secret[str]]) -> None:
        people = self.population.wallets_of(participant.id)
        shops = self.population.merchants_of(participant.id)
        participant.ledger.open_accounts(
            [(wallet_tokens[one.id].reveal(), one.currency, self._opening(one)) for one in people]
            + [(shop.id, shop.currency, OPENING_MERCHANT_MINOR) for shop in shops]
        )

    def _opening(self, wallet: Wallet) -> int:
        return wallet.opening_minor if self.opening_minor is None else self.opening_minor

    def check_proofs(self) -> None:
        """Raises PlaceError where participants that are to be started cannot prove who they are."""
        tls = self.tls
        if tls is None:
            return
        if tls.asked and tls.certificates is None:
            raise PlaceError(
                "this gateway asks its callers for certificates, and the participants that it starts have none: give "
                "--participant-certs a folder with ID.pem and ID.key of each"
            )
        missing = tls.missing(one.id for one in self.population.institutions)
        if missing:
            raise PlaceError(f"participants lack {len(missing)} files, such as {missing[0]}")

    # -- as processes ----------------------------------------------------------------------------------------

    def start(self, institution: Institution, targets: Sequence[str], log: Path | None = None) -> Process:
        """Starts a participant as a process. It ends with its starter, when the pipe that is its input closes. `log`:
        file for its output; without it the output of this process is used."""
        command = [
            *(sys.executable, "-m", "sandbox.participants.process"),
            *(part for target in targets for part in ("--target", target)),
            *("--id", institution.id, "--role", institution.role),
            *("--folder", str(self.folder(institution.id)), "--seed", str(self.population.seed)),
            "--magic" if self.magic_amounts else "--no-magic",
            *(self.tls.options(institution.id) if self.tls else ()),
            *("--secret-first", "--until-eof"),
        ]
        with _appending(log) as output:
            process = subprocess.Popen(  # noqa: S603 - our own module
                command, env=environment(), stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True
            )
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # it has ended already, which whoever waits for it will see
            process.stdin.write(institution.secret.reveal().encode() + b"\n")
            process.stdin.flush()
        return process

    def start_all(self, targets: Sequence[str]) -> list[Process]:
        """Starts every one of them."""
        return [self.start(institution, targets) for institution in self.population.institutions]


Process = subprocess.Popen[bytes]


@contextmanager
def _appending(log: Path | None) -> Iterator[int | None]:
    if log is None:
        yield None
        return
    with log.open("ab") as file:
        yield file.fileno()


def end(processes: Sequence[Process]) -> None:
    """Ends participants, and waits until they have ended."""
    for process in processes:
        process.terminate()
        if process.stdin is not None:
            process.stdin.close()
    for process in processes:
        try:
            process.wait(END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
