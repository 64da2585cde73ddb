"""`hutong receipt`: what a terminal prints of a payment."""

from __future__ import annotations

import click

from command.options.connection import Connection, connected, connection_options
from command.options.formats import json_or_text_option
from command.printing.said import say_json
from hutong_client import wording
from hutong_client.receipt import COLUMNS, COLUMNS_MAX, COLUMNS_MIN, render


@click.command()
@connection_options
@click.argument("payment_id")
@click.option(
    "--columns",
    type=click.IntRange(COLUMNS_MIN, COLUMNS_MAX),
    default=COLUMNS,
    show_default=True,
    help="Width of the paper.",
)
@json_or_text_option
def receipt(connection: Connection, payment_id: str, columns: int, *, as_json: bool) -> None:
    """Print the receipt of a payment or refund that has ended, or whose funds are held.

    Times are UTC. Its number is the same whenever it is printed. Exits with 1 while the payment is under way.
    """
    with connected(connection, as_json=as_json) as client:
        found = client.get_receipt(payment_id)
    if as_json:
        say_json(wording.as_json(found))
    else:
        click.echo(render(found, columns), nl=False)
