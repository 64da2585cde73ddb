"""`hutong`: finds a command by name and imports only what that command needs."""

from __future__ import annotations

import importlib
import os
from typing import Any, Final

import click

from command.options.groups import Group
from hutong_contract.cleaning import printable, printable_lines
from hutong_contract.extras import MissingExtraError, check_installed

COMMANDS: Final = {
    "barcode": ("command.barcode", "Read, write, scan and translate payment barcodes."),
    "bench": ("command.bench", "Measure payments a second against an empty gRPC echo."),
    "capture": ("command.payments", "Take what a payment holds, or a part of it."),
    "check": ("command.check", "Check on a data directory that no money was lost."),
    "code": ("command.code", "Show and provision one-time payment codes."),
    "demo": ("command.demo", "Let every wallet pay every merchant, and check the books."),
    "face": ("command.face", "Enrol, identify and measure faces."),
    "load": ("command.load", "Load a running gateway with a scenario, and say what callers saw."),
    "keys": ("command.keys", "Rotate, show and erase the token vault's keys."),
    "merchants": ("command.lists", "List the merchants of a network."),
    "participants": ("command.participants", "Run simulated issuers and acquirers for several gateways."),
    "pay": ("command.payments", "Make a payment on a running network."),
    "payments": ("command.lists", "List payments and refunds of a running network."),
    "receipt": ("command.receipt", "Print the receipt of a payment or refund."),
    "refund": ("command.payments", "Refund a payment on a running network."),
    "risk": ("command.risk", "Show, check, reload and try risk rules; list what they decided."),
    "settle": ("command.settle", "Close settlement windows, write statements, reconcile books."),
    "show": ("command.payments", "Show a payment of a running network."),
    "simulate": ("command.simulate", "Run the whole switch through every fault, from seeds."),
    "token": ("command.token", "Request, show, suspend, resume and delete tokens."),
    "torture": ("command.torture", "Kill real processes under load, and look for anything lost."),
    "void": ("command.payments", "Free what a payment holds."),
    "up": ("command.up", "Run the network until stopped."),
    "wallets": ("command.lists", "List the simulated wallets of a network."),
    "watch": ("command.lists", "Print payments of a running network as they change."),
}
"""Command name to the module that defines a click command of the same name, and its line in the help text."""


EXTRAS: Final = {"bench": "bench", "load": "bench", "demo": "faces", "face": "faces"}
"""Command name to the extra without which nothing of it works; others say what they miss when they come to it."""


class _Lazy(Group):
    """Imports a command's module when it is used; the help text needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name in EXTRAS:
            check_installed(EXTRAS[cmd_name])
        command: click.Command = getattr(importlib.import_module(COMMANDS[cmd_name][0]), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command. A file or folder of the user's that cannot be read or written ends it with a sentence; what
        an error names of the outside world is printable."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            error.message = printable_lines(error.message)  # type: ignore[misc] # shown once, here
            raise
        except MissingExtraError as error:
            raise click.ClickException(str(error)) from error
        except OSError as error:
            if error.filename is None:
                raise
            name = os.fsdecode(error.filename)
            raise click.ClickException(f"{printable(name)} cannot be used: {error.strerror}.") from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in sorted(COMMANDS)])


@click.command(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="hutong")
def main() -> None:
    """Hutong: any wallet pays any merchant."""


if __name__ == "__main__":
    main()
