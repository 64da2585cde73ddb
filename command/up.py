"""`hutong up`: the network, until stopped."""

from __future__ import annotations

import signal
import sys
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import click
from rich.table import Table

from command.options.folders import data_option
from command.options.network import NetworkIn, network_options
from command.printing.screen import Screen, add_row
from command.printing.verdict import said_plainly
from gateway.engine.ports import JournalFencedError
from gateway.journal.interface import JournalWentBackError
from hutong_contract import confinement
from hutong_contract.cleaning import log_to
from hutong_contract.extras import MissingExtraError
from sandbox.journals import WENT_BACK
from sandbox.network import Network, NetworkError
from sandbox.places import PlaceError, check_network_folder

SHOWN_MAX: Final = 12
"""Wallets and merchants listed at the start."""


@click.command()
@data_option(
    "Folder of the network's state; made if it is not there. Without it: a temporary one, removed at the end.", new=True
)
@network_options
@click.option("--accounts", is_flag=True, help="Also show the simulated wallets' account numbers.")
def up(data: Path | None, network_in: NetworkIn, *, accounts: bool) -> None:
    """Run the network until stopped.

    One gateway with its token and face services, four issuers with wallets and five acquirers with merchants. SIGTERM
    or Ctrl-C drains: nothing new is taken, what is in flight ends or is settled after the next start.
    """
    log_to(sys.stderr, "%(asctime)s %(levelname)s %(name)s %(message)s")
    if data is not None:
        with said_plainly(PlaceError):
            check_network_folder(data)
    with ExitStack() as stack:
        folder = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hutong-")))
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        confinement.keep_to_owner()
        confinement.without_dumps()
        confinement.raise_open_files()
        try:
            with said_plainly(NetworkError):
                network = Network.start(network_in(folder))
        except MissingExtraError as error:
            without = " (or leave the face service out: --no-faces)" if error.extra == "faces" else ""
            raise click.ClickException(f"{error}{without}") from None
        signal.signal(signal.SIGHUP, lambda *_: network.gateway.risk.ask())
        _show(network, Screen(), accounts=accounts)
        failed = False
        while not stop.wait(1.0):
            if network.failed:
                failed = True
                break
        empty = network.close()
        Screen(stderr=True).print("drained" if empty else "stopped; what was in flight is settled at the next start")
    failure = network.gateway.engine.failure
    if failed and isinstance(failure, JournalWentBackError):
        raise click.ClickException(f"{failure}. {WENT_BACK}")
    if failed and isinstance(failure, JournalFencedError):
        raise click.ClickException(
            "this gateway did not reach its journal in time, and another gateway has taken over its payments; nothing "
            "acknowledged is lost: start it again"
        )
    if failed:
        raise click.ClickException("the engine stopped by a defect, see the log; nothing acknowledged is lost")


def _show(network: Network, console: Screen, *, accounts: bool) -> None:
    console.print(f"Hutong listens on [bold]{network.target}[/], its state is in {network.data}", highlight=False)
    if network.recovered:
        console.print(f"{network.recovered:,} payments were in flight and are being settled")
    people, shops = network.population.wallets, network.population.merchants
    wallets = Table("wallet", "owner", "issuer", *(("account",) if accounts else ()))
    for wallet in people[:SHOWN_MAX]:
        add_row(wallets, wallet.id, wallet.name, wallet.issuer_id, *((wallet.account.reveal(),) if accounts else ()))
    console.print(wallets)
    merchants = Table("merchant", "name", "terminals", "acquirers, cheapest first")
    for shop in shops[:SHOWN_MAX]:
        add_row(merchants, shop.id, shop.name, " ".join(shop.terminals), " ".join(one.id for one in shop.acquirers))
    console.print(merchants)
    if max(len(people), len(shops)) > SHOWN_MAX:
        console.print(f"and more: {len(people):,} wallets, {len(shops):,} merchants")
    account = people[0].account.reveal() if accounts else "ACCOUNT (see hutong up --accounts)"
    console.print(
        f"Try, in another terminal with HUTONG_TARGET={network.target}:\n"
        f"  hutong token request --issuer {people[0].issuer_id} --account {account}\n"
        f"  hutong pay --token TOKEN --merchant {shops[0].id} --amount 12.50\n"
        "Stop with Ctrl-C.",
        highlight=False,
    )
