"""Everything that a run starts, in the right order, and kills at the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hutong.tokenization.v1 import token_pb2, token_pb2_grpc
from hutong_client.client import HutongClient
from hutong_client.errors import CallError
from hutong_contract.errors import HutongError
from hutong_contract.names import WALLET_TRID as WALLET
from sandbox.institutions import Institutions
from sandbox.population import Population, populate
from sandbox.vaults import open_vault
from verification.presentations import SHARED_FILES
from verification.torture.disk import Disk
from verification.torture.line import Line
from verification.torture.load import Payer, Plan, Shop
from verification.torture.processes import (
    START_S,
    GatewayProcess,
    LoadProcess,
    ParticipantProcess,
    PostgresProcess,
    TortureError,
    free_ports,
)
from verification.torture.record import Record
from verification.torture.stage import Stage

POLL_S: Final = 0.05
TOKEN_CALL_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a run."""

    folder: Path
    """Where the disk is mounted and the logs are."""
    seconds: float
    """Of torture, after everything has started."""
    seed: int = 1
    postgres: bool = False
    gateways: int = 1
    kills_max: int = 1_000_000
    callers: int = 12


class Scene:
    """All processes and folders of a run."""

    def __init__(self, options: Options, disk: Disk) -> None:
        self._options = options
        self.data = options.folder / "disk" / "gateway-1"
        """The first gateway's data folder, with the participants' books and the vault."""
        self._logs = options.folder / "logs"
        self.record = Record(options.folder / "record.jsonl")
        self._population: Population = populate(options.seed)
        self.payers: list[Payer] = []
        """Tokens that can pay, once `start` has asked for them."""
        self.shops = [Shop(shop.id, shop.home) for shop in self._population.merchants]
        self.url = ""
        """Of the journal; empty for SQLite."""
        self.stage = self._build(disk)
        self.load = LoadProcess("load", self._logs / "load.log")

    def _build(self, disk: Disk) -> Stage:
        options = self._options
        self._logs.mkdir(parents=True, exist_ok=True)
        postgres = None
        if options.postgres:
            folder = options.folder / "disk" / "postgres"
            postgres = PostgresProcess("postgres", self._logs / "postgres.log", folder=folder)
        self.url = postgres.url if postgres else ""
        lines = [Line(str(postgres.socket)) for _ in range(options.gateways)] if postgres else []
        gateways = [
            GatewayProcess(
                f"gateway-{number}",
                self._logs / f"gateway-{number}.log",
                data=self.data.with_name(f"gateway-{number}"),
                vault=self.data / "vault",
                shared=self.data if number > 1 else None,
                port=port,
                seed=options.seed,
                journal=lines[number - 1].url if lines else "",
            )
            for number, port in enumerate(free_ports(options.gateways), start=1)
        ]
        self.targets = [gateway.target for gateway in gateways]
        institutions = self._institutions = Institutions(self._population, self.data)
        participants = [
            ParticipantProcess(
                one.id, self._logs / f"{one.id}.log", institution=one, institutions=institutions, targets=self.targets
            )
            for one in self._population.institutions
        ]
        return Stage(gateways, participants, postgres, disk, lines)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Whatever runs at the end is killed."""
        stage = self.stage
        with ExitStack() as stack:
            if stage.postgres is not None:
                stack.callback(stage.postgres.stop)
            for line in stage.lines:
                stack.callback(line.close)
            for victim in [*stage.gateways, *stage.participants]:
                stack.callback(victim.kill)
            stack.callback(self.load.kill)
            stack.callback(stage.stop.set)
            yield

    def start(self) -> None:
        """Starts everything, until a payment has succeeded. Raises TortureError."""
        stage = self.stage
        if stage.postgres is not None:
            stage.postgres.prepare()
            stage.postgres.start()
            self._wait(stage.postgres.answers, "PostgreSQL did not start")
        self.data.mkdir(parents=True)
        vault = open_vault(self.data / "vault")
        try:
            self._institutions.open_accounts(self._institutions.register(vault.service))
        finally:
            vault.close()
        for participant in stage.participants:
            participant.start()
        stage.gateways[0].start()
        self._wait(lambda: all((self.data / name).exists() for name in SHARED_FILES), "the first gateway did not start")
        for gateway in stage.gateways[1:]:
            gateway.start()
        self._wait(lambda: all(gateway.listens() for gateway in stage.gateways), "a gateway did not start")
        self.payers = self._tokens()
        options = self._options
        self.load.plan = Plan(
            self.targets, self.payers, self.shops, options.seed, str(self.record.path), options.callers
        )
        self.load.start()
        self._wait(self._paid, "no payment succeeded at the beginning")

    def _wait(self, ready: Callable[[], bool], failure: str) -> None:
        until_s = time.monotonic() + START_S
        while not ready():
            ended = next((one for one in [*self.stage.victims(), self.load] if one.ended()), None)
            if ended is not None or time.monotonic() > until_s:
                said = ended or self.stage.gateways[0]
                raise TortureError(f"{failure}: {said.name} said {said.last_words()[-500:]}")
            time.sleep(POLL_S)

    def _paid(self) -> bool:
        return any(answer.state == "SUCCEEDED" for answer in self.record.read())

    def _tokens(self) -> list[Payer]:
        """Tokens for every wallet, asked for as a wallet asks."""
        with HutongClient(self.targets[0]) as client:
            stub = token_pb2_grpc.TokenServiceStub(client.channel)
            found = []
            for wallet in self._population.wallets:
                request = token_pb2.RequestTokenRequest(
                    requestor_id=WALLET, issuer_id=wallet.issuer_id, account_number=wallet.account.reveal()
                )
                try:
                    token = str(client.call(stub.RequestToken, request, TOKEN_CALL_S).token)
                except (HutongError, CallError) as error:
                    raise TortureError(f"no token could be had: {error}") from None
                found.append(Payer(token, wallet.issuer_id))
        return found
