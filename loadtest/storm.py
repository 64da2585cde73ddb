"""`hutong bench --storm`: payments with and without a storm of status queries, in turns, in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from gateway.budgets import QueryLimits
from hutong.gateway.v1 import payment_pb2 as pb
from loadtest.fleet import Closed, Fleet, Open, Storm, Tally, percentiles, total
from loadtest.h2 import Reply, UnaryLoad, closed_loop
from loadtest.measured import Child, Setting, journal_name, place, serve_gateway
from loadtest.payments import CREATE_PATH, Payments
from sandbox.checking import check_folder

ROUNDS: Final = 2
CONCURRENCY: Final = 1024
WALLETS_PER_ISSUER: Final = 50
WARM_UP_S: Final = 1.0
PAY_S: Final = 0.2
CALLERS: Final = 16
TIMES: Final = 4.0
"""What each caller of the storm asks for, in rates of its budget."""
IDS: Final = 1000
"""Payments that the storm asks about."""


def run(seconds: float, front: str, journal: str, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole measurement."""
    say("starting the servers")
    with place(journal) as (folder, url):
        child = Child(serve_gateway, Setting(str(folder), front, url, wallets=WALLETS_PER_ISSUER))
        payer, stormer = Fleet(1, *child.first, prefix="payer"), Fleet(1, *child.first, prefix="storm")
        ids = _pay_some(*child.first)
        storm = Storm(CALLERS, QueryLimits().rate_per_s * TIMES, 0.0, ids)
        part_s = seconds / ROUNDS
        _part(payer, stormer, Closed(CONCURRENCY, WARM_UP_S), None)
        seen: dict[str, list[tuple[Tally, Tally]]] = {"calm": [], "stormy": []}
        for round_ in range(ROUNDS):
            for name, queries in (("calm", None), ("stormy", storm)):
                say(f"round {round_ + 1} of {ROUNDS}: saturation, {name}")
                seen[name].append(_part(payer, stormer, Closed(CONCURRENCY, part_s), queries))
        calm_per_s, stormy_per_s = (_rate([tally for tally, _ in seen[name]]) for name in seen)
        half = calm_per_s / 2
        late: dict[str, tuple[Tally, Tally]] = {}
        for name, queries in (("calm", None), ("stormy", storm)):
            say(f"latency at {half:,.0f} payments/s, {name}")
            late[name] = _part(payer, stormer, Open(half, seconds), queries)
        usage = child.ask()
        payer.stop()
        stormer.stop()
        child.stop()
        say("checking that no money was lost")
        report = check_folder(folder, url)
        queried = total([storm for _, storm in seen["stormy"]] + [late["stormy"][1]])
        stormy_s = part_s * ROUNDS + seconds
        paid = total([tally for parts in seen.values() for tally, _ in parts] + [tally for tally, _ in late.values()])
        return {
            "front": front,
            "journal": journal_name(url),
            "storm": {
                "callers": CALLERS,
                "budget_per_s_each": QueryLimits().rate_per_s,
                "asked_per_s": round(queried.calls / stormy_s, 1),
                "answered_per_s": round(len(queried.good_ms) / stormy_s, 1),
                "refused_per_s": round(len(queried.refused_ms) / stormy_s, 1),
                "answer_ms": percentiles(queried.good_ms, 50, 99),
                "refusal_ms": percentiles(queried.refused_ms, 50, 99),
                "other_failures": {str(status): count for status, count in queried.failures.items()},
            },
            "payments_per_s": {"calm": round(calm_per_s, 1), "stormy": round(stormy_per_s, 1)},
            "ratio": round(stormy_per_s / max(calm_per_s, 1e-9), 3),
            "latency_at_per_s": round(half, 1),
            "latency_ms": {name: percentiles(tally.good_ms, 50, 99, 99.9) for name, (tally, _) in late.items()},
            "payments_failed": len(paid.refused_ms) + sum(paid.failures.values()),
            "payments": report.payments,
            "wal_mb": round(usage.wal_mb, 1),
            "rss_mb": round(usage.rss_mb, 1),
            "conserved": report.conserved,
            "findings": report.findings,
        }


def _part(payer: Fleet, stormer: Fleet, order: Closed | Open, storm: Storm | None) -> tuple[Tally, Tally]:
    """Pays, and asks at the same time where there is a storm."""
    if storm is not None:
        stormer.begin(replace(storm, seconds=order.seconds))
    payer.begin(order)
    return payer.end(), stormer.end() if storm is not None else Tally()


def _rate(tallies: list[Tally]) -> float:
    return sum(len(tally.good_ms) for tally in tallies) / sum(tally.seconds for tally in tallies)


def _pay_some(target: str, tokens: list[str], merchants: list[tuple[str, str]]) -> tuple[str, ...]:
    """Makes payments that the storm can ask about, and returns their ids."""
    load, payments = UnaryLoad(target, CREATE_PATH), Payments(tokens, merchants, prefix=b"asked-about")
    ids: list[str] = []

    def seen(reply: Reply) -> None:
        if reply.status == 0:
            ids.append(pb.CreatePaymentResponse.FromString(reply.body).payment.payment_id)

    while len(ids) < IDS:
        closed_loop(load, IDS, time.perf_counter() + PAY_S, payments.message, seen)
    load.close()
    return tuple(ids[:IDS])
