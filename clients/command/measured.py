"""A gateway under measurement: a whole network in a process of its own, and the requests that load it."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import click
import psutil
from google.protobuf.timestamp_pb2 import Timestamp

from clients.command.network import Network, NetworkOptions
from clients.participants.script import Script
from gateway.engine.answer import framed
from gateway.engine.loop import IN_FLIGHT_MAX
from hutong.gateway.v1 import payment_pb2 as pb
from hutong.participant.v1 import participant_pb2
from loadtest.h2 import Reply

CREATE_PATH: Final = "/hutong.gateway.v1.PaymentService/CreatePayment"
CREATE_BATCH_PATH: Final = "/hutong.gateway.v1.PaymentService/BatchCreatePayments"
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
    silent: bool = False
    """Whether issuers and acquirers answer nothing."""


@dataclass(frozen=True, slots=True)
class Usage:
    """A gateway's own accounting."""

    cpu_s: float
    commits: int
    admitted: int
    in_flight: int
    recovered: int
    """Payments that were in flight when the gateway started."""
    rss_mb: float


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
            raise click.ClickException("a server of the bench does not answer; is the machine overloaded?")
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
        magic_amounts=False,
        wallets_per_issuer=WALLETS_PER_ISSUER,
        merchants_per_acquirer=MERCHANTS_PER_ACQUIRER,
        opening_minor=OPENING_MINOR,
    )
    with Network.start(options) as network:
        if setting.silent:
            for participant in network.participants.values():
                participant.script = SILENCE
        process, engine = psutil.Process(), network.gateway.engine
        tokens = [token.reveal() for token in network.wallet_tokens.values()]
        merchants = [(shop.id, shop.terminals[0]) for shop in network.population.merchants]
        pipe.send((network.target, tokens, merchants))
        while pipe.recv() is not None:
            rss, counts = process.memory_info().rss / 2**20, engine.counts
            pipe.send(
                Usage(time.process_time(), counts.commits, counts.admitted, engine.in_flight, network.recovered, rss)
            )


class Payments:
    """Makes requests: every wallet in turn pays every merchant in turn, each request with a key of its own."""

    def __init__(
        self, tokens: list[str], merchants: list[tuple[str, str]], *, expires_s: int = 0, prefix: bytes = b"bench"
    ) -> None:
        """`expires_s`: the payments' own deadline, seconds from now; 0 for the gateway's. `prefix` of the keys."""
        deadline = Timestamp(seconds=int(time.time()) + expires_s) if expires_s else None
        self._bodies = [
            pb.CreatePaymentRequest(
                payer=pb.RoutingKey(token={"token": token}),  # type: ignore[arg-type]
                payee=pb.RoutingKey(merchant=pb.MerchantKey(merchant_id=merchant, terminal_id=terminal)),
                amount_minor=100 + index % 900,
                currency="CNY",
                deadline=deadline,
            ).SerializeToString()
            for index, token in enumerate(tokens)
            for merchant, terminal in (merchants[index % len(merchants)],)
        ]
        self._prefix = prefix
        self._made = 0

    def message(self, tag: int) -> bytes:
        """A serialized CreatePaymentRequest: the key is field 1, the rest is prepared."""
        self._made += 1
        key = self._prefix + b"-%016d" % self._made
        return b"\x0a" + bytes([len(key)]) + key + self._bodies[self._made % len(self._bodies)]

    def batch(self, size: int) -> bytes:
        """A serialized BatchCreatePaymentsRequest of new payments."""
        return b"".join(framed(b"\x0a", self.message(0)) for _ in range(size))


def succeeded(reply: Reply) -> bool:
    """Whether a payment ended well."""
    return pb.CreatePaymentResponse.FromString(reply.body).payment.state == pb.PAYMENT_STATE_SUCCEEDED
