"""`hutong bench`: durable payments against an empty gRPC echo, in one run, on this machine."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

import click
import psutil
from rich.table import Table

from command.printing.verdict import failed
from loadtest import echo
from loadtest import overload as bench_overload
from loadtest import recovery as bench_recovery
from loadtest import storm as bench_storm
from loadtest.measure import Saturation, latencies_ms, saturate
from loadtest.measured import Child, Setting, journal_name, serve_gateway, verdict
from loadtest.payments import CREATE_PATH, Payments, succeeded
from sandbox.checking import check_folder
from sandbox.journals import LOCAL_SERVER, JournalError, local_server
from sandbox.screen import Screen

RECOVERY_MAX: Final = 1_000_000
ROUNDS: Final = 2
"""Echo and payments take turns, so that a machine that slows down slows both."""
CONCURRENCY: Final = 1024
WARM_UP_S: Final = 1.0
ECHO_REQUEST: Final = b"x" * 95


class Subject:
    """A gateway under measurement, on one journal."""

    def __init__(self, folder: Path, front: str, journal: str, database_pid: int = 0) -> None:
        self.journal = journal_name(journal)
        self._folder = folder
        self._url = journal
        self._database_pid = database_pid
        self._child = Child(serve_gateway, Setting(str(folder), front, journal))
        self._target, tokens, merchants = self._child.first
        self._payments = Payments(tokens, merchants)
        self._paid, self._warm = Saturation(), Saturation()
        self._cpu_s = self._database_cpu_s = 0.0
        self._commits = 0
        self._first_rss = self._child.ask().rss_mb
        self._round_rss = 0.0
        self._latency: dict[str, Any] = {}
        self._rate = 0.0

    def pay(self, seconds: float) -> None:
        """One round at saturation."""
        self._saturate(WARM_UP_S, self._warm)
        before, database = self._child.ask(), _cpu_s(self._database_pid)
        self._saturate(seconds, self._paid)
        after = self._child.ask()
        self._cpu_s += after.cpu_s - before.cpu_s
        self._database_cpu_s += _cpu_s(self._database_pid) - database
        self._commits += after.commits - before.commits
        self._round_rss = self._round_rss or after.rss_mb

    def _saturate(self, seconds: float, into: Saturation) -> None:
        payments = self._payments
        saturate(
            self._target,
            CREATE_PATH,
            payments.message,
            succeeded,
            concurrency=CONCURRENCY,
            seconds=seconds,
            into=into,
        )

    def look_at_latency(self, seconds: float) -> None:
        """Open loop at half of saturation."""
        self._rate = self._paid.per_second / 2
        rate = max(self._rate, 1.0)
        self._latency = latencies_ms(
            self._target, CREATE_PATH, self._payments.message, succeeded, rate=rate, seconds=seconds
        )

    def finish(self) -> dict[str, Any]:
        """Stops the gateway, checks its books, and gives the figures."""
        paid, last = self._paid, self._child.ask()
        self._child.stop()
        report = check_folder(self._folder, self._url)
        good = max(paid.good, 1)
        figures = {
            "journal": self.journal,
            "payments_per_s": round(paid.per_second, 1),
            "gateway_cpu_us_per_payment": round(self._cpu_s / good * 1e6, 1),
            "latency_ms": self._latency,
            "latency_at_per_s": round(self._rate, 1),
            "commits": self._commits,
            "payments_per_commit": round(paid.good / max(self._commits, 1), 1),
            "payments": report.payments,
            "failures": {str(status): count for status, count in (paid.failures + self._warm.failures).items()},
            "rss_mb": {
                "start": round(self._first_rss, 1),
                "first_round": round(self._round_rss, 1),
                "end": round(last.rss_mb, 1),
            },
            "conserved": report.conserved,
            "findings": report.findings,
        }
        if self._database_pid:
            figures["database_cpu_us_per_payment"] = round(self._database_cpu_s / good * 1e6, 1)
        return figures


def _cpu_s(pid: int) -> float:
    """CPU seconds of a server that was started here, its processes included; 0 for one that was not."""
    if not pid:
        return 0.0
    total = 0.0
    server = psutil.Process(pid)
    for process in (server, *server.children(recursive=True)):
        with suppress(psutil.NoSuchProcess):
            times = process.cpu_times()
            total += times.user + times.system
    return total


def run(seconds: float, front: str, journal: str, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole measurement. With a journal on a server, SQLite's figures are taken in the same run."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hutong-bench-")))
        say("starting the servers")
        server = stack.enter_context(local_server()) if journal == LOCAL_SERVER else None
        url, pid = (server.url, server.pid) if server else (journal, 0)
        baseline = Child(echo.serve)
        subjects = [Subject(folder / "sqlite", front, "")]
        if url:
            subjects.append(Subject(folder / "postgresql", front, url, pid))
        echo_seen, warm = Saturation(), Saturation()
        echo_cpu = 0.0
        echo_target = f"127.0.0.1:{baseline.first}"
        for round_ in range(ROUNDS):
            say(f"round {round_ + 1} of {ROUNDS}: echo")
            _echo(echo_target, WARM_UP_S, warm)
            before = baseline.ask()
            _echo(echo_target, seconds / ROUNDS, echo_seen)
            echo_cpu += baseline.ask() - before
            for subject in subjects:
                say(f"round {round_ + 1} of {ROUNDS}: payments, {subject.journal}")
                subject.pay(seconds / ROUNDS)
        for subject in subjects:
            say(f"latency at half of saturation, {subject.journal}")
            subject.look_at_latency(seconds)
        say("stopping, and checking that no money was lost")
        baseline.stop()
        figures = [subject.finish() for subject in subjects]
        result = {
            "front": front,
            "generator": "one process, unary calls, closed loop; then open loop at half of saturation",
            "echo_per_s": round(echo_seen.per_second, 1),
            "echo_cpu_us": round(echo_cpu / max(echo_seen.good, 1) * 1e6, 1),
            **figures[-1],
        }
        cpu_us, per_s = result["gateway_cpu_us_per_payment"], result["payments_per_s"]
        result["throughput_ratio"] = round(per_s / max(echo_seen.per_second, 1e-9), 3)
        result["cpu_ratio"] = round(cpu_us / max(result["echo_cpu_us"], 1e-9), 3)
        if len(figures) > 1:
            result["sqlite"] = figures[0]
            result["ratio_to_sqlite"] = round(per_s / max(figures[0]["payments_per_s"], 1e-9), 3)
            result["conserved"] = all(one["conserved"] for one in figures)
            result["findings"] = [finding for one in figures for finding in one["findings"]]
        return result


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


@click.command()
@click.option(
    "--seconds", type=click.FloatRange(min=1), default=10.0, show_default=True, help="For each of three parts."
)
@click.option("--front", type=click.Choice(["native", "aio"]), default="native", show_default=True)
@click.option(
    "--journal",
    default="",
    metavar="URL",
    help="Also measure on a database: postgresql://… (an empty one), or `postgres` to start a server for this run.",
)
@click.option("--storm", "kind", flag_value="storm", help="Instead: payments in a storm of status queries.")
@click.option("--overload", "kind", flag_value="overload", help="Instead: twice as many payments as can be done.")
@click.option(
    "--generators", type=click.IntRange(1, 64), default=1, show_default=True, help="Processes that make the overload."
)
@click.option(
    "--recovery",
    type=click.IntRange(1, RECOVERY_MAX),
    metavar="N",
    help="Instead: kill -9 with N payments in flight, and the time until they are settled.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(
    seconds: float, front: str, journal: str, kind: str | None, generators: int, recovery: int | None, as_json: bool
) -> None:
    """Measure payments a second against an empty gRPC echo.

    One run, on loopback: an empty grpc.aio handler, then real payments, durable before they are acknowledged, each at
    saturation and in turns; then the latency of payments at half of that rate, from when each was due. The CPU is the
    server processes' own: simulated participants run inside the gateway's and count, the generator does not. Other
    measurements: --storm, --overload, --recovery; docs/performance.md says what they mean.
    """
    err = Screen(stderr=True)
    with err.status("") as status:
        try:
            if kind and recovery:
                raise click.UsageError("--recovery is a measurement of its own")
            if recovery:
                result, show = bench_recovery.run(recovery, front, journal, status.update), bench_recovery.show
            elif kind == "overload":
                result = bench_overload.run(seconds, generators, front, journal, status.update)
                show = bench_overload.show
            elif kind == "storm":
                result, show = bench_storm.run(seconds, front, journal, status.update), bench_storm.show
            else:
                result, show = run(seconds, front, journal, status.update), _print
        except JournalError as error:
            raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(json.dumps(result))
    else:
        show(result, Screen())
    if not result["conserved"]:
        failed("after the load the books do not agree", result["findings"])


def _print(result: dict[str, Any], console: Screen) -> None:
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
    console.print(table)
    if "sqlite" in result:
        sqlite = result["sqlite"]
        database = result.get("database_cpu_us_per_payment")
        console.print(
            f"SQLite in the same run: {sqlite['payments_per_s']:,.0f} payments/s, "
            f"{sqlite['gateway_cpu_us_per_payment']:.0f} µs CPU each; PostgreSQL has {result['ratio_to_sqlite']:.2f} "
            "of its rate" + (f", and its server used {database:.0f} µs CPU for each payment" if database else "")
        )
    console.print(
        f"{result['payments']:,} payments, {result['payments_per_commit']} for each commit; gateway memory "
        f"{result['rss_mb']['start']:.0f} MB, {result['rss_mb']['end']:.0f} MB at the end; " + verdict(result)
    )
