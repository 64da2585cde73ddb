"""`hutong settle`: settlement windows, who owes whom after each, their files, and holding them against books."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.table import Table

from command.options.folders import NEW_FOLDER
from command.options.formats import json_option
from command.options.groups import Group
from command.options.settlement import OpenDesk, desk_options
from command.printing.progress import telling
from command.printing.said import say_json
from command.printing.screen import Screen, add_row
from command.settle.reconciling import reconcile, statement
from gateway.clearing.files import folder_name
from gateway.clearing.model import Position, Window
from gateway.clearing.text import signed, utc
from sandbox.settlement import Desk

number_argument = click.argument("number", metavar="[WINDOW]", type=click.IntRange(1), required=False)


@click.group(cls=Group)
def settle() -> None:
    """Close settlement windows, show who owes whom, write statements, and reconcile them with books."""


settle.add_command(reconcile)
settle.add_command(statement)


@settle.command()
@number_argument
@desk_options
@json_option
def close(desk: OpenDesk, number: int | None, *, as_json: bool) -> None:
    """Close the next settlement window, and show who owes whom.

    Every payment and refund that succeeded since the window before falls into it; what is in flight is carried over.
    With WINDOW, its number, the command can be repeated safely: a window that is closed is only shown. Without it, the
    next one is closed.
    """
    with desk() as opened:
        if number is None:
            last = next(opened.windows(), None)
            number = last.number + 1 if last else 1
        _show(opened, opened.close_window(number), as_json=as_json)


@settle.command()
@desk_options
@click.option("--limit", type=click.IntRange(1), default=20, show_default=True, help="How many, the last first.")
@json_option
def windows(desk: OpenDesk, limit: int, *, as_json: bool) -> None:
    """List closed settlement windows, the last first."""
    with desk() as opened:
        found = [window for _, window in zip(range(limit), opened.windows(), strict=False)]
    if as_json:
        say_json([window_json(window) for window in found])
        return
    table = Table("window", "closed", "carried over")
    for window in found:
        add_row(table, str(window.number), utc(window.closed_us), _carried(window))
    Screen().print(table if found else "no settlement window is closed yet; see hutong settle close")


@settle.command()
@number_argument
@desk_options
@json_option
def show(desk: OpenDesk, number: int | None, *, as_json: bool) -> None:
    """Show who owes whom after a window; without WINDOW after the last one."""
    with desk() as opened:
        _show(opened, _window(opened, number), as_json=as_json)


@settle.command()
@number_argument
@click.option(
    "--out", type=NEW_FOLDER, default=Path("settlement"), show_default=True,
    help="Folder below which a folder for the window is made.",
)  # fmt: skip
@click.option("--participant", "whose", default="", help="Only this participant's statements.")
@desk_options
@json_option
def files(desk: OpenDesk, number: int | None, out: Path, whose: str, *, as_json: bool) -> None:
    """Write a window's statements: CSV, and XML in the shape of camt.053, with a manifest of SHA-256 sums.

    The same window gives the same bytes each time, at whichever gateway. A file is whole or not there; the manifest is
    written last. Without WINDOW: the last one.
    """
    with desk() as opened:
        window = _window(opened, number)
        with telling(quiet=as_json) as tell:
            positions = opened.positions(window, lambda done, total: tell("adding up", done, total))
        mine = [one for one in positions if not whose or one.participant == whose]
        if whose and not mine:
            raise click.ClickException(f"{whose} has nothing in window {window.number}; see hutong settle show")
        with telling(quiet=as_json) as tell:
            entries = opened.write(window, mine, out, lambda done, total: tell("writing", done, total))
    target = out / folder_name(window.number)
    if as_json:
        listed = [{"name": one.name, "size_bytes": one.size_bytes, "sha256": one.sha256} for one in entries]
        say_json({"window": window.number, "folder": str(target), "files": listed})
        return
    table = Table("file", "bytes")
    for entry in entries:
        add_row(table, entry.name, f"{entry.size_bytes:,}")
    Screen().print(table)
    Screen(soft_wrap=True).print(f"{len(entries)} files and their manifest are in {target}", highlight=False)


def _window(desk: Desk, number: int | None) -> Window:
    if number is not None:
        return desk.window(number)
    last = next(desk.windows(), None)
    if last is None:
        raise click.ClickException("no settlement window is closed yet; see hutong settle close")
    return last


def _show(desk: Desk, window: Window, *, as_json: bool) -> None:
    with telling(quiet=as_json) as tell:
        positions = desk.positions(window, lambda done, total: tell("adding up", done, total))
    if as_json:
        say_json(window_json(window) | {"positions": [position_json(one) for one in positions]})
        return
    console = Screen()
    carried = _carried(window)
    console.print(
        f"window {window.number}, closed {utc(window.closed_us)}" + (f"; carried over: {carried}" if carried else ""),
        highlight=False,
    )
    console.print(positions_table(positions))


def positions_table(positions: list[Position]) -> Table:
    """Who owes whom, for a person."""
    table = Table("participant", "", "payments out", "payments in", "refunds out", "refunds in", "net")
    for column in table.columns[2:]:
        column.justify, column.overflow = "right", "fold"
    table.columns[0].no_wrap = table.columns[-1].no_wrap = True  # who, and how much in the end
    for one in positions:
        parts = (one.debits, one.credits, one.refunds_paid, one.refunds_received)
        shown = [f"{part.count:,}: {_amount(part.amount_minor, one.currency)}" if part.count else "" for part in parts]
        add_row(table, one.participant, one.currency, *shown, _amount(one.net_minor, one.currency))
    return table


def _amount(amount_minor: int, currency: str) -> str:
    return signed(amount_minor, currency).removesuffix(currency).strip()


def _carried(window: Window) -> str:
    return ", ".join(f"{one.payments:,} of {signed(one.amount_minor, one.currency)}" for one in window.carried)


def window_json(window: Window) -> dict[str, Any]:
    """A window for a program."""
    return {
        "window": window.number,
        "after_sequence": window.after_sequence,
        "last_sequence": window.last_sequence,
        "opened": utc(window.opened_us) if window.opened_us else None,
        "closed": utc(window.closed_us),
        "carried": [
            {"currency": one.currency, "payments": one.payments, "amount_minor": one.amount_minor}
            for one in window.carried
        ],
    }


def position_json(one: Position) -> dict[str, Any]:
    """A position for a program."""
    parts = {
        "debits": one.debits,
        "credits": one.credits,
        "refunds_paid": one.refunds_paid,
        "refunds_received": one.refunds_received,
    }
    return {
        "participant": one.participant,
        "currency": one.currency,
        **{name: {"count": tally.count, "amount_minor": tally.amount_minor} for name, tally in parts.items()},
        "gross_minor": one.gross_minor,
        "net_minor": one.net_minor,
    }
