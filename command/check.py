"""`hutong check`: compares a data folder's journal with itself and with the participants' books."""

from __future__ import annotations

from pathlib import Path

import click
from rich.text import Text

from command.options.folders import FOLDER, journal_option
from command.options.formats import json_option
from command.printing.said import say_json
from command.printing.screen import Screen
from command.printing.verdict import failed, said_plainly
from gateway.journal.report import Report
from sandbox.checking import check_folder
from sandbox.journals import SQLITE_FILE, JournalError, remembered_url


@click.command()
@click.argument("folder", metavar="DIR", type=FOLDER)
@journal_option("PostgreSQL URL of the journal. Default: the one that the folder remembers, or SQLite in the folder.")
@json_option
def check(folder: Path, journal: str, as_json: bool) -> None:
    """Check on a data directory that no money was lost.

    Postings sum to zero for each currency; every payment has ended, or is in flight at an engine; every ended payment
    moved exactly what its state requires; refunds, spent codes and counters add up; and the books of issuers and
    acquirers agree with the gateway's, payment by payment, on what was moved and what is held. Exit status 1 if
    anything is wrong.
    """
    journal = journal or remembered_url(folder)
    if not journal and not (folder / SQLITE_FILE).exists():
        raise click.UsageError(
            f"{folder} holds no {SQLITE_FILE}; name the folder given to `hutong up --data`, and the --journal, if it "
            "had one with a password"
        )
    with said_plainly(JournalError), Screen(stderr=True).status("adding up the journal and the books"):
        report = check_folder(folder, journal)
    if as_json:
        say_json(
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
