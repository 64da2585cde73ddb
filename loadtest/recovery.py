"""`hutong bench --recovery`: kill -9 with many payments in flight, then how long until everything is settled."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np

from loadtest.errors import BenchError
from loadtest.h2 import Reply, UnaryLoad
from loadtest.measured import Child, Setting, journal_name, place, serve_gateway
from loadtest.payments import CREATE_BATCH_PATH, CREATE_PATH, Payments, succeeded
from sandbox.checking import check_folder

BATCH: Final = 250
"""Payments in one call; a message must fit into HTTP/2's first window of 64 KB."""
AHEAD: Final = 16
"""Batches sent before the gateway has the payments of earlier ones in flight."""
WALLETS_PER_ISSUER: Final = 25
EXPIRES_S: Final = 3600
"""The payments' own deadline: none is given up because the bench took long."""
FILL_S: Final = 400.0
SETTLE_S: Final = 400.0
ASK_S: Final = 0.05


def run(payments: int, front: str, journal: str, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole measurement."""
    say("starting the servers")
    with place(journal) as (folder, url):
        begin = time.perf_counter()
        setting = Setting(str(folder), front, url, payments + BATCH * AHEAD, WALLETS_PER_ISSUER)
        silent = Child(serve_gateway, replace(setting, silent=True))
        empty_start_s = time.perf_counter() - begin
        filled = _fill(silent, payments, say)
        silent.kill()
        say(f"{filled:,} payments were in flight; starting again")
        begin = time.perf_counter()
        again = Child(serve_gateway, setting)
        start_s = time.perf_counter() - begin
        found = again.ask()
        first_s, settled_s, latencies_ms = _watch(again, begin, say)
        usage = again.ask()
        again.stop()
        say("checking that no money was lost")
        report = check_folder(folder, url)
        return {
            "journal": journal_name(url),
            "front": front,
            "in_flight_at_kill": filled,
            "in_flight_found": found.recovered,
            "empty_start_s": round(empty_start_s, 2),
            "start_s": round(start_s, 2),
            "first_payment_s": round(first_s, 2),
            "settled_s": round(settled_s, 2),
            "gateway_cpu_s": round(usage.cpu_s, 2),
            "payments_while_settling": {
                "payments": len(latencies_ms),
                "p50_ms": round(float(np.percentile(latencies_ms, 50)), 1),
                "max_ms": round(max(latencies_ms), 1),
            },
            "rss_mb": round(usage.rss_mb, 1),
            "by_state": report.by_state,
            "in_flight_left": report.in_flight,
            "conserved": report.conserved,
            "findings": report.findings,
        }


def _fill(child: Child, payments: int, say: Callable[[str], None]) -> int:
    """Sends batches until so many payments are in flight, and returns how many are."""
    target, tokens, merchants = child.first
    requests = Payments(tokens, merchants, expires_s=EXPIRES_S)
    load = UnaryLoad(target, CREATE_BATCH_PATH, timeout="600S")
    sent, deadline = 0, time.perf_counter() + FILL_S
    while (in_flight := child.ask().in_flight) < payments:
        if time.perf_counter() > deadline:
            raise BenchError(f"only {in_flight:,} payments are in flight after {FILL_S:.0f} s; use fewer")
        say(f"{in_flight:,} of {payments:,} payments are in flight")
        while sent < payments and sent < in_flight + BATCH * AHEAD:
            load.send(BATCH, requests.batch(BATCH))
            sent += BATCH
        # Nothing is answered but what was refused: that is asked for again.
        sent -= sum(reply.tag for reply in load.exchange(ASK_S))
    load.close()
    return int(in_flight)


def _watch(child: Child, begin: float, say: Callable[[str], None]) -> tuple[float, float, list[float]]:
    """Pays one after the other until nothing that was recovered is in flight. Returns the seconds until the first
    payment succeeded and until all was settled, and the latencies in milliseconds."""
    target, tokens, merchants = child.first
    requests = Payments(tokens, merchants, prefix=b"after")
    load = UnaryLoad(target, CREATE_PATH)
    first_s, latencies_ms = 0.0, []
    while time.perf_counter() < begin + SETTLE_S:
        load.send(0, requests.message(0))
        replies: list[Reply] = []
        while not replies:
            replies = load.exchange(ASK_S)
        (reply,) = replies
        if reply.status != 0 or not succeeded(reply):
            raise BenchError(f"a payment failed while the gateway recovered: gRPC status {reply.status}")
        now_s = time.perf_counter() - begin
        first_s = first_s or now_s
        latencies_ms.append(reply.latency_s * 1e3)
        left = child.ask().in_flight
        if not left:
            load.close()
            return first_s, now_s, latencies_ms
        say(f"{left:,} payments are left to settle")
    raise BenchError(f"{left:,} payments were not settled after {SETTLE_S:.0f} s")
