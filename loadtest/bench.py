"""`hutong bench`: durable payments against an empty gRPC echo, in one run, on this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from hutong_contract.extras import needs
from loadtest import echo
from loadtest.measure import Saturation, latencies_ms, saturate
from loadtest.measured import Child, Setting, journal_name, serve_gateway
from loadtest.payments import CREATE_PATH, Payments, succeeded
from sandbox.checking import check_folder
from sandbox.journals import LOCAL_SERVER, local_server

with needs("bench"):
    import psutil

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
