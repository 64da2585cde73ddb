"""`hutong bench --overload`: twice as many payments as the gateway can do, on a schedule, whatever it answers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from loadtest.fleet import Closed, Fleet, Open, percentiles
from loadtest.measured import Child, Setting, journal_name, place, serve_gateway
from sandbox.checking import check_folder

TIMES: Final = 2.0
"""What is offered, in rates at saturation."""
CONCURRENCY: Final = 1024
WALLETS_PER_ISSUER: Final = 50
WARM_UP_S: Final = 1.0
SAMPLE_S: Final = 0.25
FILLING_S: Final = 0.5
"""Of the overload, until the queues are as long as it makes them; goodput counts from then on."""


def run(seconds: float, generators: int, front: str, journal: str, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole measurement: the peak before and after, the overload between them."""
    say("starting the servers")
    with place(journal) as (folder, url):
        child = Child(serve_gateway, Setting(str(folder), front, url, wallets=WALLETS_PER_ISSUER))
        fleet = Fleet(generators, *child.first)
        _peak(fleet, generators, WARM_UP_S)
        say("peak")
        peaks = [_peak(fleet, generators, seconds / 2)]
        offered = peaks[0] * TIMES
        say(f"overload: {offered:,.0f} payments/s")
        before = child.ask()
        fleet.begin(*[Open(offered / generators, seconds + FILLING_S, FILLING_S)] * generators)
        samples, end = [before.rss_mb], time.perf_counter() + FILLING_S + seconds
        while time.perf_counter() < end:
            time.sleep(SAMPLE_S)
            usage = child.ask()
            samples.append(usage.rss_mb)
        seen = fleet.end()
        after = child.ask()
        say("peak again")
        peaks.append(_peak(fleet, generators, seconds / 2))
        fleet.stop()
        child.stop()
        say("checking that no money was lost")
        report = check_folder(folder, url)
        peak, goodput = sum(peaks) / len(peaks), seen.in_time / seconds
        return {
            "front": front,
            "journal": journal_name(url),
            "generators": generators,
            "generator_cpu": round(seen.cpu_s / max(seen.seconds, 1e-9), 2),
            "gateway_cpu": round((after.cpu_s - before.cpu_s) / max(seen.seconds, 1e-9), 2),
            "peak_per_s": round(peak, 1),
            "peaks_per_s": [round(one, 1) for one in peaks],
            "offered_per_s": round(seen.calls / (seconds + FILLING_S), 1),
            "goodput_per_s": round(goodput, 1),
            "goodput_ratio": round(goodput / max(peak, 1e-9), 3),
            "good_ms": percentiles(seen.good_ms, 50, 99),
            "refused": len(seen.refused_ms),
            "refusal_ms": percentiles(seen.refused_ms, 50, 99),
            "other_failures": {str(status): count for status, count in seen.failures.items()},
            "gate": usage.gate,
            "rss_mb": {
                "before": round(before.rss_mb, 1),
                "halfway": round(samples[len(samples) // 2], 1),
                "most": round(max(samples), 1),
                "after": round(after.rss_mb, 1),
            },
            "conserved": report.conserved,
            "findings": report.findings,
        }


def _peak(fleet: Fleet, generators: int, seconds: float) -> float:
    """Payments a second in a closed loop."""
    fleet.begin(*[Closed(CONCURRENCY // generators, seconds)] * generators)
    seen = fleet.end()
    return len(seen.good_ms) / seen.seconds
