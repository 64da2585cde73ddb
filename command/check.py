"""`hutong check`: holds a data folder's journal against itself and against the participants' books."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.text import Text

from command.printing.screen import Screen
from command.printing.verdict import failed
from gateway.journal.conservation import Report
from sandbox.checking import check_folder
from sandbox.journals import SQLITE_FILE, JournalError, remembered_url


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--journal",
    default="",
    metavar="URL",
    help="PostgreSQL URL of the journal; without it the one that the folder remembers, or SQLite in the folder.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(folder: Path, journal: str, as_json: bool) -> None:
    """Check on a data directory that no money was lost.

    Postings sum to zero for each currency; every payment has ended, or is in flight and looked after; every ended
    payment moved exactly what its state says; refunds, spent codes and counters add up; and the books of issuers and
    acquirers agree with the gateway's, payment by payment, on what was moved and what is held. Exit status 1 if
    anything is wrong.
    """
    journal = journal or remembered_url(folder)
    if not journal and not (folder / SQLITE_FILE).exists():
        raise click.UsageError(
            f"{folder} holds no {SQLITE_FILE}; name the folder given to `hutong up --data`, and the --journal, if it "
            "had one with a password"
        )
    try:
        with Screen(stderr=True).status("adding up the journal and the books"):
            report = check_folder(folder, journal)
    except JournalError as error:
        raise click.ClickException(str(error)) from None
    if as_json:
        click.echo(
            json.dumps(
                {
                    "conserved": report.conserved,
                    "payments": report.payments,
                    "in_flight": report.in_flight,
                    "held": len(report.held),
                    "by_state": report.by_state,
                    "postings": report.postings,
                    "findings": report.findings,
                }
            )
        )
    else:
        print_report(report, Screen())
    if not report.conserved:
        failed("the books do not agree", report.findings)


def print_report(report: Report, console: Screen) -> None:
    """A few lines for a person."""
    states = ", ".join(f"{count:,} {state.lower()}" for state, count in sorted(report.by_state.items()))
    console.print(f"{report.payments:,} payments and refunds ({states}), {report.postings:,} postings")
    if report.in_flight:
        console.print(f"{report.in_flight:,} are in flight and will be settled by the gateway")
    if report.held:
        console.print(f"{len(report.held):,} hold funds until they are captured, cancelled or expire")
    if report.conserved:
        console.print("[green]conserved[/]: postings sum to zero, and every book agrees")
    for finding in report.findings:
        console.print(Text.assemble(("wrong", "red"), f": {finding}"), highlight=False)
