"""The cast of the demonstration: wallets with tokens and faces, terminals at their shops, on one running network."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from hutong.facepay.v1 import face_pb2
from hutong_client.client import HutongClient
from hutong_client.terminal import CodePrinter, EmulatedTerminal
from hutong_client.wallet import EmulatedWallet
from hutong_contract.secret import Secret
from sandbox.cameras import Optics, Symbols
from sandbox.participants.script import Latency, Script
from sandbox.participants.simulated import SimulatedParticipant
from sandbox.population import Merchant, Population, Wallet

SimulatedWallet = EmulatedWallet[Wallet]
"""The phone of one of the population's people."""
SimulatedTerminal = EmulatedTerminal[Merchant]
"""A counter of one of its shops."""
LATENCY_MEDIAN_US: Final = (3_000, 12_000)
"""Each participant's median answer time is drawn from this range."""
LATENCY_SIGMA: Final = 0.35


class Camera(Protocol):
    """Simulated faces in front of simulated cameras."""

    def enrol(self, wallet: Wallet) -> Secret[str]:
        """Enrols the wallet's owner with the face service; returns the routing reference."""
        ...

    def capture(
        self, wallet: Wallet, merchant: Merchant, terminal_id: str, amount_minor: int, *, passcode: bool, live: bool
    ) -> face_pb2.FaceCapture:
        """A sealed capture of the owner's face, with the passcode if asked for, or of a photograph of it (not
        `live`)."""
        ...


@dataclass(frozen=True, slots=True)
class Props:
    """What the stage needs from outside."""

    target: str
    population: Population
    participants: Mapping[str, SimulatedParticipant]
    folder: Path
    """Where images are written."""
    symbols: Symbols
    printer: CodePrinter[Merchant]
    camera: Callable[[HutongClient], Camera]
    clock_us: Callable[[], int]


class Stage:
    """All wallets and terminals. Safe to use from several threads, as long as each wallet and terminal shows one code
    at a time."""

    def __init__(self, props: Props) -> None:
        self.population = props.population
        self.participants = props.participants
        self.client = HutongClient(props.target)
        self.camera = props.camera(self.client)
        optics = Optics(props.symbols, props.folder)
        self.optics = optics
        self.wallets = {
            person.id: SimulatedWallet(person, self.client, optics, props.clock_us)
            for person in props.population.wallets
        }
        self.terminals = {
            terminal_id: SimulatedTerminal(shop, terminal_id, self.client, optics, props.printer)
            for shop in props.population.merchants
            for terminal_id in shop.terminals
        }
        self.rng = random.Random(f"demo {props.population.seed}")
        self.opening: dict[tuple[str, str], int | None] = {}
        """Balances before the first scene, by participant and account holder (wallet or merchant id)."""

    def prepare(self, workers: Executor) -> None:
        """Sets the participants' answer times, activates wallets and enrols faces."""
        for participant in self.participants.values():
            median = self.rng.randrange(*LATENCY_MEDIAN_US)
            participant.script = Script(latency=Latency(median, LATENCY_SIGMA))
        list(workers.map(self._prepare_wallet, self.wallets.values()))
        self.opening = self.balances()

    def balances(self) -> dict[tuple[str, str], int | None]:
        """Current balances in minor units, from the participants' books."""
        held = {
            (wallet.person.issuer_id, wallet.person.id): self._balance(
                wallet.person.issuer_id, wallet.token.reveal(), wallet.person.currency
            )
            for wallet in self.wallets.values()
        }
        for shop in self.population.merchants:
            for terms in shop.acquirers:
                held[terms.id, shop.id] = self._balance(terms.id, shop.id, shop.currency)
        return held

    def _balance(self, participant: str, account: str, currency: str) -> int | None:
        return self.participants[participant].ledger.balance_minor(account, currency)

    def home_merchant(self, acquirer_id: str) -> Merchant:
        """The first merchant whose codes this acquirer printed."""
        return next(shop for shop in self.population.merchants if shop.home == acquirer_id)

    def terminal_of(self, merchant: Merchant, index: int = 0) -> SimulatedTerminal:
        """One of a merchant's terminals."""
        return self.terminals[merchant.terminals[index]]

    def amount_minor(self) -> int:
        """A price between 1.00 and 89.99: no magic amount is among them."""
        return self.rng.randrange(100, 9_000)

    def close(self) -> None:
        """Closes the connection."""
        self.client.close()

    def _prepare_wallet(self, wallet: SimulatedWallet) -> None:
        wallet.activate()
        wallet.provision()
        wallet.add_face(self.camera.enrol(wallet.person))
