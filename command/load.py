"""`hutong load`: a scenario against a running gateway, in open or closed loop, with a report that can be believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from command.options.connection import TARGET_DEFAULT, Connection, check_connection, connection_options
from command.options.folders import NEW_FILE, data_option
from command.options.formats import json_option
from command.options.population import seed_option
from command.printing.said import say_json
from command.printing.screen import Screen, add_row
from command.printing.verdict import failed
from loadtest import page, run, scenario, supplies
from sandbox.checking import check_folder
from sandbox.journals import remembered_url


@click.command()
@click.argument("name", metavar="SCENARIO")
@connection_options
@data_option("Data folder of the network: says its seed and size; its books are checked after the run.")
@seed_option("Of the network, where no --data is given.")
@click.option(
    "--wallets", type=click.IntRange(1), default=supplies.WALLETS_DEFAULT, show_default=True, help="How many pay."
)
@click.option(
    "--merchants",
    type=click.IntRange(1),
    default=supplies.MERCHANTS_DEFAULT,
    show_default=True,
    help="How many are paid.",
)
@click.option("--rate", type=click.FloatRange(0.01), help="Calls a second, instead of the scenario's own.")
@click.option("--report", type=NEW_FILE, help="Also write a page, HTML in one file.")
@json_option
def load(
    name: str,
    connection: Connection,
    data: Path | None,
    seed: int,
    wallets: int,
    merchants: int,
    rate: float | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Load a gateway with a scenario, and say what callers saw.

    SCENARIO is a TOML file or a built-in one: token, mix, knee. Latencies count from when each call was due, so a
    server that stands still shows; refusals are told by reason. With --data the conservation check follows, and the
    exit status is 1 if money was lost, or if the connection was.
    """
    if connection.options.tls is not None:
        raise click.UsageError("The generator speaks plaintext: load a loopback port, or the one behind your proxy.")
    check_connection(connection)
    screen = Screen(stderr=True)
    try:
        wanted = scenario.read(name)
        if rate is not None:
            wanted = scenario.with_rate(wanted, rate)
        target = connection.target
        place = (
            supplies.place_of(data, "" if target == TARGET_DEFAULT else target)
            if data is not None
            else supplies.Place(target, seed, wallets, merchants)
        )
        with screen.status("asking for tokens"):
            supply = supplies.fetch(place)
        measured = run.run(
            wanted, supply, place.target, server_pid=supplies.pid_of(data) if data else 0, say=screen.print
        )
    except scenario.ScenarioError as error:
        raise click.UsageError(str(error)) from None
    except supplies.SupplyError as error:
        raise click.ClickException(str(error)) from None
    result = measured.as_json()
    result["conserved"] = None
    if data is not None:
        with screen.status("adding up the journal and the books"):
            checked = check_folder(data, remembered_url(data))
        result["conserved"], result["findings"] = checked.conserved, checked.findings
    result["machine"] = page.machine()
    if report is not None:
        report.write_text(page.page(result), "utf-8")
    if as_json:
        say_json(result)
    else:
        _print(result, report)
    if result["conserved"] is False:
        failed("money was lost or made", result["findings"])
    if result["connection_lost"]:
        failed(f"the connection was lost, {result['unanswered']:,} calls have no answer: {result['connection_lost']}")


def _print(result: dict[str, Any], report: Path | None) -> None:
    from rich.table import Table

    screen = Screen()
    table = Table("offered/s", "done/s", "p50 ms", "p99 ms", "p99.9 ms", "p99.99 ms", "missed", "generator CPU")
    for stage in result["stages"]:
        due = stage["latency_from_due_ms"]
        add_row(
            table,
            f"{stage['offered_per_s']:,.0f}",
            f"{stage['goodput_per_s']:,.0f}",
            *(f"{due.get(name, 0):,.1f}" for name in ("p50", "p99", "p99.9", "p99.99")),
            f"{stage['missed']:,}",
            f"{stage['generator_cpu_share']:.0%}",
        )
    screen.print(table)
    for reason, count in result["refusals"].items():
        screen.print(f"{count:,} × {reason}")
    if "knee_per_s" in result:
        screen.print(f"knee {result['knee_per_s']:,.0f}/s, within the objective {result['slo_per_s']:,.0f}/s")
        if result["usl"]:
            screen.print("usl " + json.dumps({name: round(value, 6) for name, value in result["usl"].items()}))
    if result["runqueue_wait_share"] is not None:
        screen.print(f"the gateway's busiest thread waited {result['runqueue_wait_share']:.1%} of the time for a core")
    if result["conserved"]:
        screen.print("conserved: every book agrees")
    if report is not None:
        screen.print(f"the page is {report}")
