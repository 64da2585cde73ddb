"""What `hutong bench` found, for a person."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from command.printing.screen import Screen
from loadtest.measured import verdict


def overload(result: dict[str, Any], console: Screen) -> None:
    """A few lines."""
    refusal, good, rss = result["refusal_ms"], result["good_ms"], result["rss_mb"]
    console.print(
        f"{result['front']} front, {result['journal']}, {result['generators']} generator processes "
        f"({result['generator_cpu']:.1f} cores; the gateway {result['gateway_cpu']:.1f})\n"
        f"peak {result['peak_per_s']:,.0f} payments/s; offered {result['offered_per_s']:,.0f}/s, "
        f"succeeded {result['goodput_per_s']:,.0f}/s: {result['goodput_ratio']:.0%} of the peak"
        + (f", in {good['p50']:.0f} ms (p99 {good['p99']:.0f} ms)" if good else "")
        + f"\n{result['refused']:,} refused"
        + (f", in {refusal['p50']:.1f} ms (p99 {refusal['p99']:.1f} ms)" if refusal else "")
        + f"; other failures: {result['other_failures'] or 'none'}\n"
        f"memory {rss['before']:.0f} MB before, {rss['halfway']:.0f} MB halfway, {rss['after']:.0f} MB after; "
        + verdict(result),
        highlight=False,
    )


def recovery(result: dict[str, Any], console: Screen) -> None:
    """A few lines."""
    paid = result["payments_while_settling"]
    states = ", ".join(f"{count:,} {state.lower()}" for state, count in sorted(result["by_state"].items()))
    console.print(
        f"{result['in_flight_at_kill']:,} payments in flight at kill -9, {result['in_flight_found']:,} found on "
        f"{result['journal']}\n"
        f"after {result['start_s']:.1f} s the port was open (an empty network: {result['empty_start_s']:.1f} s), after "
        f"{result['first_payment_s']:.1f} s a new payment had succeeded, after {result['settled_s']:.1f} s all were "
        f"settled\n"
        f"{paid['payments']:,} new payments meanwhile, one after the other: p50 {paid['p50_ms']:.0f} ms, longest "
        f"{paid['max_ms']:.0f} ms; gateway CPU {result['gateway_cpu_s']:.1f} s, memory {result['rss_mb']:.0f} MB\n"
        f"{states}; " + verdict(result),
        highlight=False,
    )


def storm(result: dict[str, Any], console: Screen) -> None:
    """A few lines."""
    storm, rate, latency = result["storm"], result["payments_per_s"], result["latency_ms"]
    console.print(
        f"{result['front']} front, {result['journal']}\n"
        f"storm: {storm['callers']} callers ask {storm['asked_per_s']:,.0f} times a second (budget "
        f"{storm['budget_per_s_each']:.0f} each); {storm['answered_per_s']:,.0f} answered, "
        f"{storm['refused_per_s']:,.0f} refused; other failures: {storm['other_failures'] or 'none'}\n"
        f"payments/s at saturation: {rate['calm']:,.0f} without, {rate['stormy']:,.0f} with the storm: "
        f"{result['ratio']:.0%}\n"
        f"at {result['latency_at_per_s']:,.0f} payments/s: p50 {latency['calm']['p50']:.1f} ms, p99 "
        f"{latency['calm']['p99']:.1f} ms without; p50 {latency['stormy']['p50']:.1f} ms, p99 "
        f"{latency['stormy']['p99']:.1f} ms with the storm\n"
        f"{result['payments']:,} payments, {result['payments_failed']} failed; write-ahead log {result['wal_mb']:.0f} "
        f"MB; " + verdict(result),
        highlight=False,
    )


def payments(result: dict[str, Any], console: Screen) -> None:
    """The usual measurement: a table beside the echo, and a few lines."""
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
