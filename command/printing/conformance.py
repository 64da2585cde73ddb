"""What `hutong participants conform` prints: a line for each check as it ends, and what is wrong."""

from __future__ import annotations

from typing import Final

import click

from command.printing.said import say
from hutong_contract.cleaning import printable
from verification.conformance.report import Outcome, Report, Verdict

COLOURS: Final = {Verdict.PASSED: "green", Verdict.FAILED: "red", Verdict.SKIPPED: "yellow"}


def say_outcome(outcome: Outcome) -> None:
    """One check: its name, how it ended, and for one that failed its rule and each finding on a line."""
    click.echo(f"{click.style(outcome.verdict.value.ljust(8), fg=COLOURS[outcome.verdict])}{outcome.name}")
    if outcome.verdict is Verdict.FAILED:
        say(f"        {outcome.rule}")
    for finding in outcome.findings:
        say(f"        - {printable(finding)}")


def say_report(report: Report) -> None:
    """The last line: how many of each."""
    counts = [f"{sum(one.verdict is kind for one in report.outcomes)} {kind.value}" for kind in Verdict]
    say(f"{report.participant}, {report.role}: {', '.join(counts)}; {report.legs:,} legs")
