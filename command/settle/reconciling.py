"""`hutong settle reconcile` and `hutong settle statement`: windows against what participants' own books say."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Final

import click
from rich.table import Table

from command.options.folders import FILE, NEW_FILE
from command.options.formats import json_option
from command.options.settlement import OpenDesk, desk_options
from command.printing.said import say_json
from command.printing.screen import Screen, add_row
from command.printing.verdict import failed
from gateway.clearing.reconcile import Difference, Result
from gateway.clearing.text import signed
from gateway.clearing.theirs import StatementError
from gateway.engine.answer import id_text
from sandbox import reconciliation
from sandbox.participants import statement as export
from sandbox.participants.books import FILE_NAME, BooksError

SHOWN_MAX: Final = 50
"""Differences printed for a person; --json has all that are kept."""


@click.command()
@click.argument("number", metavar="[WINDOW]", type=click.IntRange(1), required=False)
@click.option(
    "--participant", "whose", multiple=True, help="Whose books; may be repeated. Default: all that are there."
)
@click.option(
    "--books", type=click.Path(exists=True, path_type=Path),
    help=f"A {FILE_NAME}, or a folder with some below it. Default: those of the --data folder.",
)  # fmt: skip
@click.option(
    "--statement", "handed_in", type=FILE,
    help="A CSV that the participant wrote instead; see hutong settle statement.",
)  # fmt: skip
@desk_options
@json_option
def reconcile(
    desk: OpenDesk, number: int | None, whose: tuple[str, ...], books: Path | None, handed_in: Path | None, *,
    as_json: bool,
) -> None:  # fmt: skip
    """Hold what was settled against participants' own books, payment by payment (对账).

    Each difference has a kind (missing there, missing here, amount, currency, duplicate, sign, reversed there, timing),
    the payment's id and both amounts. Without WINDOW, all closed windows are looked at together. Exit status 1 if
    there is any difference.
    """
    if books is not None and handed_in is not None:
        raise click.UsageError("name --books or --statement, not both")
    books = books or _folder()
    if books is None and handed_in is None:
        raise click.UsageError("name the participants' side: --books or --statement")
    results: dict[str, Result] = {}
    with desk() as opened, Screen(stderr=True).status("") as status:
        try:
            for participant, lines in reconciliation.sides(books, handed_in, whose):
                status.update(f"reconciling {participant}")
                results[participant] = reconciliation.reconcile(opened, participant, lines, number)
        except (StatementError, BooksError) as error:
            raise click.ClickException(f"{handed_in or books}: {error}") from None
    if as_json:
        say_json({name: _as_json(result) for name, result in results.items()})
    else:
        _print(results)
    if differing := [name for name, result in results.items() if not result.agrees]:
        failed("these do not agree with what was settled", differing)


def _folder() -> Path | None:
    """The participants' books of the data folder that the command was given."""
    data = click.get_current_context().params.get("data")
    folder = data / "participants" if data is not None else None
    return folder if folder is not None and folder.exists() else None


@click.command()
@click.argument("books", metavar="BOOKS", type=click.Path(exists=True, path_type=Path))
@click.option("--participant", required=True, help="Whose statement.")
@click.option("--output", type=NEW_FILE, help="Default: standard output.")
@click.option("--windows/--no-windows", "with_windows", default=False, help="Say which window each line counts in.")
@desk_options
def statement(desk: OpenDesk, books: Path, participant: str, output: Path | None, *, with_windows: bool) -> None:
    """Export a participant's own statement from its books, as CSV for hutong settle reconcile.

    BOOKS is its books.db, or a folder with some below it. With --windows each line says in which settlement window the
    participant counts it: by when it booked it.
    """
    paths = [books] if books.is_file() else sorted(books.rglob(FILE_NAME))
    cutoffs: list[int] = []
    if with_windows:
        with desk() as opened:
            cutoffs = sorted(window.closed_us for window in opened.windows())
    try:
        found = [path for path in paths if participant in export.participants(path)]
        if not found:
            raise click.ClickException(f"{books} has no books of {participant}")
        rows = (row for path in found for row in export.lines(path, participant, cutoffs))
        if output is None:
            sys.stdout.reconfigure(newline="")  # type: ignore[union-attr]
            export.write(sys.stdout, rows)
            return
        with output.open("w", encoding="utf-8", newline="") as file:
            count = export.write(file, rows)
    except (BooksError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{count:,} lines are in {output}")


def _as_json(result: Result) -> dict[str, Any]:
    return {
        "agrees": result.agrees,
        "settled": result.ours,
        "agreed": result.agreed,
        "lines": result.theirs,
        "pending": result.pending,
        "counts": {kind.value: count for kind, count in sorted(result.counts.items())},
        "differences": [_difference_json(one) for one in result.differences],
    }


def _difference_json(one: Difference) -> dict[str, Any]:
    return {
        "kind": one.kind.value,
        "payment_id": id_text(one.payment_id),
        "window": one.window,
        "ours_minor": one.ours_minor,
        "ours_currency": one.ours_currency,
        "theirs_minor": one.theirs_minor,
        "theirs_currency": one.theirs_currency,
        "theirs_window": one.theirs_window,
        "leg_ids": [leg.hex() for leg in one.leg_ids],
    }


def _print(results: dict[str, Result]) -> None:
    console = Screen()
    for participant, result in results.items():
        pending = f", {result.pending:,} not settled yet" if result.pending else ""
        verdict = "[green]agrees[/]" if result.agrees else f"[red]{sum(result.counts.values()):,} differences[/]"
        console.print(f"{participant}: {verdict}; {result.ours:,} settled, {result.theirs:,} lines{pending}")
    table = Table("participant", "difference", "payment", "window", "here", "there")
    table.columns[2].no_wrap = True  # an id is to be copied
    shown = [(name, one) for name, result in results.items() for one in result.differences]
    for participant, one in shown[:SHOWN_MAX]:
        here = _money(one.ours_minor, one.ours_currency)
        there = _money(one.theirs_minor, one.theirs_currency)
        if one.theirs_window is not None and one.theirs_window != one.window:
            there += f" in window {one.theirs_window}"
        kind = one.kind.value.replace("_", " ")
        add_row(table, participant, kind, id_text(one.payment_id), str(one.window or ""), here, there)
    if shown:
        Screen(soft_wrap=True).print(table)
    if len(shown) > SHOWN_MAX:
        console.print(f"and {len(shown) - SHOWN_MAX:,} more: see --json")


def _money(amount_minor: int, currency: str) -> str:
    return signed(amount_minor, currency) if currency else ""
