"""`hutong bench`: durable payments against an empty gRPC echo, in one run, on this machine."""

from __future__ import annotations

import click

from command.options.folders import journal_option
from command.options.formats import json_option
from command.printing import benches
from command.printing.said import say_json
from command.printing.screen import Screen
from command.printing.verdict import failed
from loadtest import bench as payments
from loadtest import overload, storm
from loadtest import recovery as recovering
from loadtest.errors import BenchError
from sandbox.journals import JournalError

RECOVERY_MAX = 1_000_000
"""Payments that may be in flight when the gateway is killed."""


@click.command()
@click.option(
    "--seconds", type=click.FloatRange(min=1), default=10.0, show_default=True, help="For each of three parts."
)
@click.option(
    "--front",
    type=click.Choice(["native", "aio"]),
    default="native",
    show_default=True,
    help="The gRPC server that is measured.",
)
@journal_option(
    "Also measure on a database: postgresql://… (an empty one), or `postgres` to start a server for this run."
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
@json_option
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
                result, show = recovering.run(recovery, front, journal, status.update), benches.recovery
            elif kind == "overload":
                result = overload.run(seconds, generators, front, journal, status.update)
                show = benches.overload
            elif kind == "storm":
                result, show = storm.run(seconds, front, journal, status.update), benches.storm
            else:
                result, show = payments.run(seconds, front, journal, status.update), benches.payments
        except (JournalError, BenchError) as error:
            raise click.ClickException(str(error)) from None
    if as_json:
        say_json(result)
    else:
        show(result, Screen())
    if not result["conserved"]:
        failed("after the load the books do not agree", result["findings"])
