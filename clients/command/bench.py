"""`hutong bench`: durable payments against an empty gRPC echo, in one run, on this machine."""

from __future__ import annotations

import json
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import click
import psutil
from rich.console import Console
from rich.table import Table

from clients.command.check import check_folder
from clients.command.network import Network, NetworkOptions
from hutong.gateway.v1 import payment_pb2 as pb
from loadtest import echo
from loadtest.h2 import Reply
from loadtest.measure import Saturation, latencies_ms, saturate

CREATE_PATH: Final = "/hutong.gateway.v1.PaymentService/CreatePayment"
ROUNDS: Final = 2
"""Echo and payments take turns, so that a machine that slows down slows both."""
CONCURRENCY: Final = 512
WARM_UP_S: Final = 1.0
ECHO_REQUEST: Final = b"x" * 95
WALLETS_PER_ISSUER: Final = 250
MERCHANTS_PER_ACQUIRER: Final = 20
OPENING_MINOR: Final = 10**14
CHILD_S: Final = 120.0


@dataclass(frozen=True, slots=True)
class Usage:
    """A gateway's own accounting."""

    cpu_s: float
    commits: int
    admitted: int
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

    def stop(self) -> None:
        """Ends it and waits."""
        self._pipe.send(None)
        self._process.join(CHILD_S)


def serve_gateway(pipe: Connection, data: str, front: str) -> None:
    """Runs a network and answers for its usage until told to stop."""
    options = NetworkOptions(
        data=Path(data),
        listen="127.0.0.1:0",
        front=front,
        magic_amounts=False,
        wallets_per_issuer=WALLETS_PER_ISSUER,
        merchants_per_acquirer=MERCHANTS_PER_ACQUIRER,
        opening_minor=OPENING_MINOR,
    )
    with Network.start(options) as network:
        process = psutil.Process()
        tokens = [token.reveal() for token in network.wallet_tokens.values()]
        merchants = [(shop.id, shop.terminals[0]) for shop in network.population.merchants]
        pipe.send((network.target, tokens, merchants))
        while pipe.recv() is not None:
            counts = network.gateway.engine.counts
            rss = process.memory_info().rss / 2**20
            pipe.send(Usage(time.process_time(), counts.commits, counts.admitted, rss))


class Payments:
    """Makes requests: every wallet in turn pays every merchant in turn, each request with a key of its own."""

    def __init__(self, tokens: list[str], merchants: list[tuple[str, str]]) -> None:
        self._bodies = [
            pb.CreatePaymentRequest(
                payer=pb.RoutingKey(token={"token": token}),  # type: ignore[arg-type]
                payee=pb.RoutingKey(merchant=pb.MerchantKey(merchant_id=merchant, terminal_id=terminal)),
                amount_minor=100 + index % 900,
                currency="CNY",
            ).SerializeToString()
            for index, token in enumerate(tokens)
            for merchant, terminal in (merchants[index % len(merchants)],)
        ]
        self._made = 0

    def message(self, tag: int) -> bytes:
        """A serialized CreatePaymentRequest: the key is field 1, the rest is prepared."""
        self._made += 1
        key = b"bench-%016d" % self._made
        return b"\x0a" + bytes([len(key)]) + key + self._bodies[self._made % len(self._bodies)]


def succeeded(reply: Reply) -> bool:
    """Whether a payment ended well."""
    return pb.CreatePaymentResponse.FromString(reply.body).payment.state == pb.PAYMENT_STATE_SUCCEEDED


def run(seconds: float, front: str, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole measurement."""
    with tempfile.TemporaryDirectory(prefix="hutong-bench-") as data:
        say("starting the echo and the gateway")
        baseline = Child(echo.serve)
        gateway = Child(serve_gateway, data, front)
        target, tokens, merchants = gateway.first
        payments = Payments(tokens, merchants)
        echo_seen, paid = Saturation(), Saturation()
        echo_cpu = paid_cpu = 0.0
        commits = 0
        first_rss = gateway.ask().rss_mb
        warm = Saturation()
        echo_target = f"127.0.0.1:{baseline.first}"
        for round_ in range(ROUNDS):
            say(f"round {round_ + 1} of {ROUNDS}: echo")
            _echo(echo_target, WARM_UP_S, warm)
            before = baseline.ask()
            _echo(echo_target, seconds / ROUNDS, echo_seen)
            echo_cpu += baseline.ask() - before
            say(f"round {round_ + 1} of {ROUNDS}: payments")
            _pay(target, payments, WARM_UP_S, warm)
            before = gateway.ask()
            _pay(target, payments, seconds / ROUNDS, paid)
            after = gateway.ask()
            paid_cpu += after.cpu_s - before.cpu_s
            commits += after.commits - before.commits
        rate = paid.per_second / 2
        say(f"latency at {rate:,.0f} payments/s")
        latency = latencies_ms(target, CREATE_PATH, payments.message, succeeded, rate=max(rate, 1.0), seconds=seconds)
        last = gateway.ask()
        say("stopping, and checking that no money was lost")
        gateway.stop()
        baseline.stop()
        report = check_folder(Path(data))
        return {
            "front": front,
            "journal": "sqlite, WAL, synchronous=FULL",
            "generator": "one process, unary calls, closed loop; then open loop at half of saturation",
            "payments_per_s": round(paid.per_second, 1),
            "gateway_cpu_us_per_payment": round(paid_cpu / max(paid.good, 1) * 1e6, 1),
            "echo_per_s": round(echo_seen.per_second, 1),
            "echo_cpu_us": round(echo_cpu / max(echo_seen.good, 1) * 1e6, 1),
            "throughput_ratio": round(paid.per_second / max(echo_seen.per_second, 1e-9), 3),
            "cpu_ratio": round(paid_cpu / max(paid.good, 1) / (echo_cpu / max(echo_seen.good, 1)), 3),
            "latency_ms": latency,
            "latency_at_per_s": round(rate, 1),
            "commits": commits,
            "payments_per_commit": round(paid.good / max(commits, 1), 1),
            "payments": report.payments,
            "failures": {str(status): count for status, count in (paid.failures + warm.failures).items()},
            "rss_mb": {"start": round(first_rss, 1), "end": round(last.rss_mb, 1)},
            "conserved": report.conserved,
            "findings": report.findings,
        }


def _echo(target: str, seconds: float, into: Saturation) -> None:
    saturate(
        target,
        echo.PATH,
        lambda _: ECHO_REQUEST,
        lambda reply: len(reply.body) == len(ECHO_REQUEST),
        concurrency=CONCURRENCY,
        seconds=seconds,
        into=into,
    )


def _pay(target: str, payments: Payments, seconds: float, into: Saturation) -> None:
    saturate(target, CREATE_PATH, payments.message, succeeded, concurrency=CONCURRENCY, seconds=seconds, into=into)


@click.command()
@click.option(
    "--seconds", type=click.FloatRange(min=1), default=10.0, show_default=True, help="For each of three parts."
)
@click.option("--front", type=click.Choice(["native", "aio"]), default="native", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(seconds: float, front: str, as_json: bool) -> None:
    """Measure payments a second against an empty gRPC echo.

    One run, on loopback: an empty grpc.aio handler, then real payments, durable before they are acknowledged, each at
    saturation and in turns; then the latency of payments at half of that rate, from when each was due. The CPU is the
    server processes' own: simulated participants run inside the gateway's and count, the generator does not.
    """
    err = Console(stderr=True)
    with err.status("") as status:
        result = run(seconds, front, status.update)
    if as_json:
        click.echo(json.dumps(result))
    else:
        _print(result)
    if not result["conserved"]:
        raise SystemExit(1)


def _print(result: dict[str, Any]) -> None:
    table = Table(title=f"hutong bench, {result['front']} front, {result['journal']}")
    for column in ("", "empty grpc.aio echo", "durable payment", "ratio"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row(
        "a second",
        f"{result['echo_per_s']:,.0f}",
        f"{result['payments_per_s']:,.0f}",
        f"{result['throughput_ratio']:.2f}",
    )
    table.add_row(
        "CPU, µs each",
        f"{result['echo_cpu_us']:.0f}",
        f"{result['gateway_cpu_us_per_payment']:.0f}",
        f"{result['cpu_ratio']:.2f}",
    )
    for name, value in result["latency_ms"].items():
        if name.startswith("p"):
            table.add_row(f"{name} at {result['latency_at_per_s']:,.0f}/s, ms", "", f"{value:.2f}", "")
    console = Console()
    console.print(table)
    console.print(
        f"{result['payments']:,} payments, {result['payments_per_commit']} for each commit; gateway memory "
        f"{result['rss_mb']['start']:.0f} MB, {result['rss_mb']['end']:.0f} MB at the end; "
        + ("no money was lost" if result["conserved"] else f"NOT conserved: {result['findings']}")
    )
